"""Judge whether bodies of 5 GB pass in constant memory: `python tests/asgi/large_bodies.py [bytes]`.

An ASGI application takes and gives them, by length and in chunks; each byte is compared. Linux only.
"""

import socket
import sys
import time
from collections.abc import Callable

from measured_server import MIB, PIECE, Processes, is_part, repeated, watched_server

LENGTH = 5_000_000_000
GROWTH = 4 * MIB
"""By how much the memory of the server may grow: what one connection may hold, and what allocators round up."""


def upload(port: int, length: int) -> bool:
    """Send a body whose length is known."""
    with connected(port) as client:
        client.sendall(f"POST /take HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
        for piece in repeated(length):
            client.sendall(piece)
        return answers_with(client, length)


def upload_in_chunks(port: int, length: int) -> bool:
    """Send a body in chunks."""
    with connected(port) as client:
        client.sendall(b"POST /take HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in repeated(length):
            client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.sendall(b"0\r\n\r\n")
        return answers_with(client, length)


def download(port: int, length: int) -> bool:
    """Receive a body whose length is known."""
    with connected(port) as client, client.makefile("rb", len(PIECE)) as reader:
        client.sendall(f"GET /give/{length} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = b"".join(iter(reader.readline, b"\r\n"))
        return b"content-length: %d\r\n" % length in head.lower() and all(
            reader.read(len(piece)) == piece for piece in repeated(length)
        )


def download_in_chunks(port: int, length: int) -> bool:
    """Receive a body in chunks."""
    with connected(port) as client, client.makefile("rb", len(PIECE)) as reader:
        client.sendall(f"GET /chunks/{length} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = b"".join(iter(reader.readline, b"\r\n"))
        matches, received = b"transfer-encoding: chunked\r\n" in head.lower(), 0
        while size := int(reader.readline(), 16):
            matches = matches and is_part(reader.read(size), received) and reader.read(2) == b"\r\n"
            received += size
        return matches and received == length


def connected(port: int) -> socket.socket:
    """Connect."""
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def answers_with(client: socket.socket, length: int) -> bool:
    """Read the answer, and compare its body."""
    with client.makefile("rb") as reader:
        head = b"".join(iter(reader.readline, b"\r\n"))
        expected = b"%d" % length
        return head.startswith(b"HTTP/1.1 200 ") and reader.read(len(expected)) == expected


WAYS: dict[str, Callable[[int, int], bool]] = {
    "upload, Content-Length": upload,
    "upload, chunked": upload_in_chunks,
    "download, Content-Length": download,
    "download, chunked": download_in_chunks,
}


def passes(name: str, port: int, length: int, server: Processes) -> bool:
    """Send or receive one body, and print the verdict."""
    before, started = server.memory(), time.monotonic()
    with server.most_memory() as found:
        is_right = WAYS[name](port, length)
    seconds = time.monotonic() - started
    growth = found[-1] - before
    is_small = growth <= GROWTH
    print(
        f"{'ok' if is_right and is_small else 'FAILED'}: {name}: {length:,} bytes in {seconds:.1f} s"
        f" ({length / seconds / 1e6:,.0f} MB/s), memory {before / MIB:.1f} MiB + {growth / MIB:.2f} MiB"
        f"{'' if is_right else '; the body was not what was sent'}"
        f"{'' if is_small else f'; at most {GROWTH // MIB} MiB more are allowed'}"
    )
    return is_right and is_small


def main() -> int:
    """Judge each way."""
    length = int(sys.argv[1]) if len(sys.argv) > 1 else LENGTH
    with watched_server() as (port, server):
        # The first requests set up what the server keeps.
        for way in WAYS.values():
            way(port, 32 * MIB)
        judged = [passes(name, port, length, server) for name in WAYS]
    return 0 if all(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
