"""A server that runs one test's application, as the test sees it."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from raw_client import RawClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub import Server

KINDS = ("sync", "async", "suspending", "threaded")
"""The ways in which a handler can run."""

Note = Callable[..., None]
"""How an application tells the test what its handlers see: plain values, from any thread."""

Application = Callable[[Server, Note], object]
"""Registers its handlers with the server."""


class Serve(Protocol):
    """The fixture `serve`: runs an application until the end of the test, on a free port."""

    async def __call__(self, application: Application, **settings: Any) -> "Running": ...


class Notes:
    """What an application has told."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self._loop = asyncio.get_running_loop()
        self._unread: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def __call__(self, *values: Any) -> None:
        self._loop.call_soon_threadsafe(self._add, values)

    async def next(self) -> tuple[Any, ...]:
        return await self._unread.get()

    def _add(self, values: tuple[Any, ...]) -> None:
        self.all.append(values)
        self._unread.put_nowait(values)


class Running:
    """A running server."""

    def __init__(self, server: Server, notes: Notes, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.server = server
        self.notes = notes
        self.stop = stop
        """Stop gracefully; the end of the test does so anyway."""

    @property
    def port(self) -> int:
        return self.server.port

    def connect(self, path: str = "/", **options: Any) -> connect:
        """Return a WebSocket client, which asks for no compression and sends no pings unless told to."""
        options = {"compression": None, "ping_interval": None, "proxy": None, **options}
        return connect(f"ws://127.0.0.1:{self.port}{path}", **options)

    def raw(self, receive_buffer: int | None = None) -> RawClient:
        """Return a client that sends and sees bytes."""
        return RawClient(self.port, receive_buffer)

    async def noted(self) -> tuple[Any, ...]:
        """Wait for what the application tells next."""
        return await self.notes.next()


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


async def all_from(client: ClientConnection) -> list[str | bytes]:
    """Return what comes until the server closes the connection, whatever the code."""
    messages = []
    while True:
        try:
            messages.append(await client.recv())
        except ConnectionClosed:
            return messages


async def time_passes(seconds: float) -> None:
    """Let so much time pass for the timers of a server in this process.

    Only for what must not happen: a machine that is too slow makes such a test pass, never fail.
    """
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()
