"""The ASGI applications of the benchmark: the same ones for all servers that run them."""

import functools
import os
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Event, Receive, Send], Awaitable[None]]

HELLO = b"Hello, world!"
PIECE, PIECES = bytes(64 * 1024), 16


async def echo(scope: Event, receive: Receive, send: Send) -> None:
    """Send every message back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def hello(scope: Event, receive: Receive, send: Send) -> None:
    """Answer each request with a few bytes."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HELLO})


async def stream(scope: Event, receive: Receive, send: Send) -> None:
    """Answer each request with 1 MiB, in pieces of 64 KiB."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


@functools.cache
def path() -> str:
    """Write a file of 1 MiB; return its path."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(PIECE * PIECES)
    return str(Path(file.name))


async def file(scope: Event, receive: Receive, send: Send) -> None:
    """Answer each request with a file of 1 MiB, by `http.response.pathsend` where the server has that."""
    headers = [(b"content-length", b"%d" % (PIECES * len(PIECE)))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if "http.response.pathsend" in scope.get("extensions", {}):
        await send({"type": "http.response.pathsend", "path": path()})
        return
    descriptor = os.open(path(), os.O_RDONLY)
    try:
        while piece := os.read(descriptor, len(PIECE)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        os.close(descriptor)
    await send({"type": "http.response.body"})


def fastapi() -> Application:
    """Make FastAPI's own first example."""
    from fastapi import FastAPI  # It takes long to import.

    app = FastAPI()

    @app.get("/")
    async def read_root() -> dict[str, str]:
        return {"Hello": "World"}

    return app


def application(workload: str) -> Application:
    """Return the application for a workload."""
    applications = {"echo": echo, "hello": hello, "stream": stream, "file": file}
    return fastapi() if workload == "fastapi" else applications[workload]


WORKLOADS = ("echo", "hello", "fastapi", "stream", "file")
