"""Timers: `Server.tick` and `Server.after`."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

__all__ = ["Timer"]


class Timer:
    """A function that is called later, once or repeatedly; created by `Server.after` and `Server.tick`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Callable[[Callable[[], Any], Callable[[], None]], None],
        seconds: float,
        repeats: bool,
        job: Callable[[], Any],
    ) -> None:
        """Start the timer; may be called from any thread.

        Args:
            loop: The worker's event loop.
            run: Calls its first argument the way handlers are called, and its second once the first has ended.
            seconds: The time until the first call, and between calls.
            repeats: Whether there is more than one call.
            job: The function to call.
        """
        self._loop = loop
        self._run = run
        self._seconds = seconds
        self._repeats = repeats
        self._job = job
        self._is_running = False
        self._is_cancelled = False
        self._due = loop.time() + seconds
        self._handle: asyncio.TimerHandle | None = None
        # `call_at` is for the loop's own thread alone, and does not wake a loop that sleeps.
        loop.call_soon_threadsafe(self._wait)

    def cancel(self) -> None:
        """Stop calling the function; a running call continues. May be called from any thread, any number of times."""
        self._is_cancelled = True
        # If the event loop is closed, none of its timers fires any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._drop)

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    def _wait(self) -> None:
        if not self._is_cancelled:
            self._handle = self._loop.call_at(self._due, self._fire)

    def _drop(self) -> None:
        if self._handle:
            self._handle.cancel()

    def _fire(self) -> None:
        if self._is_cancelled:
            return
        if self._repeats:
            # Keep the rhythm; calls that were missed while the loop was busy are skipped.
            now = self._loop.time()
            self._due += self._seconds * max(1, -(-(now - self._due) // self._seconds))
            self._wait()
        if not self._is_running:
            self._is_running = True
            self._run(self._job, self._ended)

    def _ended(self) -> None:
        self._is_running = False
