"""A plugin for pytest: the server of python-socketio's own live tests is the one that JUDGE_SERVER names."""

import contextlib
from typing import Any

from live_servers import serving_in_thread

from results import pytest_runtest_logreport, pytest_sessionfinish

__all__ = ["pytest_runtest_logreport", "pytest_sessionfinish", "pytest_sessionstart"]


async def say_ok(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything but Socket.IO."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"OK"})


class WebServer:
    """What the tests use of their own web server, which runs uvicorn."""

    def __init__(self, sio: Any, on_shutdown: Any = None) -> None:
        import socketio  # type: ignore[import-untyped]

        self._app = socketio.ASGIApp(sio, say_ok, on_shutdown=on_shutdown)
        self._running = contextlib.ExitStack()

    def start(self, port: int = 8900) -> None:
        """Start, and return once it listens."""
        self._running.enter_context(serving_in_thread(self._app, port, lifespan="on"))

    def stop(self) -> None:
        """Stop."""
        self._running.close()


def pytest_sessionstart() -> None:
    """Replace the class before the modules of the tests import it."""
    import tests.asyncio_web_server  # type: ignore[import-not-found]  # a module of python-socketio's tests

    tests.asyncio_web_server.SocketIOWebServer = WebServer
