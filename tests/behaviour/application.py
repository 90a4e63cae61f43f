"""What the applications of the tests are made of, in whichever process they run."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from hubbub import Request, Server

KINDS = ("sync", "async", "suspending", "threaded")
"""The ways in which a handler can run."""


class Note:
    """How an application tells the test what its handlers see: plain values, from any thread."""

    def __init__(self, tell: Callable[[tuple[Any, ...]], None]) -> None:
        self.goes_on = asyncio.Event()
        """Set when the test calls `Running.go_on`: for a handler that waits until the test wants it to end."""
        self._tell = tell

    def __call__(self, *values: Any) -> None:
        self._tell(values)


Application = Callable[[Server, Note], Any]
"""Registers its handlers with the server, before it starts."""

Job = Callable[[Server, Note], Any]
"""What a test has done in a worker, in its event loop; may be async. Arguments, result and errors are pickled."""


class Interruption(BaseException):
    """One that `except Exception` does not catch."""


def interrupted(event: str, kind: str) -> Application:
    """Return an application that raises what is no error in the handler of one event."""

    def interrupt(server: Server, request: Request) -> None:
        raise Interruption

    return lambda server, note: add(server, event, kind, interrupt)


def add(server: Server, event: str, kind: str, handler: Callable[..., Any]) -> None:
    """Register a handler that does the same in each of the ways of `KINDS`."""

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
