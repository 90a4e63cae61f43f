"""Building blocks for ASGI applications that a test serves, in any process."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from application import Note

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application; not typed further, so that anything can be served."""

MakeApp = Callable[[Note], App]
"""Makes the application of a test, which reports what it sees through `Note`."""

Pairs = Iterable[tuple[bytes, bytes]]


async def begin(send: Send, status: int = 200, headers: Pairs = (), **more: Any) -> None:
    """Send the head of an answer."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})


async def part(send: Send, body: bytes) -> None:
    """Send a part of the body, which is not the last."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def end(send: Send, body: bytes = b"") -> None:
    """Send the last part of the body."""
    await send({"type": "http.response.body", "body": body})


async def answer(send: Send, body: bytes = b"", status: int = 200, headers: Pairs = ()) -> None:
    """Send a whole answer."""
    await begin(send, status, headers)
    await end(send, body)


async def read_body(receive: Receive) -> bytes:
    """Receive the whole body of a request."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def accept(receive: Receive, send: Send, **options: Any) -> None:
    """Accept a WebSocket."""
    message = await receive()
    assert message == {"type": "websocket.connect"}, message
    await send({"type": "websocket.accept", **options})
