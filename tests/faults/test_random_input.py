"""Random bytes, and requests and frames with random changes: no crash, no hang, no leak."""

import random

from hostile import feed, mutate
from raw_peer import (
    BINARY,
    COMPRESSION,
    CONTINUATION,
    PING,
    TEXT,
    close_frame,
    deflated,
    frame,
    handshake,
)
from server_process import StartServer

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
