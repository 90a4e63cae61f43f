"""A WebSocket client for the tests of an application. It needs `pip install 'hubbub[testing]'`."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

from .addresses import urls_to_open
from .errors import NotRunning, check_seconds, wrong_type
from .events import Sendable
from .handed_over import uds_of
from .jsons import as_text
from .server import Server

try:
    from websockets.asyncio.client import ClientConnection, connect, unix_connect
    from websockets.exceptions import ConcurrencyError, ConnectionClosed
except ImportError as error:
    raise ImportError("hubbub.testing needs the library websockets: pip install 'hubbub[testing]'") from error

__all__ = ["Client", "connected"]

# Seconds between two attempts to connect to a server that another process is starting.
RETRY = 0.05
# Characters of a message that an error shows.
LONGEST = 200


class Client:
    """A connection to a server; `connected` opens and closes it."""

    def __init__(self, connection: ClientConnection, address: str, timeout: float) -> None:
        """Wrap an open connection; see `connected`."""
        self.connection = connection
        """The client of the library `websockets`, for everything else."""
        self.address = address
        """The URL that it is connected to."""
        self.timeout = timeout
        """Seconds that each call waits."""

    def __repr__(self) -> str:
        return f"<Client of {self.address}>"

    async def send(self, data: Sendable) -> None:
        """Send one message.

        Args:
            data: `str` is sent as text, bytes-like as binary, a `dict` or `list` as JSON text.

        Raises:
            TypeError: `data` has another type, or JSON cannot express it.
            ValueError: A `str` contains lone surrogates, which UTF-8 cannot express.
            ConnectionError: The connection is closed.
            TimeoutError: The server has not read earlier messages within `timeout` seconds.
        """
        content = as_text(data)
        if isinstance(content, str):
            try:
                content.encode()
            except UnicodeEncodeError:
                raise ValueError("data must be text that UTF-8 can express, without lone surrogates") from None
        else:
            try:
                content = bytes(memoryview(content))
            except TypeError:
                raise wrong_type("data", "str, bytes-like, a dict or a list", data) from None
        async with self._waiting(f"{self.address} took no message"):
            try:
                await self.connection.send(content)
            except ConnectionClosed as closed:
                raise self._is_closed(closed, "a message was to be sent") from None

    async def receive(self) -> str | bytes:
        """Wait for the next message: `str` for text, `bytes` for binary.

        Raises:
            TimeoutError: No message came within `timeout` seconds.
            ConnectionError: The connection was closed instead; the message gives the code and the reason.
        """
        async with self._waiting(f"no message came from {self.address}"):
            try:
                return await self.connection.recv()
            except ConnectionClosed as closed:
                raise self._is_closed(closed, "a message was awaited") from None

    async def receive_json(self) -> Any:
        """Wait for the next message, and decode it as JSON.

        Raises:
            ValueError: The message is not JSON; the error shows it.
            TimeoutError: No message came within `timeout` seconds.
            ConnectionError: The connection was closed instead; the message gives the code and the reason.
        """
        message = await self.receive()
        try:
            return json.loads(message)
        except ValueError as error:
            start = message[:LONGEST]
            shown = f"{start!r}..." if len(message) > LONGEST else repr(start)
            raise ValueError(f"a message from {self.address} is not JSON ({error}): {shown}") from None

    async def close_code(self) -> int:
        """Wait until the server closes the connection, and return the close code; messages until then are discarded.

        1005 means that the server gave no code, 1006 that the connection broke (RFC 6455 §7.1.5). `close_reason` then
        holds the reason.

        Raises:
            TimeoutError: The connection was not closed within `timeout` seconds.
        """
        async with self._waiting(f"{self.address} was not closed"):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.connection.recv()
        code = self.connection.close_code
        assert code is not None
        return code

    @property
    def close_reason(self) -> str | None:
        """The reason that came with the close code; `None` while the connection is open."""
        return self.connection.close_reason

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait for the server's answer. Does nothing if it is closed already.

        Messages that have not been received are discarded. A server that does not answer within `timeout` seconds is
        cut off.
        """
        closing = asyncio.create_task(self.connection.close(code, reason))
        try:
            async with asyncio.timeout(self.timeout):
                # The library stops reading while many messages wait, and would not see the answer.
                with contextlib.suppress(ConnectionClosed, ConcurrencyError):
                    while True:
                        await self.connection.recv()
                await asyncio.shield(closing)
        except TimeoutError:
            # The library waits without limit if the server does not read.
            self.connection.transport.abort()
            await closing

    @contextlib.asynccontextmanager
    async def _waiting(self, failed: str) -> AsyncIterator[None]:
        """Give a block `timeout` seconds."""
        async with _within(self.timeout, failed):
            yield

    def _is_closed(self, closed: ConnectionClosed, meanwhile: str) -> ConnectionError:
        code, reason = self.connection.close_code, self.connection.close_reason
        with_reason = f" ({reason})" if reason else ""
        return ConnectionError(f"{self.address} was closed with {code}{with_reason} while {meanwhile}")


