"""A server and its peer in a network that goes down between them: `half_open_program.py CASE`.

It has to run in a network namespace of its own. Once the network is down, packets vanish, and neither
end learns that the other is unreachable. Once the server has released the connection, it prints as JSON what it knows
about it.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from raw_peer import handshake

from hubbub import Server

INTERVAL = 0.3
CHUNK = bytes(64 * 1024)


def network(state: str) -> None:
    """Turn the network "up" or "down"."""
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds, because nothing reports it."""
    holds = condition()
    while not holds:
        await asyncio.sleep(0.01)
        holds = condition()


async def connect(server: Server, request: bytes) -> socket.socket:
    """Connect, ask, and return when the answer has arrived."""
    loop = asyncio.get_running_loop()
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.setblocking(False)
    await loop.sock_connect(peer, ("127.0.0.1", server.port))
    await loop.sock_sendall(peer, request)
    await loop.sock_recv(peer, 4096)
    return peer


def stay_idle(server: Server) -> None:
    """Send nothing."""


def fill_outbox(server: Server) -> None:
    """Push until nothing more is taken."""
    (fd,) = server.connections
    while server.push(fd, CHUNK):
        pass


# By case: what the peer sends, and what the server does before the network goes down.
CASES: dict[str, tuple[bytes, Callable[[Server], None]]] = {
    "idle": (handshake(), stay_idle),
    "reading": (handshake(), fill_outbox),
    "http": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", stay_idle),
}


async def main(case: str) -> None:
    """Serve one connection, and report how it ended."""
    request, before = CASES[case]
    network("up")
    server = Server(
        port=0,
        control=None,
        ping_interval=INTERVAL,
        ping_timeout=INTERVAL,
        close_timeout=INTERVAL,
        keep_alive_timeout=INTERVAL,
        send_queue_size=1024 * 1024,
        slow_consumer="drop",
        max_connections=10,
    )
    closes: list[tuple[int, str]] = []
    server.on("close", lambda server, fd, code, reason: closes.append((code, reason)))
    async with server:
        without = descriptors()
        with await connect(server, request):
            websockets = len(server.connections)
            before(server)
            network("down")
            # The peer's socket stays open.
            await until(lambda: descriptors() == without + 1 and len(closes) == websockets)
            told = {
                "closes": closes,
                "connections": server.stats()["connections"],
                "queued_bytes": server.stats()["queued_bytes"],
            }
        print(json.dumps(told))


asyncio.run(main(sys.argv[1]))
