"""HTTP requests to an ASGI application ("HTTP & WebSocket ASGI Message Format", version 2.4)."""

import asyncio
import os
import stat
from collections.abc import Iterable, MutableMapping
from typing import Any

from .._core import Reactor

__all__ = ["ClientDisconnected", "HttpRequest", "ProtocolError", "final_status"]

Message = MutableMapping[str, Any]
HeaderPairs = Iterable[tuple[bytes, bytes]]

DISCONNECT = "http.disconnect"
PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)


class ClientDisconnected(OSError):
    """The client has left, so that nothing can be sent to it. An application need not catch this."""

    def __init__(self) -> None:
        """Create the error."""
        super().__init__("the client has disconnected")


class ProtocolError(RuntimeError):
    """The application has sent an event that ASGI does not allow here, or a body of another length than announced."""


class HttpRequest:
    """One request: `receive` and `send` are what the application is called with."""

    __slots__ = (
        "_body",
        "_headers",
        "_is_received",
        "_length",
        "_loop",
        "_reactor",
        "_scope",
        "_status",
        "_step",
        "_token",
        "_waiters",
        "_wants_trailers",
        "_was_cut_short",
        "status",
    )

    def __init__(
        self,
        reactor: Reactor,
        loop: asyncio.AbstractEventLoop,
        token: int,
        body: bytes | None,
        scope: MutableMapping[str, Any],
    ) -> None:
        """Create a request that has just arrived.

        Args:
            reactor: Answers it.
            loop: The event loop.
            token: Names the request to the reactor.
            body: The whole body; `None` if it is taken from the reactor as it arrives.
            scope: The connection scope.
        """
        self._reactor = reactor
        self._loop = loop
        self._token = token
        # The whole body; `None` if the reactor has it.
        self._body = body
        # Whether `receive` has returned all of it.
        self._is_received = False
        self._headers: list[tuple[bytes, bytes]] = []
        # Bytes of the body that are still to be sent, if the application has announced them.
        self._length: int | None = None
        self._status = 0
        self._wants_trailers = False
        # "start", "body", "trailers" or "done": the event that `send` expects.
        self._step = "start"
        self._was_cut_short = False
        # Who waits in `receive` or `send` for progress.
        self._waiters: list[asyncio.Future[None]] = []
        self._scope = scope
        # The status, once it is sent.
        self.status = 0

    # ---- the application's side --------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next part of the body; after its end wait for the client's disconnect, and return that."""
        if self._body is not None and not self._is_received:
            self._is_received = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        while not self._is_received and self._step != "done":
            taken = self._reactor.take_body(self._token)
            if taken is None:
                await self._progress()
            elif isinstance(taken, tuple):
                content, is_last = taken
                self._is_received = is_last
                return {"type": "http.request", "body": content, "more_body": not is_last}
            else:
                return {"type": DISCONNECT}
        while not self._is_over():
            await self._progress()
        return {"type": DISCONNECT}

    async def send(self, message: Message) -> None:
        """Send an event of the answer.

        Raises:
            ClientDisconnected: The client has left.
            ProtocolError: The event is not allowed here.
            TypeError: A part of the event has the wrong type.
            ValueError: A status or header cannot be sent.
        """
        kind, step = message["type"], self._step
        if step == "start" and kind == "http.response.start":
            self._start(message)
        elif step == "body" and kind == "http.response.body":
            body = message.get("body", b"")
            if body.__class__ is not bytes:
                body = _as_bytes(body)
            if not message.get("more_body", False) and self.status == 0 and not self._wants_trailers:
                self._send_whole(body)
            else:
                await self._send_part(body, bool(message.get("more_body", False)))
        elif step == "body" and kind == "http.response.pathsend" and not self.status:
            self._send_file(message["path"])
        elif step == "trailers" and kind == "http.response.trailers":
            self._headers.extend(message.get("headers", ()))
            if not message.get("more_trailers", False):
                self._end(self._headers if "http.response.trailers" in self._scope["extensions"] else ())
        elif step == "start" and kind == "http.response.early_hint":
            self._reactor.send_early_hints(self._token, [(b"link", link) for link in message["links"]])
        else:
            self._refuse(kind)

    def _refuse(self, kind: object) -> None:
        if self._was_cut_short:
            raise ClientDisconnected
        if self._step == "done":
            raise ProtocolError(f"the application sent {kind!r} after the end of its response")
        raise ProtocolError(f"the application sent {kind!r} where ASGI expects 'http.response.{self._step}'")

    def _start(self, message: Message) -> None:
        status = final_status(message["status"])
        headers = list(message.get("headers", ()))
        length: int | None = None
        for name, value in headers:
            if name.lower() == b"content-length":
                if not value.isdigit() or length not in (None, int(value)):
                    raise ValueError(f"not a Content-Length: {value!r}")
                length = int(value)
        self._status, self._headers, self._length = status, headers, length
        self._wants_trailers = bool(message.get("trailers", False))
        self._step = "body"

    def _send_whole(self, body: bytes) -> None:
        # An answer to HEAD without a body does not tell how long that of GET is.
        is_unknown = self._length is None and not body and self._scope["method"] == "HEAD"
        if is_unknown or self._length not in (None, len(body)):
            self._begin()
            if body:
                self._put(body)
            self._end(())
            return
        # Wrong headers raise an exception here, before anything is sent.
        is_there = self._reactor.respond(self._token, self._status, self._headers, body)
        self._step = "done"
        self.status = self._status
        if not is_there:
            self._left()
        self.tell()

    async def _send_part(self, body: bytes, more_body: bool) -> None:
        if not self.status:
            self._begin()
        if body:
            while (queued := self._put(body)) is None:
                await self._progress()
                if self._step == "done":
                    raise ClientDisconnected
            if not queued:
                self._left()
            if self._length is not None:
                self._length -= len(body)
        elif self._is_over() and (more_body or self._length != 0):
            self._left()
        if more_body:
            return
        if self._wants_trailers:
            self._headers, self._step = [], "trailers"
        else:
            self._end(())

    def _send_file(self, path: str | bytes | os.PathLike[str]) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ProtocolError(f"{os.fspath(path)!r} is not a file")
            if self._length not in (None, found.st_size):
                raise ProtocolError(f"{os.fspath(path)!r} has {found.st_size} bytes, not {self._length}")
        except BaseException:
            os.close(descriptor)
            raise
        # The reactor closes the descriptor, even if wrong headers raise an exception.
        is_there = self._reactor.respond_file(self._token, self._status, self._headers, descriptor, 0, found.st_size)
        self._step = "done"
        self.status = self._status
        if not is_there:
            self._left()
        self.tell()

    def _begin(self) -> None:
        if not self._reactor.begin_answer(self._token, self._status, self._headers, self._length):
            self._left()
        self.status = self._status

    def _put(self, body: bytes) -> bool | None:
        try:
            return self._reactor.send_part(self._token, body)
        except ValueError as error:
            self._step = "done"
            self.tell()
            raise ProtocolError(str(error)) from None

    def _end(self, trailers: HeaderPairs) -> None:
        try:
            is_there = self._reactor.end_answer(self._token, trailers)
        except ValueError as error:
            self.give_up()
            self.tell()
            raise ProtocolError(str(error)) from None
        self._step = "done"
        self.tell()
        # The client may leave once it has as many bytes as were announced.
        if not is_there and self._length != 0:
            self._left()

    def _left(self) -> None:
        self._step = "done"
        self._was_cut_short = True
        self.tell()
        raise ClientDisconnected

    def _is_over(self) -> bool:
        """Return whether the client has left, or has its whole answer."""
        return self._step == "done" or self._reactor.has_left(self._token)

    async def _progress(self) -> None:
        """Wait until the reactor has something new about this request."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    # ---- the server's side -------------------------------------------------------------------------------

    def tell(self) -> None:
        """Wake the application, if it waits, to look at its request again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def disconnect(self) -> None:
        """End the request because the server stops: the application is told that the client has disconnected."""
        if self._step == "done":
            return
        if self.status:
            self.give_up()
        else:
            self.answer(503, b"the server is stopping\n")
        self._was_cut_short = True
        self.tell()

    def answer(self, status: int, body: bytes) -> None:
        """Answer in place of the application, which has not begun to."""
        self._step = "done"
        self.status = status
        self._reactor.respond(self._token, status, PLAIN_TEXT, body)

    @property
    def has_begun(self) -> bool:
        """Whether a part of the answer has been sent."""
        return self.status != 0

    @property
    def is_answered(self) -> bool:
        """Whether the answer is complete, or can no longer be completed."""
        return self._is_over()

    def give_up(self) -> None:
        """Cut off the answer, if it has begun and is not complete."""
        if self._step != "done":
            self._step = "done"
            if self.status:
                self._reactor.cut_answer(self._token)


def final_status(status: object) -> int:
    """Return the status of an answer.

    Raises:
        TypeError: It is not an int.
        ValueError: It is not that of a final response.
    """
    if not isinstance(status, int):
        raise TypeError(f"status must be an int, not {type(status).__name__}")
    if not 200 <= status <= 999:
        raise ValueError(f"status {status} is not that of a final response")
    return int(status)


def _as_bytes(body: object) -> bytes:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"the body of a response must be bytes, not {type(body).__name__}")
    return bytes(body)
