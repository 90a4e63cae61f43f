"""Random bytes, and requests and frames with something changed in them: no crash, no hang, no leak."""

import contextlib
import random
import socket

from raw_peer import (
    BINARY,
    COMPRESSION,
    CONTINUATION,
    PING,
    TEXT,
    Peer,
    close_frame,
    deflated,
    frame,
    handshake,
)
from server_process import ServerProcess, StartServer

HANDSHAKE = handshake(headers={"Sec-WebSocket-Extensions": COMPRESSION, "Origin": "http://localhost"})
FRAMES = b"".join(
    [
        frame(TEXT, "grüß".encode()),
        frame(TEXT, b"one", fin=False),
        frame(PING, b"ping"),
        frame(CONTINUATION, b"two"),
        frame(BINARY, b"x" * 300),
        frame(TEXT, deflated(b"three" * 100), rsv=4),
        close_frame(1000, b"bye"),
    ]
)


def feed(server: ServerProcess, data: bytes) -> None:
    """Send `data` and nothing more; the server must then end the connection, in whatever way."""
    with Peer(server.port) as peer, contextlib.suppress(ConnectionError):
        peer.send(data)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.read_end()


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


def test_5000_random_inputs(start_server: StartServer) -> None:
    server = start_server(settings={"compression": True})
    for seed in range(1250):
        source = random.Random(seed)
        try:
            feed(server, source.randbytes(source.randrange(300)))
            feed(server, HANDSHAKE + source.randbytes(source.randrange(300)))
            feed(server, mutate(source, HANDSHAKE) + FRAMES)
            feed(server, HANDSHAKE + mutate(source, FRAMES))
        except Exception as error:
            error.add_note(f"with seed {seed}")
            raise
