"""Clients of `hub_program.py`, light enough for hundreds of them in one event loop."""

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self

from raw_peer import CLOSE, PING, PONG, TEXT, frame, handshake

Hear = Callable[[str], None]


class Lost(Exception):
    """The connection ended before the answer came."""


class Refused(Exception):
    """The handshake was answered with a status other than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HubClient(asyncio.Protocol):
    """A WebSocket whose messages can be evaluated in its worker. It answers pings."""

    fd: int
    worker_id: int
    pid: int
    """The process id of its worker."""

    def __init__(self, path: str, hear: Hear | None) -> None:
        """Create an unconnected client; use `connect` instead."""
        self.close_code: int | None = None
        self.close_reason = ""
        self.bytes_received = 0
        self.pings: list[bytes] = []
        """What came with pings."""
        self._path = path
        self._messages: asyncio.Queue[str] = asyncio.Queue()
        self._hear = hear or self._messages.put_nowait
        self._unread = bytearray()
        self._has_answered = False
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the connection has ended."""
        self._answers: list[asyncio.Future[Any]] = [loop.create_future()]

    @classmethod
    async def connect(cls, port: int, *, topics: str = "", hear: Hear | None = None) -> Self:
        """Connect, and wait until the server has sent the id.

        Args:
            port: The server's.
            topics: What to subscribe to, separated by commas.
            hear: Called with each message; without it, `receive` returns them.

        Raises:
            ConnectionError: The connection failed.
            Refused: The server refused it.
            Lost: The connection ended first.
        """
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: cls(f"/?topics={topics}", hear), "127.0.0.1", port)
        try:
            client.fd, client.worker_id, client.pid = await client._answers[0]
        except BaseException:
            client.abort()
            raise
        return client

    @property
    def port(self) -> int:
        """The client's own."""
        port = self._transport.get_extra_info("sockname")[1]
        assert isinstance(port, int)
        return port

    async def ask(self, expression: str) -> Any:
        """Evaluate an expression in the worker, and return its value.

        Raises:
            Lost: The connection has ended.
        """
        answer = asyncio.get_running_loop().create_future()
        if self.ended.done():
            raise Lost
        self._answers.append(answer)
        self._transport.write(frame(TEXT, expression.encode()))
        return await answer

    async def receive(self) -> str:
        """Wait for the next message that is not an answer."""
        return await self._messages.get()

    def received(self) -> str | None:
        """Return the next message already received; `None` if there is none."""
        return None if self._messages.empty() else self._messages.get_nowait()

    async def ends(self) -> None:
        """Wait for the end of the connection."""
        await asyncio.shield(self.ended)

    def pause(self) -> None:
        """Stop reading."""
        with suppress(RuntimeError):
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        with suppress(RuntimeError):
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection without a closing handshake."""
        self._transport.abort()

    # ---- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(handshake(self._path))

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(Lost(f"{error or 'end of the input'}, {self._seen()}"))
                # The caller may have stopped waiting for it.
                answer.exception()

    def _seen(self) -> str:
        return f"after {self.bytes_received} bytes with a handshake {self._has_answered}, close code {self.close_code}"

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._unread += data
        if not self._has_answered:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if not end:
                return
            status = int(head.split()[1])
            if status != 101:
                self._answers[0].set_exception(Refused(status))
                self._transport.abort()
                return
            self._has_answered = True
            self._unread = rest
        begin = 0
        while (end_of_frame := self._handle_frame(begin)) is not None:
            begin = end_of_frame
        del self._unread[:begin]

    def _handle_frame(self, begin: int) -> int | None:
        """Handle the frame that begins there, if it has arrived completely, and return where it ends."""
        if len(self._unread) < begin + 2:
            return None
        opcode, length = self._unread[begin] & 0b1111, self._unread[begin + 1]
        begin += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(self._unread) < begin + size:
                return None
            length = int.from_bytes(self._unread[begin : begin + size], "big")
            begin += size
        end = begin + length
        if len(self._unread) < end:
            return None
        payload = bytes(self._unread[begin:end])
        if opcode == PING:
            self.pings.append(payload)
            self._transport.write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.close_code, self.close_reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            self._transport.write(frame(CLOSE, payload))
        elif payload.startswith(b"="):
            answer = self._answers.pop(0)
            if not answer.done():
                answer.set_result(json.loads(payload[1:]))
        else:
            self._hear(payload.decode())
        return end


async def end(clients: Iterable[HubClient]) -> None:
    """End connections, and wait until they have ended."""
    for client in clients:
        client.abort()
        await client.ends()
