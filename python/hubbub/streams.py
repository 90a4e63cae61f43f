"""Answers to plain HTTP requests whose bodies are made while they are sent."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from ._core import Reactor
from .errors import wrong_type
from .events import Data

__all__ = ["Stream"]


class Stream:
    """One such answer, from its head to its end."""

    def __init__(self, reactor: Reactor, token: int, status: int, headers: list[tuple[str, str]]) -> None:
        """Create an answer.

        Args:
            reactor: Sends it.
            token: Names the request to the reactor.
            status: The status code.
            headers: The headers.
        """
        self._reactor = reactor
        self._token = token
        self._status = status
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        # Whether the client has left, so that the cancellation of the task is no failure.
        self._is_left = False
        # Bytes of the body that have been sent.
        self.sent = 0

    async def send(self, parts: AsyncIterable[str | Data]) -> bool:
        """Send the answer, as fast as the client takes it.

        The iterator is closed in any case: if the client leaves, with `GeneratorExit` or `CancelledError`, wherever it
        waits.

        Returns:
            Whether the whole answer was sent; otherwise the client has left.

        Raises:
            TypeError: A part is neither `str` nor bytes-like.
            BaseException: What the iterator raises. The answer is cut off, so that the client notices.
        """
        self._task = asyncio.current_task()
        iterator = aiter(parts)
        try:
            is_whole = await self._send_all(iterator)
            self._task = None
        except asyncio.CancelledError:
            if not self._is_left:
                raise
            is_whole = False
        finally:
            # Does nothing after the end of the answer.
            self._reactor.cut_answer(self._token)
            self._reactor.done(self._token)
            if close := getattr(iterator, "aclose", None):
                await close()
        return is_whole

    async def _send_all(self, iterator: AsyncIterator[str | Data]) -> bool:
        if not self._reactor.begin_answer(self._token, self._status, self._headers, None):
            return False
        async for part in iterator:
            content = _bytes_of(part)
            while (is_queued := self._reactor.send_part(self._token, content)) is None:
                self._room = self._loop.create_future()
                await self._room
            if not is_queued:
                return False
            self.sent += len(content)
        return self._reactor.end_answer(self._token, ())

    async def send_head(self, parts: AsyncIterable[str | Data]) -> bool:
        """Send only the head, in answer to HEAD; the iterator is closed without having been asked.

        Returns:
            Whether the client is still there.
        """
        is_there = self._reactor.begin_answer(self._token, self._status, self._headers, None)
        is_there = self._reactor.end_answer(self._token, ()) and is_there
        if close := getattr(parts, "aclose", None):
            with contextlib.suppress(Exception):
                await close()
        return is_there

    def tell(self) -> None:
        """Note that there is room for more, or that the client has left."""
        if self._room and not self._room.done():
            self._room.set_result(None)
        if self._task and self._reactor.has_left(self._token):
            self._is_left = True
            self._task.cancel()


def _bytes_of(part: str | Data) -> bytes:
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, bytes):
        return part
    try:
        return bytes(memoryview(part))
    except TypeError:
        raise wrong_type("each part of a streamed body", "a str or bytes-like", part) from None
