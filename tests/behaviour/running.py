"""A server that runs one test's application, as the test sees it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from application import Application, Job, nothing
from asgi_application import MakeApp
from raw_client import RawClient
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed


class Serve(Protocol):
    """The fixture `serve`: runs an application until the end of the test, on a free port."""

    async def __call__(self, application: Application, **settings: Any) -> "Running": ...


class ServeApp(Protocol):
    """The fixture `serve_app`: the same for an ASGI application, without lifespan unless the settings say otherwise."""

    async def __call__(self, app: MakeApp, application: Application = nothing, **settings: Any) -> "Running": ...


class Notes:
    """The values that an application has noted."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self._unread: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def add(self, values: tuple[Any, ...]) -> None:
        self.all.append(values)
        self._unread.put_nowait(values)

    async def next(self) -> tuple[Any, ...]:
        return await self._unread.get()


class Log:
    """The log of a server."""

    def __init__(self) -> None:
        self.text = ""
        self._is_complete = False
        self._changed = asyncio.Event()

    def add(self, text: str) -> None:
        self.text += text
        self._changed.set()

    def end(self) -> None:
        """Note that nothing more will arrive."""
        self._is_complete = True
        self._changed.set()

    async def tells(self, text: str) -> None:
        """Wait until the log contains the text."""
        while text not in self.text:
            assert not self._is_complete, f"{text!r} is not in:\n{self.text}"
            self._changed.clear()
            await self._changed.wait()


class Serving(Protocol):
    """A server in one of the ways in which it can run."""

    notes: Notes
    log: Log
    workers: int

    @property
    def port(self) -> int: ...

    async def run(self, worker_id: int, job: Job) -> Any:
        """Run something in a worker, in its event loop."""

    async def stop(self) -> None:
        """Stop gracefully; again does nothing."""


class Remote:
    """The server as seen by one of its workers: its methods are called there, and awaited here."""

    def __init__(self, serving: Serving, worker_id: int) -> None:
        self._serving = serving
        self.worker_id = worker_id

    async def run(self, job: Job) -> Any:
        """Make several calls there at once, or calls with arguments or results that cannot be pickled."""
        return await self._serving.run(self.worker_id, job)

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        def call(*arguments: Any, **keywords: Any) -> Awaitable[Any]:
            return self.run(lambda server, note: getattr(server, method)(*arguments, **keywords))

        return call


class Running:
    """A running server."""

    def __init__(self, serving: Serving) -> None:
        self.notes = serving.notes
        self.log = serving.log
        self.port = serving.port
        self.tls: ssl.SSLContext | None = None
        """The TLS context of clients, if the server uses TLS."""
        self.uds: str | None = None
        """The path of the Unix socket, if the server listens there."""
        self.stop = serving.stop
        """Stop gracefully; the end of the test does so anyway."""
        self.workers = [Remote(serving, worker_id) for worker_id in range(serving.workers)]
        # All calls come from one worker, so that they keep their order. It is not the worker that gets the first
        # connection, so that the calls have to cross between workers.
        self.server = self.workers[-1]

    async def owner(self, fd: int) -> Remote:
        """Return the worker that owns the connection: there the effect of a call is visible at once."""
        info = await self.server.info(fd)
        return next(worker for worker in self.workers if worker.worker_id == info.worker_id)

    async def go_on(self) -> None:
        """Wake the handlers that wait for `Note.goes_on`."""
        for worker in self.workers:
            await worker.run(lambda server, note: note.goes_on.set())

    def address_of(self, client: ClientConnection) -> tuple[str, int]:
        """Return a client's address as the server sees it."""
        host, port = ("127.0.0.1", 0) if self.uds else client.local_address[:2]
        return host, port

    @property
    def scheme(self) -> str:
        """The scheme of a request, as the server sees it."""
        return "https" if self.tls else "http"

    def connect(self, path: str = "/", **options: Any) -> connect:
        """Return a WebSocket client, by default without compression and pings."""
        options = {"compression": None, "ping_interval": None, "proxy": None, **options}
        url = f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}{path}"
        if self.uds:
            return unix_connect(self.uds, url, **options)
        return connect(url, ssl=self.tls, **options)

    def raw(self, receive_buffer: int | None = None) -> RawClient:
        """Return a client that sends and receives raw bytes."""
        return RawClient(self.uds or self.port, receive_buffer, self.tls)

    async def noted(self) -> tuple[Any, ...]:
        """Wait for the next value that the application notes."""
        return await self.notes.next()

    async def nothing_queued(self) -> Any:
        """Wait until no output is queued, and return the counts of then.

        A client may have everything before the worker has recorded that it is written.
        """
        while (stats := await self.server.stats())["queued_bytes"]:
            pass
        return stats

    async def opened(self) -> int:
        """Wait for the id of a connection, which the application notes first."""
        (fd,) = await self.noted()
        assert isinstance(fd, int)
        return fd


async def all_from(client: ClientConnection) -> list[str | bytes]:
    """Return the messages received until the server closes the connection, with any code."""
    messages = []
    while True:
        try:
            messages.append(await client.recv())
        except ConnectionClosed:
            return messages


async def time_passes(seconds: float) -> None:
    """Let that much time pass for the timers of a server.

    Use it only to check that something does not happen: then a slow machine cannot make the test fail.
    """
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()
