"""Building blocks for the tests' applications, in any process."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from hubbub import Request, Server

KINDS = ("sync", "async", "suspending", "threaded")
"""The ways in which a handler can run."""


class Note:
    """Reports to the test what an application's handlers see: plain values, from any thread."""

    def __init__(self, tell: Callable[[tuple[Any, ...]], None]) -> None:
        self.goes_on = asyncio.Event()
        """Set when the test calls `Running.go_on`; a handler can wait for it."""
        self._tell = tell

    def __call__(self, *values: Any) -> None:
        self._tell(values)


Application = Callable[[Server, Note], Any]
"""Registers its handlers with the server, before it starts."""


def new_server(note: Note, settings: dict[str, Any]) -> Server:
    """Return a server on a free port; the setting `app` is a function that makes the application."""
    settings = dict(settings)
    if make := settings.pop("app", None):
        settings["app"] = make(note)
    return Server(port=0, **settings)


def nothing(server: Server, note: Note) -> None:
    """Register no handlers."""


Job = Callable[[Server, Note], Any]
"""A function that a test runs in a worker's event loop; may be async. Arguments, result and errors are pickled."""


class Interruption(BaseException):
    """An exception that `except Exception` does not catch."""


def interrupted(event: str, kind: str) -> Application:
    """Return an application in which the handler of one event raises `Interruption`."""

    def interrupt(server: Server, request: Request) -> None:
        raise Interruption

    return lambda server, note: add(server, event, kind, interrupt)


def add(server: Server, event: Any, kind: str, handler: Callable[..., Any]) -> None:
    """Register a handler that does the same, in the way that one of `KINDS` names."""

    @functools.wraps(handler)
    async def at_once(*arguments: Any) -> Any:
        return handler(*arguments)

    @functools.wraps(handler)
    async def later(*arguments: Any) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        return handler(*arguments)

    runs: dict[str, Callable[..., Any]] = {
        "sync": handler,
        "async": at_once,
        "suspending": later,
        "threaded": handler,
    }
    server.on(event, runs[kind], threaded=kind == "threaded")
