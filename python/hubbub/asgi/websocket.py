"""WebSockets of an ASGI application ("HTTP & WebSocket ASGI Message Format", version 2.4).

`receive` and `send` are those of `_core.AppSocket`, which passes messages. What happens only once to a
connection is here.
"""

import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .._core import AppSocket, Reactor
from ..events import CloseCode
from .http import PLAIN_TEXT, ClientDisconnected, HeaderPairs, Message, ProtocolError, final_status

__all__ = ["Socket"]


class Socket:
    """One WebSocket; the application is called with `receive` and `send` of its `channel`."""

    def __init__(
        self,
        reactor: Reactor,
        token: int,
        scope: MutableMapping[str, Any],
        send: Callable[[int, str | bytes], Awaitable[bool]],
    ) -> None:
        """Create a connection whose handshake has just arrived.

        Args:
            reactor: Serves it.
            token: Names the handshake to the reactor.
            scope: The connection's scope.
            send: Queues a message once there is room for it.
        """
        # Without a cycle of references, all of it is freed when the application ends.
        self.channel = AppSocket(reactor, token, weakref.WeakMethod(self._send))
        self._reactor = reactor
        self._token = token
        self._scope = scope
        self._send_later = send
        # Whether the application has closed it, or refused it.
        self._has_closed = False
        self._refusal: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        # For the access log: the status of the answer to the handshake.
        self.status = 0

    # ---- the application's side --------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        """Send an event that the channel does not send itself.

        Raises:
            ClientDisconnected: The connection has ended.
            ProtocolError: The event is not allowed here.
            TypeError: A part of the event has the wrong type.
            ValueError: A part of the event cannot be sent.
        """
        kind, state = message["type"], self.channel.stage
        if kind == "websocket.send" and state == "open":
            await self._send_message(message)
        elif kind == "websocket.close" and state == "open":
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif state == "closed":
            if kind == "websocket.close" and not self._has_closed:
                # Applications also close what their client has just closed.
                self._has_closed = True
                return
            if kind == "websocket.close" or self.channel.has_ended:
                raise ClientDisconnected
            raise ProtocolError(f"the application sent {kind!r} after it had refused the connection")
        elif kind == "websocket.accept" and state == "connecting":
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close" and state == "connecting":
            self._refuse(403, PLAIN_TEXT, b"the handshake was refused\n")
        elif kind == "websocket.http.response.start" and state == "connecting":
            self._refusal = (final_status(message["status"]), list(message.get("headers", ())), [])
            self.channel.begin_refusal()
        elif kind == "websocket.http.response.body" and self._refusal and state == "refusing":
            status, headers, parts = self._refusal
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._refuse(status, headers, b"".join(parts))
        else:
            raise ProtocolError(f"the application sent {kind!r} while the connection is {state}")

    async def _send_message(self, message: Message) -> None:
        data: str | bytes | None = message.get("text")
        if data is None:
            data = message.get("bytes")
            if data is None:
                raise ProtocolError("a 'websocket.send' event needs text or bytes")
        queued = self._reactor.send(self.channel.fd, data)
        if queued is None:
            queued = await self._send_later(self.channel.fd, data)
        if not queued:
            raise ClientDisconnected

    def _accept(self, subprotocol: str | None, headers: HeaderPairs) -> None:
        if subprotocol is not None and subprotocol not in self._reactor.offered_subprotocols(self._token)[0]:
            raise ProtocolError(f"the application accepted the subprotocol {subprotocol!r}, which was not offered")
        fd = self._reactor.accept_for_app(self._token, subprotocol, headers, self._scope["client"])
        if fd is None:
            self.channel.end(CloseCode.ABNORMAL_CLOSURE, "")
            raise ClientDisconnected
        self.status = 101
        self._scope["extensions"]["hubbub"] = {"fd": fd}
        self.channel.open(fd)

    def _refuse(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        # Wrong headers raise an exception here, before anything is sent.
        is_there = self._reactor.respond(self._token, status, headers, body)
        self.status = status
        self._has_closed = True
        self.channel.end(CloseCode.ABNORMAL_CLOSURE, "")
        if not is_there:
            raise ClientDisconnected

    def _close(self, code: int, reason: str) -> None:
        is_open = self._reactor.disconnect(self.channel.fd, code, reason)
        self.channel.clear()
        self._has_closed = True
        if is_open:
            self.channel.end(code, reason)

    # ---- the server's side -------------------------------------------------------------------------------

    def tell(self) -> None:
        """Wake the application, if it waits, to look again."""
        self.channel.tell()

    def fail(self) -> None:
        """End the connection after the application has failed: 1011, or 500 before it was accepted."""
        if self.channel.stage == "open":
            self._reactor.disconnect(self.channel.fd, CloseCode.INTERNAL_ERROR, "the application failed")
            self.channel.end(CloseCode.INTERNAL_ERROR, "")
        elif self.channel.stage != "closed":
            self._refuse_quietly(500, b"Internal Server Error\n")
        self.channel.resume()

    def end(self) -> bool:
        """End the connection after the application has returned: 1000, or 500 if it has not answered the handshake.

        Returns:
            Whether the application was right to return.
        """
        is_right = self.channel.stage in ("open", "closed") or self._reactor.has_left(self._token)
        if self.channel.stage == "open":
            self._reactor.disconnect(self.channel.fd, CloseCode.NORMAL_CLOSURE, "")
            self.channel.end(CloseCode.NORMAL_CLOSURE, "")
        elif self.channel.stage != "closed":
            self._refuse_quietly(500, b"Internal Server Error\n")
        self.channel.resume()
        return is_right

    def stop(self) -> None:
        """Refuse the handshake because the server stops; the application sees a disconnect."""
        if self.channel.stage not in ("open", "closed"):
            self._refuse_quietly(503, b"the server is stopping\n")
            self.channel.end(CloseCode.ABNORMAL_CLOSURE, "")

    def _refuse_quietly(self, status: int, body: bytes) -> None:
        self.channel.close()
        self.status = status
        self._reactor.respond(self._token, status, PLAIN_TEXT, body)
