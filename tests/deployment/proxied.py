"""A server behind a proxy, and its clients, which see only the proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from proxies import Front
from websockets.asyncio.client import connect

from hubbub import Frame, Request, Server

PAGE = """<!doctype html>
<title>connecting</title>
<script>
    const socket = new WebSocket(location.origin.replace("http", "ws"));
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => { document.title = event.data; };
    socket.onclose = (event) => { document.title = "closed with " + event.code; };
</script>
"""


class Opened(NamedTuple):
    """What the server knows about a connection."""

    fd: int
    client: str
    """The address in the request."""
    listed: str
    """The address in `info`."""
    scheme: str


class Proxied:
    """A server that echoes and has a page, behind a proxy."""

    front: Front

    def __init__(self, **settings: Any) -> None:
        """Make the server; `serving` runs it."""
        self.server = server = Server(port=0, control=None, **settings)
        self.opened: asyncio.Queue[Opened] = asyncio.Queue()
        self.closed: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        server.on("request", lambda server: PAGE)
        server.on("open", self._on_open)
        server.on("message", self._on_message)
        server.on("close", self._on_close)

    def connect(self, *, secure: bool = False, **options: Any) -> connect:
        """Return a client of the proxy."""
        port = self.front.https if secure else self.front.http
        options = {"compression": None, "ping_interval": None, "max_size": None, "proxy": None, **options}
        scheme = "ws"
        if secure:
            scheme = "wss"
            options["ssl"] = self.front.certificate
        return connect(f"{scheme}://127.0.0.1:{port}/", **options)

    async def get(self, path: str) -> tuple[int, str]:
        """Return the status of a plain request through the proxy, and everything after the status line."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.front.http)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        line, _, rest = answer.partition("\r\n")
        return int(line.split()[1]), rest

    def _on_open(self, server: Server, request: Request) -> None:
        info = server.info(request.fd)
        assert info is not None
        self.opened.put_nowait(Opened(request.fd, request.client[0], info.client[0], request.scheme))

    def _on_message(self, server: Server, frame: Frame) -> None:
        server.push(frame.fd, frame.data)

    def _on_close(self, server: Server, fd: int, code: int, reason: str) -> None:
        self.closed.put_nowait((code, reason))


Behind = Callable[..., Awaitable[Proxied]]
"""A fixture that serves with settings until the end of the test."""


@contextlib.asynccontextmanager
async def serving(
    front_of: Callable[[int], AbstractAsyncContextManager[Front]], settings: dict[str, Any]
) -> AsyncIterator[Proxied]:
    """Serve with settings, behind the proxy that `front_of` starts for the server's port."""
    proxied = Proxied(**settings)
    async with proxied.server, front_of(proxied.server.port) as proxied.front:
        yield proxied
