"""Thousands of clients: `crowd.py PORT COUNT BYTES`.

Prints `connected` when all of them are connected, and `received` when each has received BYTES after the handshake.
"""

import selectors
import socket
import sys

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def connected(port: int) -> socket.socket:
    """Connect one client."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(UPGRADE)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(4096)
    client.setblocking(False)
    return client


def main(port: int, count: int, expected: int) -> None:
    """Connect, and read until every client has received `expected` bytes."""
    selector = selectors.DefaultSelector()
    missing = {}
    for _ in range(count):
        newcomer = connected(port)
        selector.register(newcomer, selectors.EVENT_READ)
        missing[newcomer] = expected
    print("connected", flush=True)
    while missing:
        for key, _ in selector.select():
            client = key.fileobj
            assert isinstance(client, socket.socket)
            received = len(client.recv(1024 * 1024))
            assert received, "the server has hung up"
            missing[client] -= received
            if missing[client] <= 0:
                selector.unregister(client)
                del missing[client]
    print("received", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
