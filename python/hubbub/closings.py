"""Wait for connections to be closed."""

import asyncio
from collections.abc import Callable

from .errors import NotRunning

__all__ = ["Closings"]


class Closings:
    """The callers in one event loop that wait for the end of connections, of any worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, watch: Callable[[int], bool], unwatch: Callable[[int], None]
    ) -> None:
        """Start with no callers waiting.

        Args:
            loop: The event loop in which all methods are called.
            watch: Arranges one call of `tell` once a connection is no longer open. Returns false if it is not open now.
            unwatch: Called when nobody waits for a connection any longer.
        """
        self._loop = loop
        self._watch = watch
        self._unwatch = unwatch
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}

    async def wait(self, fd: int) -> None:
        """Wait until the connection `fd` is no longer open; see `Server.wait_closed`."""
        if not self._watch(fd):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(fd, set()).add(future)
        try:
            await future
        finally:
            # If the future is still listed, this caller was cancelled.
            if (waiting := self._waiting.get(fd)) and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[fd]
                    self._unwatch(fd)

    def tell(self, fd: int) -> None:
        """Wake all callers that wait for the end of this connection."""
        for future in self._waiting.pop(fd, ()):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Make all waiting callers fail with `NotRunning`."""
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(NotRunning("the server has stopped"))
