"""A plugin for pytest: uvicorn's WebSocket tests start our server in place of theirs."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import Server
from results import pytest_runtest_logreport, pytest_sessionfinish

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_logreport", "pytest_sessionfinish", "pytest_sessionstart"]

# Codes with which uvicorn gives no reason.
LEFT_OUT = (1006, 1012)
# The tests run for each combination of uvicorn's own protocols; they are all the same to us.
COMBINATION = "[websockets-sansio-h11]"


class Started:
    """What the tests use of uvicorn's server."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    async def shutdown(self) -> None:
        """Stop."""
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def run_server(config: Any, sockets: Any = None) -> AsyncIterator[Started]:
    """Serve the application of a configuration of uvicorn."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def receive_as_uvicorn() -> Any:
            message = await receive()
            # ASGI: an empty reason may be left out.
            if message["type"] == "websocket.disconnect" and not message.get("reason") and message["code"] in LEFT_OUT:
                message = {name: value for name, value in message.items() if name != "reason"}
            return message

        await config.app(scope, receive_as_uvicorn, send)

    server = Server(
        config.host,
        config.port,
        app=app,
        control=None,
        lifespan=config.lifespan,
        compression=bool(config.ws_per_message_deflate),
        max_message_size=config.ws_max_size,
        ping_interval=config.ws_ping_interval or None,
        ping_timeout=config.ws_ping_timeout,
        send_queue_size=64 * 1024 * 1024,
        root_path=config.root_path,
        shutdown_timeout=2,
        close_timeout=0.2,
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        yield Started(stack)


def pytest_sessionstart() -> None:
    """Replace the function before the modules of the tests import it."""
    import tests.utils  # type: ignore[import-not-found]  # a module of uvicorn's tests

    tests.utils.run_server = run_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep one combination of each test."""
    items[:] = [item for item in items if "[" not in item.name or COMBINATION in item.name]
