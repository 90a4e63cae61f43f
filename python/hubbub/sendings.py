"""Send messages as fast as their receivers take them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from .errors import NotRunning, wrong_type
from .events import Data, Opcode

__all__ = ["Sendings"]

# Seconds after which a waiting message is tried again. The event that there is room gets lost if another worker is
# stopped, or so far behind that it is not told.
RETRY_INTERVAL = 1.0


class Sendings:
    """The messages in one event loop that wait for room in outboxes of connections, of any worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[int, Data, int | None], bool | None],
        check: Callable[[int, Data, int | None], None],
        stop: Callable[[int], None],
    ) -> None:
        """Start with no messages waiting.

        Args:
            loop: The event loop in which all methods are called.
            send: Queues a message and returns true; returns false if there is no such open connection, and `None` if
                there is no room, after which `tell` is called when that may have changed.
            check: Raises what `send` would raise.
            stop: Called when no message waits for a connection any longer.
        """
        self._loop = loop
        self._send = send
        self._check = check
        self._stop = stop
        # Only the first message of a connection is tried. Each has a future that wakes it.
        self._waiting: dict[int, OrderedDict[object, asyncio.Future[None]]] = {}

    async def send(self, fd: int, data: Data, opcode: int | None) -> bool:
        """Queue a message once there is room for it, after those that already wait; see `Server.send`."""
        if not isinstance(fd, int):
            raise wrong_type("fd", "an int", fd)
        # Those that already wait may be held back until this is sent.
        goes_first = opcode == Opcode.CONTINUATION
        waiting = self._waiting.get(fd)
        if waiting is None or goes_first:
            sent = self._send(fd, data, opcode)
            if sent is not None:
                return sent
        else:
            self._check(fd, data, opcode)
        waiting = self._waiting.setdefault(fd, OrderedDict())
        if not isinstance(data, (str, bytes)):
            # The caller may change it while it waits.
            data = bytes(memoryview(data))
        place = object()
        waiting[place] = self._loop.create_future()
        if goes_first:
            waiting.move_to_end(place, last=False)
        is_to_try = next(iter(waiting)) is not place
        try:
            while True:
                is_first = next(iter(waiting)) is place
                if is_first and is_to_try:
                    sent = self._send(fd, data, opcode)
                    if sent is not None:
                        return sent
                is_to_try = True
                future = waiting[place]
                retry = self._loop.call_later(RETRY_INTERVAL, _wake, future) if is_first else None
                try:
                    await future
                finally:
                    if retry:
                        retry.cancel()
                waiting[place] = self._loop.create_future()
        finally:
            self._leave(fd, place, waiting)

    def _leave(self, fd: int, place: object, waiting: OrderedDict[object, asyncio.Future[None]]) -> None:
        was_first = next(iter(waiting)) is place
        del waiting[place]
        if self._waiting.get(fd) is not waiting:
            return  # The server has stopped.
        if not waiting:
            del self._waiting[fd]
            self._stop(fd)
        elif was_first:
            self.tell(fd)

    def tell(self, fd: int) -> None:
        """Try again to send the message that has waited longest for this connection."""
        if waiting := self._waiting.get(fd):
            _wake(next(iter(waiting.values())))

    def close(self) -> None:
        """Make all waiting callers fail with `NotRunning`."""
        everything, self._waiting = self._waiting, {}
        for waiting in everything.values():
            for future in waiting.values():
                if not future.done():
                    future.set_exception(NotRunning("the server has stopped"))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