@contextlib.asynccontextmanager
async def connected(
    server: Server | str,
    path: str = "/",
    *,
    timeout: float = 5.0,  # noqa: ASYNC109 (asyncio.timeout would not say what was awaited)
    **options: Any,
) -> AsyncIterator[Client]:
    """Connect a client, and close it at the end of the block.

    ```
    async with server, connected(server, "/chat?name=ada") as client:
        await client.send({"text": "hello"})
        assert await client.receive_json() == {"from": "ada", "text": "hello"}
    ```

    Args:
        server: The server: a `Server` that runs in this event loop, or one that another process runs (`hubbub run`)
            with the same host, port, Unix socket and certificate; or an address such as `"ws://127.0.0.1:9501"`. If
            another process runs it, attempts to connect are repeated until it listens. With a `Server` that has a
            certificate, only the certificates in its file are trusted.
        path: The path, and the query if there is one.
        timeout: Seconds that connecting, and each call of the client, may take.
        **options: For `websockets.asyncio.client.connect`: `origin`, `subprotocols`, `additional_headers`, `ssl` and
            others. By default there is no compression, no ping from the client, and no proxy.

    Raises:
        TimeoutError: The server did not accept the client in time; the message gives the address.
        NotRunning: The server is not running in this process, and its port is 0, so it cannot be found.
        websockets.exceptions.InvalidStatus: The server refused the handshake; `response.status_code` is the status.
        TypeError: An argument has the wrong type.
        ValueError: `path` does not begin with a slash, or `timeout` is not above 0.
    """
    check_seconds("timeout", timeout)
    if not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout}")
    if not isinstance(path, str):
        raise wrong_type("path", "a str", path)
    if not path.startswith("/"):
        raise ValueError(f"path must begin with a slash: {path!r}")
    base, is_here = _address_of(server)
    address = base + path
    settings: dict[str, Any] = {
        "compression": None,
        "ping_interval": None,
        "proxy": None,
        "close_timeout": timeout,
        # The time is limited here.
        "open_timeout": None,
        **options,
    }
    uds = _uds_of(server) if isinstance(server, Server) else None
    if isinstance(server, Server) and server.settings.ssl_certfile and "ssl" not in options:
        settings["ssl"] = _trust(server.settings.ssl_certfile)
    async with _within(timeout, f"{address} did not accept the client"):
        connection = await _connect(address, uds, settings, retries=not is_here)
    client = Client(connection, address, timeout)
    try:
        yield client
    finally:
        await client.close()


async def _connect(address: str, uds: str | None, settings: dict[str, Any], *, retries: bool) -> ClientConnection:
    while True:
        try:
            if uds is not None:
                return await unix_connect(uds, address, **settings)
            return await connect(address, **settings)
        except (ConnectionRefusedError, FileNotFoundError):
            if not retries:
                raise
        await asyncio.sleep(RETRY)


@contextlib.asynccontextmanager
async def _within(seconds: float, failed: str) -> AsyncIterator[None]:
    """Give a block some time; if it is not enough, the error says what failed."""
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        raise TimeoutError(f"{failed} within {seconds:g} s") from None


def _address_of(server: Server | str) -> tuple[str, bool]:
    """Return the URL of a server without a path, and whether the server runs in this process."""
    if isinstance(server, str):
        base = server.rstrip("/")
        if not base.startswith(("ws://", "wss://")):
            raise ValueError(f"the address of a server begins with ws:// or wss://, unlike {server!r}")
        return base, False
    if not isinstance(server, Server):
        raise wrong_type("server", "a Server or an address", server)
    is_here, is_secure = server.worker_id is not None, server.settings.ssl_certfile is not None
    if _uds_of(server) is not None:
        return f"{'wss' if is_secure else 'ws'}://localhost", is_here
    if not server.port:
        raise NotRunning("the server is not running in this process, so its port is not known: give its address")
    url = urls_to_open(server.settings.hosts, server.port, tls=is_secure)[0]
    return "ws" + url.removeprefix("http").rstrip("/"), is_here


def _uds_of(server: Server) -> str | None:
    """Return the path of the Unix socket at which a server listens, if it does."""
    if server.settings.fd is not None:
        return uds_of(server.settings.fd)
    return server.settings.uds


def _trust(certfile: str) -> ssl.SSLContext:
    """Return a context that trusts only a certificate in this file, whatever name it is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certfile)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
