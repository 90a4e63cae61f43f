"""The servers that a suite can run on: ours, and uvicorn for comparison. JUDGE_SERVER says which."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from anyio.from_thread import start_blocking_portal

from hubbub import Server

__all__ = ["serving", "serving_in_thread"]


@contextlib.asynccontextmanager
async def on_hubbub(app: Any, port: int, lifespan: Any) -> AsyncIterator[int]:
    """Serve with Hubbub; yields the port."""
    server = Server(port=port, app=app, control=None, lifespan=lifespan, shutdown_timeout=1, close_timeout=0.2)
    async with server:
        yield server.port


class QuickUvicorn(uvicorn.Server):
    """uvicorn, which looks more often than ten times a second whether it should stop."""

    async def main_loop(self) -> None:
        """Run until the stop."""
        await self.on_tick(0)
        while not self.should_exit:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def on_uvicorn(app: Any, port: int, lifespan: Any) -> AsyncIterator[int]:
    """Serve with uvicorn; yields the port."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(
            app, interface="asgi3", lifespan=lifespan, log_level="critical", timeout_graceful_shutdown=1
        )
        server = QuickUvicorn(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await serving


def serving(app: Any, port: int = 0, lifespan: str = "off") -> contextlib.AbstractAsyncContextManager[int]:
    """Serve an application in the running event loop; the context's value is the port."""
    serve = {"hubbub": on_hubbub, "uvicorn": on_uvicorn}[os.environ["JUDGE_SERVER"]]
    return serve(app, port, lifespan)


@contextlib.contextmanager
def serving_in_thread(app: Any, port: int = 0, lifespan: str = "off") -> Iterator[int]:
    """Serve an application in an event loop of its own; yields the port."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(app, port, lifespan)) as listening,
    ):
        yield listening
