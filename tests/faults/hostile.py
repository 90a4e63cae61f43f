"""Randomly changed input, sent to a server that must survive it."""

import contextlib
import random
import socket

from raw_peer import Peer
from server_process import ServerProcess


def feed(server: ServerProcess, data: bytes) -> bytes:
    """Send `data` and nothing more; the server must then end the connection, in any way. Return what it sent."""
    with Peer(server.port) as peer, contextlib.suppress(ConnectionError):
        peer.send(data)
        peer.socket.shutdown(socket.SHUT_WR)
        return peer.read_end()
    return b""


def mutate(source: random.Random, data: bytes) -> bytes:
    """Change, remove, repeat or insert a few bytes somewhere."""
    mutated = bytearray(data)
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(mutated) + 1)
        end = start + source.choice([0, 1, 1, 2, 8])
        mutated[start:end] = source.choice(
            [b"", source.randbytes(1), source.randbytes(4), bytes(mutated[start:end]) * 2]
        )
    return bytes(mutated)
