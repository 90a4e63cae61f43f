"""The clients of `hosts.py`, and the load that they make: all in one thread."""

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from processes import Failed

PATIENCE = 15.0
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
HEAD = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + KEY
SIZE = 64
"""Bytes of a message."""
REST = ("abcdefghijklmnopqrstuvwxyz0123456789" * 2)[: SIZE - 16]
"""A message is a number of 16 hexadecimal digits, and this."""


@dataclass(frozen=True)
class Dialect:
    """What the clients of a server say, beyond WebSockets.

    Attributes:
        path: Where they connect.
        query: What the query begins with.
        opening: What a client hears and says, in turn, until it is connected.
        before: What precedes a message to all subscribers of the topic `room`.
        after: What follows it.
        heard_before: What precedes it when it arrives.
        heard_after: What then follows it.
    """

    path: str = "/"
    query: tuple[tuple[str, str], ...] = ()
    opening: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    heard_before: str = ""
    heard_after: str = ""

    def sent(self, number: int, to: str = "") -> bytes:
        """Return the frame of a message, with the server's word for where it goes."""
        return masked(f"{to}{self.before}{number:016x}{REST}{self.after}")

    def heard(self, number: int) -> bytes:
        """Return the frame of that message as it arrives."""
        text = f"{self.heard_before}{number:016x}{REST}{self.heard_after}".encode()
        return bytes([0x81, len(text)]) + text


HUBBUB = Dialect(opening=("",))
PLAIN = Dialect()
SOCKET_IO = Dialect(
    path="/socket.io/",
    query=(("EIO", "4"), ("transport", "websocket")),
    opening=("", "40", ""),
    before='42["publish","',
    after='"]',
    heard_before='42["message","',
    heard_after='"]',
)


def masked(text: str) -> bytes:
    """Return a text frame of a client, whose masking key is zero."""
    data = text.encode()
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + data


class Client:
    """A WebSocket client."""

    def __init__(self, port: int, dialect: Dialect, topic: str | None = None) -> None:
        """Connect, and subscribe to the topic."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.chunks: list[bytes] = []
        self._early = b""
        query = urlencode([*dialect.query, *([("topic", topic)] if topic else [])])
        self.socket.sendall(f"GET {dialect.path}?{query} HTTP/1.1\r\n".encode() + HEAD)
        head = self._until(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise Failed(f"the server refuses a WebSocket: {head.decode(errors='replace')}")
        self.greeting = ""
        for says in dialect.opening:
            if says:
                self.socket.sendall(masked(says))
            else:
                self.greeting = self._frame()
        self.chunks = [self._early] if self._early else []

    @property
    def worker(self) -> str:
        """The worker that it is connected to, as Hubbub has said."""
        return self.greeting.split()[0]

    @property
    def id(self) -> str:
        """Its id, as Hubbub has said."""
        return self.greeting.split()[1]

    def _until(self, end: bytes) -> bytes:
        while end not in self._early:
            self._read()
        found, _, self._early = self._early.partition(end)
        return found

    def _frame(self) -> str:
        while len(self._early) < 4:
            self._read()
        is_long = self._early[1] == 126
        begin = 4 if is_long else 2
        end = begin + (int.from_bytes(self._early[2:4]) if is_long else self._early[1])
        while len(self._early) < end:
            self._read()
        frame, self._early = self._early[begin:end], self._early[end:]
        return frame.decode()

    def _read(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise Failed("the server has closed a connection")
        self._early += data

    def take(self) -> bytes:
        """Return what was received since the last time."""
        received, self.chunks = b"".join(self.chunks), []
        return received

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def close(clients: Sequence[Client]) -> None:
    """Close the connections."""
    for client in clients:
        client.close()


class Receivers:
    """Clients that are read together."""

    def __init__(self, clients: Sequence[Client]) -> None:
        """Read from these clients."""
        self.clients = clients
        self._by_descriptor = {client.socket.fileno(): client for client in clients}
        self._poll = select.epoll()
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)

    def read(self, seconds: float) -> int:
        """Wait at most so long for something to arrive, and read it. Returns how many bytes."""
        count = 0
        for descriptor, _ in self._poll.poll(max(seconds, 0)):
            client = self._by_descriptor[descriptor]
            data = client.socket.recv(262_144)
            if not data:
                raise Failed("the server has closed a connection")
            client.chunks.append(data)
            count += len(data)
        return count

    def drain(self) -> None:
        """Read until nothing has arrived for a while, and forget it."""
        while self.read(0.3):
            pass
        for client in self.clients:
            client.take()


@dataclass(frozen=True)
class Load:
    """Messages to send.

    Attributes:
        send: Sends the chunk of that number, of `per_chunk` messages.
        chunks: How many chunks there are.
        per_chunk: Messages in each.
        deliveries: How often each message arrives.
        length: The bytes of a message when it arrives.
        window: How many messages may be on their way.
        rate: Messages per second; `None` for as many as possible.
    """

    send: Callable[[int], None]
    chunks: int
    per_chunk: int
    deliveries: int
    length: int
    window: int
    rate: float | None = None

    def carry(self, receivers: Receivers) -> float:
        """Send all messages, and wait until all have arrived. Returns the seconds that it took."""
        begin = heard_at = time.monotonic()
        total, of_one = self.chunks * self.per_chunk, self.deliveries * self.length
        sent = received = 0
        while received < total * of_one:
            now, wait = time.monotonic(), 1.0
            if sent < total and sent + self.per_chunk - received // of_one <= self.window:
                due = begin + sent / self.rate if self.rate else now
                if due <= now:
                    self.send(sent // self.per_chunk)
                    sent += self.per_chunk
                    wait = 0
                else:
                    wait = due - now
            if count := receivers.read(wait):
                received += count
                heard_at = time.monotonic()
            elif time.monotonic() > heard_at + PATIENCE:
                raise Failed(f"{total - received // of_one:,} of {total:,} messages did not arrive")
        return time.monotonic() - begin


def wait_until_heard(send: Callable[[], None], receivers: Receivers, *messages: bytes) -> None:
    """Have messages sent again and again until each of them has reached every client, and forget what has arrived."""
    deadline = time.monotonic() + PATIENCE

    def hears_all(client: Client) -> bool:
        client.chunks = [b"".join(client.chunks)]
        return all(message in client.chunks[0] for message in messages)

    while not all(hears_all(client) for client in receivers.clients):
        if time.monotonic() > deadline:
            raise Failed("some clients do not hear everything")
        send()
        while receivers.read(0.1):
            pass
    receivers.drain()
