"""A client that sends whatever bytes a test wants, and shows the bytes that come back."""

import asyncio
import os
import socket
import ssl
import struct
from typing import Any, NamedTuple, Self

from hubbub import CloseCode, Opcode

# The example of RFC 6455 §1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Answer(NamedTuple):
    """An HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawFrame(NamedTuple):
    """A WebSocket frame (RFC 6455 §5.2)."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv1: bool = False


class RawClient:
    """A TCP connection to the server, or TLS over one, or a connection to a Unix socket; use it with `async with`."""

    def __init__(self, at: int | str, receive_buffer: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        """Prepare to connect to a port or a path; a small `receive_buffer` makes a client that soon stops reading."""
        self._address: Any = at if isinstance(at, str) else ("127.0.0.1", at)
        # asyncio sets TCP_NODELAY, which sends small writes at once, only if the protocol is given.
        self._socket = socket.socket(socket.AF_UNIX) if isinstance(at, str) else socket.socket(proto=socket.IPPROTO_TCP)
        self._tls = tls
        self.trailers: dict[str, str] = {}
        """The trailers of the latest answer in chunks."""
        self._limit = receive_buffer or 64 * 1024
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    async def __aenter__(self) -> Self:
        self._socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)
        host = self._address[0] if self._tls else None
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._socket, limit=self._limit, ssl=self._tls, server_hostname=host
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    @property
    def address(self) -> str:
        """The address and port of the client's end, as the server's log shows them."""
        if self._socket.family == socket.AF_UNIX:
            return "127.0.0.1"
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def send(self, data: str | bytes) -> None:
        self._writer.write(data.encode() if isinstance(data, str) else data)

    async def sent(self) -> None:
        """Wait until the kernel has taken nearly everything sent."""
        await self._writer.drain()

    def end(self) -> None:
        """Close our half of the TCP connection."""
        if self._tls:
            self._socket.shutdown(socket.SHUT_WR)
        else:
            self._writer.write_eof()

    def reset(self) -> None:
        """Reset the TCP connection."""
        self._socket_option(socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    # ---- HTTP ----------------------------------------------------------------------------------------------

    def ask(self, path: str = "/", *headers: str, method: str = "GET") -> None:
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]))

    async def answer(self, *, has_body: bool = True) -> Answer:
        status, headers = await self.head()
        if has_body and headers.get("transfer-encoding") == "chunked":
            body = b""
            while length := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(length + 2))[:length]
            self.trailers = await self._header_lines()
            return Answer(status, headers, body)
        length = int(headers.get("content-length", 0)) if has_body else 0
        return Answer(status, headers, await self._reader.readexactly(length))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the status and the headers of an answer."""
        status_line = (await self._reader.readuntil(b"\r\n")).decode("latin-1")
        return int(status_line.split()[1]), await self._header_lines()

    async def exactly(self, length: int) -> bytes:
        """Read so many bytes."""
        return await self._reader.readexactly(length)

    async def _header_lines(self) -> dict[str, str]:
        headers = {}
        while line := (await self._reader.readuntil(b"\r\n"))[:-2].decode("latin-1"):
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return headers

    async def chunk(self) -> bytes:
        """Read the next chunk of an answer that is sent in chunks; the last one is empty (RFC 9112 §7.1)."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        content = await self._reader.readexactly(size + 2)
        assert content.endswith(b"\r\n")
        return content[:-2]

    # ---- WebSocket -----------------------------------------------------------------------------------------

    async def upgrade(self, *headers: str, path: str = "/") -> Answer:
        """Ask for a WebSocket, and return the answer."""
        self.ask_for_upgrade(*headers, path=path)
        return await self.answer()

    def ask_for_upgrade(self, *headers: str, path: str = "/") -> None:
        self.ask(
            path,
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
            *headers,
        )

    def send_frame(self, opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> None:
        self.send(masked_frame(opcode, payload, fin=fin))

    def send_close(self, code: CloseCode | int, reason: str = "") -> None:
        self.send_frame(Opcode.CLOSE, struct.pack("!H", code) + reason.encode())

    async def frame(self) -> RawFrame:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        payload = await self._reader.readexactly(length)
        return RawFrame(first & 0x0F, payload, bool(first & 0x80), bool(first & 0x40))

    async def message(self) -> RawFrame:
        """Read up to the next frame of a message: on a busy machine the server may have sent a ping meanwhile."""
        while (frame := await self.frame()).opcode in (Opcode.PING, Opcode.PONG):
            pass
        return frame

    async def close_frame(self) -> tuple[int, str]:
        """Read up to the server's Close; return its code and reason."""
        while (frame := await self.frame()).opcode != Opcode.CLOSE:
            pass
        return struct.unpack("!H", frame.payload[:2])[0], frame.payload[2:].decode()

    async def some(self, limit: int | None = None) -> bytes:
        """Wait for data, and return what is available."""
        return await self._reader.read(limit or self._limit)

    async def rest(self) -> bytes:
        """Read until the server closes the connection."""
        return await self._reader.read()

    def _socket_option(self, option: int, value: bytes) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, option, value)


def masked_frame(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a client's frame."""
    mask = os.urandom(4)
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
    return bytes([fin << 7 | opcode]) + _length(len(payload)) + mask + masked


def _length(length: int) -> bytes:
    """The length field of a masked frame."""
    if length < 126:
        return bytes([0x80 | length])
    if length < 1 << 16:
        return b"\xfe" + struct.pack("!H", length)
    return b"\xff" + struct.pack("!Q", length)
