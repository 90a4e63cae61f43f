"""HTTP requests of random bytes, and valid requests with random changes: no crash, no hang, no growth."""

import random

from hostile import feed, mutate
from raw_peer import Peer
from server_process import MIB, StartServer

COUNT = 20_000
GROUPS = 10
MAX_GROWTH = 4 * MIB

HEAD = b"POST /page HTTP/1.1\r\nHost: localhost\r\n"
COUNTED = HEAD + b"Content-Length: 12\r\n\r\nHello, world"
CHUNKED = (
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n5;a;b=c;d="e"\r\nHello\r\n7\r\n, world\r\n0\r\nX-Trailer: y\r\n\r\n'
)
EXPECTING = HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nHello"
OLD = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nHello"
GET = b"GET /health?a=b HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: a=b\r\n\r\n"
ABSOLUTE = b"HEAD http://localhost/ HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-\r\n\r\n"
REQUESTS = [COUNTED, CHUNKED, EXPECTING, OLD, GET, ABSOLUTE]

STATUSES = {100, 200, 400, 405, 408, 413, 417, 431, 501, 505}


def some_input(source: random.Random) -> bytes:
    match source.randrange(5):
        case 0:
            return source.randbytes(source.randrange(300))
        case 1:
            return source.choice([HEAD, COUNTED, CHUNKED]) + source.randbytes(source.randrange(100))
        case 2:
            pipelined = b"".join(source.choices(REQUESTS, k=3))
            return mutate(source, pipelined)
        case 3:
            # A request that is cut off, so that the next one begins inside its claimed length.
            request = source.choice([COUNTED, CHUNKED, OLD])
            return request[: source.randrange(len(request))] + source.choice(REQUESTS)
        case _:
            return mutate(source, source.choice(REQUESTS))


def test_20000_random_requests(start_server: StartServer) -> None:
    server = start_server(events=["request"], settings={"max_body_size": 100_000})
    memory = []
    for group in range(GROUPS):
        for number in range(COUNT // GROUPS):
            seed = group * COUNT + number
            try:
                answer = feed(server, some_input(random.Random(seed)))
                if answer:
                    assert answer.startswith(b"HTTP/1.1 ")
                    assert int(answer[9:12]) in STATUSES
            except Exception as error:
                error.add_note(f"with seed {seed}")
                raise
        memory.append(server.memory())
    # The first requests have filled the buffers that are kept for reuse.
    assert memory[-1] - memory[0] < MAX_GROWTH, memory
    with Peer(server.port) as peer:
        peer.send(COUNTED)
        assert peer.read_answer().body == b"Hello, world"
