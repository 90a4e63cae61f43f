"""Find ports for servers, and observe a server at its port."""

import asyncio
import random
import socket

# Below those that the kernel chooses for clients, and for servers that let it choose: none of them takes a port between
# the moment when it is found here and the one when its server listens.
RANGE = range(10_000, 32_000)

_found: set[int] = set()


def free_port() -> int:
    """Return a free port of the loopback, for programs that cannot find one themselves. Each is returned once."""
    while True:
        port = random.choice(RANGE)
        if port not in _found and _is_free(port):
            _found.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def refuses_connections(port: int) -> None:
    """Wait until nothing listens on the port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        writer.close()
