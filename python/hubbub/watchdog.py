"""Notices when the event loop of a worker or of the master is blocked, and says by what.

A thread of the process regularly asks the event loop for a sign of life. If none comes for `stuck_after`, the thread
finds out where the loop is blocked. It can do so only while the interpreter runs: if a worker's process is stopped, or
one call into C holds the interpreter, the hub notices instead (`stuck.rs`).
"""

import asyncio
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any, Protocol

from .handlers import Handler
from .logs import name_of

__all__ = ["NoMarks", "Watchdog"]

log = logging.getLogger("hubbub")

# Checks within `stuck_after`, and the maximum of seconds between two checks.
LOOKS = 8
MAX_INTERVAL = 2.0
# Seconds by which a wait may exceed its time on a busy machine.
LATENESS = 1.0
# Seconds to wait for the thread to end.
END_OF_THREAD = 1.0


class Marks(Protocol):
    """Tells the other processes that this worker is stuck; the reactor does this."""

    def mark_stuck(self, *, is_stuck: bool) -> bool:
        """Set the mark; return whether this is news, that is, whether the hub has not reported it already."""
        ...

    def is_marked_stuck(self) -> bool: ...


class NoMarks:
    """Tells no one; for the master, as no other process acts on its being stuck."""

    def mark_stuck(self, *, is_stuck: bool) -> bool:
        """Return that it is news."""
        return True

    def is_marked_stuck(self) -> bool:
        """Return that no one has reported it."""
        return False


class Watchdog:
    """Watches the running event loop, in a thread of its own."""

    def __init__(
        self,
        name: str,
        stuck_after: float,
        handlers: Iterable[tuple[str, Handler]],
        marks: Marks,
        *,
        has_master: bool,
    ) -> None:
        """Start watching.

        Args:
            name: The name of the process in the log.
            stuck_after: The seconds for which the loop may be blocked.
            handlers: The handlers, each with its event.
            marks: Where to record that the loop is stuck.
            has_master: Whether a master also watches, and notices when this whole process stands still.
        """
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._name = f"{name} (pid {os.getpid()})"
        self._stuck_after = stuck_after
        self._interval = min(stuck_after / LOOKS, MAX_INTERVAL)
        self._handlers = {code: (event, handler) for event, handler in handlers if (code := _code_of(handler.callable))}
        self._marks = marks
        self._has_master = has_master
        self._is_over = threading.Event()
        self._moves = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hubbub-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._is_over.set()
        self._moves.set()
        self._thread.join(END_OF_THREAD)

    def _watch(self) -> None:
        while not self._wait(self._is_over)[0]:
            self._moves.clear()
            try:
                self._loop.call_soon_threadsafe(self._moves.set)
            except RuntimeError:
                return  # The loop is closed.
            self._await_sign()

    def _await_sign(self) -> None:
        """Wait until the event loop moves; report it as stuck if it does not."""
        began = time.monotonic()
        stood = 0.0
        while stood < self._stuck_after:
            moves, waited = self._wait(self._moves)
            if moves:
                return
            stood += waited
        self._is_stuck(began)

    def _wait(self, event: threading.Event) -> tuple[bool, float]:
        """Wait for an event, at most one interval; return whether it was set, and how many seconds of waiting count.

        If the wait takes much longer, this thread stood still as well, and the loop may not have been able to move.
        """
        began = time.monotonic()
        came = event.wait(self._interval)
        waited = time.monotonic() - began
        if waited - self._interval >= self._stuck_after and not self._has_master:
            log.error(
                "%s stood still for %.1f s: its process was stopped, or a call held the interpreter",
                self._name,
                waited,
            )
        return came, min(waited, self._interval + LATENESS)

    def _is_stuck(self, began: float) -> None:
        is_news = not self._marks.is_marked_stuck()
        if is_news:
            seconds = time.monotonic() - began
            log.error("%s is stuck: its event loop has been blocked for %.1f s, %s", self._name, seconds, self._place())
            # Mark it only after logging: if the log is blocked too, the hub then logs it instead.
            self._marks.mark_stuck(is_stuck=True)
        self._moves.wait()
        if is_news and not self._is_over.is_set():
            seconds = time.monotonic() - began
            log.warning("%s is running again: its event loop was blocked for %.1f s", self._name, seconds)
            self._marks.mark_stuck(is_stuck=False)

    def _place(self) -> str:
        """Describe where the loop's thread is."""
        innermost = frame = sys._current_frames().get(self._watched)
        if innermost is None:
            return "outside Python code"
        # The outermost handler on the stack is the one that the reactor, or a task, called.
        handler: FrameType | None = None
        while frame:
            if frame.f_code in self._handlers:
                handler = frame
            frame = frame.f_back
        where = _line(innermost)
        if handler is None:
            return f"in {where}"
        event, called_first = self._handlers[handler.f_code]
        called = f"in the {event} handler, {name_of(called_first.callable)}"
        return f"{called}, at {where}" if handler is innermost else f"{called}, {_at(handler)}, at {where}"


def _at(frame: FrameType) -> str:
    return f"line {frame.f_lineno}"


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}, line {frame.f_lineno} ({code.co_qualname})"


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code object that runs when a handler is called; `None` if it is not Python code."""
    while isinstance(function, functools.partial):
        function = function.func
    for candidate in (function, getattr(function, "__func__", None), type(function).__call__):
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
