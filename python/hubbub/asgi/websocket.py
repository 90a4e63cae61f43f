"""WebSockets of an ASGI application ("HTTP & WebSocket ASGI Message Format", version 2.4)."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .._core import Reactor
from ..events import CloseCode
from .http import PLAIN_TEXT, ClientDisconnected, HeaderPairs, Message, ProtocolError, final_status

__all__ = ["Socket"]

# Messages that may wait for the application before its connection is no longer read.
MAX_WAITING = 64
# The same for the bytes of such messages together.
MAX_WAITING_BYTES = 1024 * 1024


class Socket:
    """One WebSocket: `receive` and `send` are what the application is called with."""

    def __init__(
        self,
        reactor: Reactor,
        loop: asyncio.AbstractEventLoop,
        token: int,
        scope: MutableMapping[str, Any],
        send: Callable[[int, str | bytes], Awaitable[bool]],
        accepted: Callable[[int, "Socket"], None],
    ) -> None:
        """Create a connection whose handshake has just arrived.

        Args:
            reactor: Serves it.
            loop: The event loop.
            token: Names the handshake to the reactor.
            scope: The connection's scope.
            send: Queues a message once there is room for it.
            accepted: Called with the id when the handshake has been accepted.
        """
        self._reactor = reactor
        self._loop = loop
        self._token = token
        self._scope = scope
        self._send_later = send
        self._accepted = accepted
        # "connecting", "refusing" (its answer has begun), "open" or "closed".
        self.state = "connecting"
        self.fd = 0
        self._events: deque[Message] = deque(({"type": "websocket.connect"},))
        # Bytes of the messages in `_events`, and of those taken since it was empty.
        self._waiting = 0
        self._disconnect: Message | None = None
        # Whether the application has closed it, or refused it.
        self._has_closed = False
        self._is_held = False
        self._receiver: asyncio.Future[None] | None = None
        self._refusal: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        # For the access log: the status of the answer to the handshake.
        self.status = 0

    # ---- the application's side --------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next event; after the end of the connection always its `websocket.disconnect`."""
        while not self._events:
            if self._disconnect:
                return dict(self._disconnect)
            if self.state == "connecting" and self._reactor.has_left(self._token):
                return self._ended(CloseCode.ABNORMAL_CLOSURE, "")
            if self._receiver and not self._receiver.done():
                await asyncio.wait([self._receiver])
                continue
            self._receiver = self._loop.create_future()
            await self._receiver
        event = self._events.popleft()
        if not self._events:
            self._waiting = 0
            self._let_go()
        return event

    async def send(self, message: Message) -> None:
        """Send an event.

        Raises:
            ClientDisconnected: The connection has ended.
            ProtocolError: The event is not allowed here.
            TypeError: A part of the event has the wrong type.
            ValueError: A part of the event cannot be sent.
        """
        kind = message["type"]
        if kind == "websocket.send" and self.state == "open":
            await self._send(message)
        elif kind == "websocket.close" and self.state == "open":
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif self.state == "closed":
            if kind == "websocket.close" and not self._has_closed:
                # Applications also close what their client has just closed.
                self._has_closed = True
                return
            if kind == "websocket.close" or self._disconnect is not None:
                raise ClientDisconnected
            raise ProtocolError(f"the application sent {kind!r} after it had refused the connection")
        elif kind == "websocket.accept" and self.state == "connecting":
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close" and self.state == "connecting":
            self._refuse(403, PLAIN_TEXT, b"the handshake was refused\n")
        elif kind == "websocket.http.response.start" and self.state == "connecting":
            self._refusal = (final_status(message["status"]), list(message.get("headers", ())), [])
            self.state = "refusing"
        elif kind == "websocket.http.response.body" and self._refusal and self.state == "refusing":
            status, headers, parts = self._refusal
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._refuse(status, headers, b"".join(parts))
        else:
            raise ProtocolError(f"the application sent {kind!r} while the connection is {self.state}")

    async def _send(self, message: Message) -> None:
        data: str | bytes | None = message.get("text")
        if data is None:
            data = message.get("bytes")
            if data is None:
                raise ProtocolError("a 'websocket.send' event needs text or bytes")
        queued = self._reactor.send(self.fd, data)
        if queued is None:
            queued = await self._send_later(self.fd, data)
        if not queued:
            raise ClientDisconnected

    def _accept(self, subprotocol: str | None, headers: HeaderPairs) -> None:
        if subprotocol is not None and subprotocol not in self._reactor.offered_subprotocols(self._token)[0]:
            raise ProtocolError(f"the application accepted the subprotocol {subprotocol!r}, which was not offered")
        fd = self._reactor.accept_for_app(self._token, subprotocol, headers, self._scope["client"])
        if fd is None:
            self._ended(CloseCode.ABNORMAL_CLOSURE, "")
            raise ClientDisconnected
        self.fd, self.state, self.status = fd, "open", 101
        self._scope["extensions"]["hubbub"] = {"fd": fd}
        self._accepted(fd, self)

    def _refuse(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        # Wrong headers raise an exception here, before anything is sent.
        is_there = self._reactor.respond(self._token, status, headers, body)
        self.status = status
        self._has_closed = True
        self._ended(CloseCode.ABNORMAL_CLOSURE, "")
        if not is_there:
            raise ClientDisconnected

    def _close(self, code: int, reason: str) -> None:
        is_open = self._reactor.disconnect(self.fd, code, reason)
        self._events.clear()
        self._has_closed = True
        if is_open:
            self._ended(code, reason)

    # ---- the server's side -------------------------------------------------------------------------------

    def message(self, data: str | bytes) -> None:
        """Queue a message for the application; if it lags, no more of them are read."""
        if self._disconnect:
            return
        if isinstance(data, str):
            self._events.append({"type": "websocket.receive", "text": data})
        else:
            self._events.append({"type": "websocket.receive", "bytes": data})
        self._waiting += len(data)
        is_full = len(self._events) >= MAX_WAITING or self._waiting >= MAX_WAITING_BYTES
        if is_full and not self._is_held:
            self._is_held = True
            self._reactor.hold(self.fd)
        self._wake()

    def closed(self, code: int, reason: str) -> None:
        """Note that the connection has ended."""
        self._ended(code, reason)

    def tell(self) -> None:
        """Wake the application, if it waits, to look again."""
        self._wake()

    def fail(self) -> None:
        """End the connection after the application has failed: 1011, or 500 before it was accepted."""
        if self.state == "open":
            self._reactor.disconnect(self.fd, CloseCode.INTERNAL_ERROR, "the application failed")
            self._ended(CloseCode.INTERNAL_ERROR, "")
        elif self.state != "closed":
            self._refuse_quietly(500, b"Internal Server Error\n")
        self._let_go()

    def end(self) -> bool:
        """End the connection after the application has returned: 1000, or 500 if it has not answered the handshake.

        Returns:
            Whether the application was right to return.
        """
        is_right = self.state in ("open", "closed") or self._reactor.has_left(self._token)
        if self.state == "open":
            self._reactor.disconnect(self.fd, CloseCode.NORMAL_CLOSURE, "")
            self._ended(CloseCode.NORMAL_CLOSURE, "")
        elif self.state != "closed":
            self._refuse_quietly(500, b"Internal Server Error\n")
        self._let_go()
        return is_right

    def stop(self) -> None:
        """Refuse the handshake because the server stops; the application sees a disconnect."""
        if self.state not in ("open", "closed"):
            self._refuse_quietly(503, b"the server is stopping\n")
            self._ended(CloseCode.ABNORMAL_CLOSURE, "")

    def _refuse_quietly(self, status: int, body: bytes) -> None:
        self.state, self.status = "closed", status
        self._reactor.respond(self._token, status, PLAIN_TEXT, body)

    def _ended(self, code: int, reason: str) -> Message:
        self.state = "closed"
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": int(code), "reason": reason}
        self._let_go()
        self._wake()
        return dict(self._disconnect)

    def _let_go(self) -> None:
        if self._is_held:
            self._is_held = False
            self._reactor.release(self.fd)

    def _wake(self) -> None:
        if self._receiver and not self._receiver.done():
            self._receiver.set_result(None)
