"""A client that sends and receives TLS records itself."""

import asyncio
import socket
import ssl
from typing import Self

from raw_client import KEY, masked_frame

from hubbub import Opcode

HANDSHAKE_RECORD = bytes.fromhex("1603010200010001fc0303") + bytes(100)
"""The beginning of a TLS handshake."""


class TlsPeer:
    """TLS over a TCP connection to the server; use it with `async with`, which does the handshake."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        *,
        receive_buffer: int | None = None,
        piece: int | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Prepare to connect.

        Args:
            port: Of the server.
            context: What to trust, and which versions to speak.
            receive_buffer: Bytes that the kernel may keep until they are read.
            piece: The number of bytes sent in one call; by default, all.
            session: A session of the same context, to be resumed.
        """
        self.context = context
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1", session=session)
        self.socket = socket.socket(proto=socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.address = ("", 0)
        """Its own address and port, once it has connected."""
        self._port = port
        self._piece = piece
        self._unread = b""

    async def __aenter__(self) -> Self:
        self.socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self._port))
        self.address = self.socket.getsockname()
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self._receive()
            else:
                await self.flush()
                return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    async def flush(self) -> None:
        """Send the records that are ready."""
        await self.send_raw(self.outgoing.read())

    async def send_raw(self, data: bytes | bytearray) -> None:
        """Send bytes as they are."""
        step = self._piece or max(1, len(data))
        for begin in range(0, len(data), step):
            await asyncio.get_running_loop().sock_sendall(self.socket, data[begin : begin + step])

    async def raw(self) -> bytes:
        """Read bytes without decrypting them; empty once the server has closed the connection."""
        return await asyncio.get_running_loop().sock_recv(self.socket, 64 * 1024)

    async def some(self) -> bytes:
        """Read some content; empty if the server has sent close_notify."""
        while True:
            try:
                return self.tls.read(64 * 1024)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._receive()

    async def _receive(self) -> None:
        if data := await self.raw():
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    async def exactly(self, count: int) -> bytes:
        """Read so much content."""
        while len(self._unread) < count:
            data = await self.some()
            assert data, "the server has ended"
            self._unread += data
        result, self._unread = self._unread[:count], self._unread[count:]
        return result

    async def until_end(self) -> bytes:
        """Read all content up to the server's close_notify and its end of the TCP connection."""
        content, self._unread = self._unread, b""
        while data := await self.some():
            content += data
        assert await self.raw() == b""
        return content

    # ---- HTTP, WebSocket -----------------------------------------------------------------------------------

    async def ask(self, path: str, *headers: str) -> None:
        """Send a request."""
        self.tls.write("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
        await self.flush()

    async def answer(self) -> bytes:
        """Read an answer that fits into one record."""
        return await self.some()

    async def upgrade(self) -> None:
        """Do the opening handshake of a WebSocket."""
        await self.ask(
            "/",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await self.exactly(1)
        assert answer.startswith(b"HTTP/1.1 101 ")

    @staticmethod
    def frame(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
        """Return a masked frame."""
        return masked_frame(opcode, payload)

    async def send_frame(self, payload: bytes, opcode: Opcode = Opcode.TEXT) -> None:
        """Send a frame in a record."""
        self.tls.write(self.frame(payload, opcode))
        await self.flush()
