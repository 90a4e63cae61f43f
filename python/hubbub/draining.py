"""Send the clients of a worker away, one after the other, so that they do not all come back at the same moment."""

import asyncio
from collections.abc import Callable, Sequence

__all__ = ["Draining"]

# Seconds between two steps, if there are so many connections that several are closed in each.
STEP = 0.01


class Draining:
    """Closes connections evenly over a time; those that end by themselves leave a gap."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fds: Sequence[int], seconds: float, close: Callable[[int], object]
    ) -> None:
        """Begin.

        Args:
            loop: The event loop in which `close` is called.
            fds: The ids of the connections.
            seconds: The time for all of them.
            close: Begins the closing handshake with the connection of that id.
        """
        self._loop = loop
        self._fds = fds
        self._seconds = seconds
        self._close = close
        self._begin = loop.time()
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None
        self._go_on()

    def _due_at(self, place: int) -> float:
        """Return when the connection at this place is closed: each in the middle of its share of the time."""
        return self._begin + self._seconds * (place + 0.5) / len(self._fds)

    def _go_on(self) -> None:
        """Close what is due, and come back for the rest."""
        self._timer = None
        now = self._loop.time()
        while self._next < len(self._fds) and self._due_at(self._next) <= now:
            self._close(self._fds[self._next])
            self._next += 1
        if self._next < len(self._fds):
            self._timer = self._loop.call_at(max(self._due_at(self._next), now + STEP), self._go_on)

    def cancel(self) -> None:
        """Leave the other connections open."""
        if self._timer:
            self._timer.cancel()
