"""Waiting for connections to be closed."""

import asyncio
from collections.abc import Callable

from .errors import NotRunning

__all__ = ["Closings"]


class Closings:
    """What waits in one event loop for the end of connections, of any worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, watch: Callable[[int], bool], unwatch: Callable[[int], None]
    ) -> None:
        """Begin without any.

        Args:
            loop: Where all of this is called.
            watch: Has `tell` called once as soon as a connection is open no more. False: it is not open now.
            unwatch: Nobody waits for a connection any more.
        """
        self._loop = loop
        self._watch = watch
        self._unwatch = unwatch
        self._waiting: dict[int, set[asyncio.Future[None]]] = {}

    async def wait(self, fd: int) -> None:
        """Wait until the connection `fd` is open no more; see `Server.wait_closed`."""
        if not self._watch(fd):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(fd, set()).add(future)
        try:
            await future
        finally:
            # Otherwise it was cancelled.
            if (waiting := self._waiting.get(fd)) and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[fd]
                    self._unwatch(fd)

    def tell(self, fd: int) -> None:
        """Let everybody go on who waits for the end of this connection."""
        for future in self._waiting.pop(fd, ()):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """End all waiting: nothing more will be told here."""
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(NotRunning("the server has stopped"))
