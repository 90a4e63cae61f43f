"""A peer that can break every rule: it sends any bytes, and reads answer by answer, frame by frame."""

import json
import select
import socket
import struct
import zlib
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

# Seconds to wait for something that must arrive; only a failing test waits this long.
PATIENCE = 30

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
COMPRESSION = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes
    fin: bool


class Answer(NamedTuple):
    """A response from the server; the headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Closed(NamedTuple):
    """The content of the server's Close frame."""

    code: int
    reason: str


def handshake(path: str = "/echo", headers: Mapping[str, str | None] = {}, *, line: str | None = None) -> bytes:
    """Return the head of a handshake; `headers` replaces the usual ones, or leaves them out (`None`)."""
    usual: dict[str, str | None] = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    lines = [f"{name}: {value}" for name, value in {**usual, **headers}.items() if value is not None]
    return "\r\n".join([line or f"GET {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_bytes: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """Return a client's frame (RFC 6455 §5.2), right or wrong.

    Args:
        opcode: Any of 0 to 15.
        payload: As the application means it.
        fin: Whether the message ends with it.
        rsv: The reserved bits as a number, 4 being RSV1.
        masked: Whether it is masked, as a client's frames must be.
        length_bytes: Forces the length into 0, 2 or 8 bytes after the second byte.
        claimed: A length to write instead of the payload's.
    """
    length = len(payload) if claimed is None else claimed
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 1 << 16 else 8
    first = fin << 7 | rsv << 4 | opcode
    second = masked << 7 | {0: length, 2: 126, 8: 127}[length_bytes]
    head = bytes([first, second]) + (length.to_bytes(length_bytes, "big") if length_bytes else b"")
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return a Close frame with any code."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def deflated(data: bytes) -> bytes:
    """Return the payload of a compressed message (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


class Peer:
    """A TCP connection to the server. Reading raises `TimeoutError` if nothing arrives within `PATIENCE` seconds."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        """Connect; `receive_buffer` is how much the kernel keeps for a peer that does not read."""
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    @classmethod
    def open(
        cls,
        port: int,
        path: str = "/echo",
        headers: Mapping[str, str | None] = {},
        *,
        receive_buffer: int | None = None,
    ) -> Self:
        """Connect, and do the opening handshake."""
        peer = cls(port, receive_buffer=receive_buffer)
        try:
            peer.send(handshake(path, headers))
            answer = peer.read_answer()
            assert answer.status == 101, answer
        except BaseException:
            peer.socket.close()
            raise
        return peer

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        self.socket.sendall(data)

    def send_text(self, text: str) -> None:
        """Send a whole text message."""
        self.send(frame(TEXT, text.encode()))

    def vanish(self) -> None:
        """Reset the connection, as a crashed peer's kernel does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def can_be_read(self, seconds: float = 0) -> bool:
        """Return whether something has arrived, including the end of the connection."""
        return bool(self._unread) or bool(select.select([self.socket], [], [], seconds)[0])

    def read_answer(self, *, has_body: bool = True) -> Answer:
        """Read a response with its body; that to a HEAD announces one, and has none (RFC 9110 §9.3.2)."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            self._read_more()
        status_line, *lines = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = self._take(int(headers.get("content-length", 0)) if has_body else 0)
        return Answer(int(status_line.split()[1]), headers, body)

    def read_frame(self) -> Frame:
        """Read one frame of any kind."""
        first, second = self._take(2)
        length = second
        if second >= 126:
            length = int.from_bytes(self._take(2 if second == 126 else 8), "big")
        return Frame(first & 0b1111, self._take(length), bool(first >> 7))

    def read_text(self) -> str:
        """Read a frame that must be a whole text message."""
        received = self.read_frame()
        assert received.opcode == TEXT, received
        assert received.fin, received
        return received.payload.decode()

    def read_json(self) -> object:
        """Read a text message that is JSON."""
        return json.loads(self.read_text())

    def read_close(self) -> Closed:
        """Read a frame that must be a Close with a code."""
        received = self.read_frame()
        assert received.opcode == CLOSE, received
        return Closed(int.from_bytes(received.payload[:2], "big"), received.payload[2:].decode())

    def read_end(self) -> bytes:
        """Read until the server has closed its end, and return what came before.

        Raises:
            ConnectionResetError: The server did not close the connection properly.
        """
        while data := self.socket.recv(1 << 18):
            self._unread += data
        return self._take(len(self._unread))

    def _take(self, length: int) -> bytes:
        while len(self._unread) < length:
            self._read_more()
        taken = bytes(self._unread[:length])
        del self._unread[:length]
        return taken

    def _read_more(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError(f"the server closed the connection; unread: {bytes(self._unread)!r}")
        self._unread += data
