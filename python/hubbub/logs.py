"""Logging: where lines go, what they may contain, and how many there may be.

Text sent by a client may be crafted to deceive the reader of the log: a line break starts a line that the server never
wrote, an escape sequence makes a terminal hide or change text. Clients must also not be able to fill the disk.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from types import TracebackType

__all__ = [
    "LineFormatter",
    "Throttle",
    "name_of",
    "set_level",
    "shown",
    "shown_client",
    "shown_lines",
    "to_standard_error",
]

# Characters shown of one text sent by a client.
LONGEST = 500
# Characters shown of a traceback: of its beginning, and of its end.
MAX_BEGIN, MAX_END = 4096, 4096
# Seconds for which lines are counted.
INTERVAL = 10.0


def shown(text: str) -> str:
    r"""Return a client's text in a form that is safe in a log, also between quotes: one line of limited length.

    Characters that are not printable (controls, escape sequences, line ends, marks that change the direction of
    writing, invisible characters) are written as escapes, such as `\x1b`. So are the backslash, so that nobody can fake
    an escape, and the quote.
    """
    cut = text[:LONGEST]
    if not cut.isprintable() or "\\" in cut or '"' in cut:
        cut = "".join(map(_escaped, cut))
    return cut if len(text) <= LONGEST else cut + "..."


def _escaped(character: str) -> str:
    if character in '\\"':
        return "\\" + character
    return _printable(character)


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def shown_lines(text: str) -> str:
    """Return a text of several lines, such as a traceback, so that none of them can look like a record of its own.

    All lines but the first are indented, and characters that are not printable are written as escapes. Backslashes and
    quotes are not: code contains many. The middle of a long text is left out.
    """
    if len(text) > MAX_BEGIN + MAX_END:
        text = f"{text[:MAX_BEGIN]}\n...\n{text[-MAX_END:]}"
    return "\n  ".join("".join(map(_printable, line)) for line in text.split("\n"))


def shown_client(client: tuple[str, int]) -> str:
    """Return a client's address, with its port if the port is known."""
    host, port = client
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def name_of(function: Callable[..., object]) -> str:
    """Return the qualified name of a function, unwrapping `partial`; of another callable, the name of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else named.__qualname__


class LineFormatter(logging.Formatter):
    """Formats records so that a client's text in an exception's message cannot look like a record of its own.

    See `shown_lines`.
    """

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """Return the lines of a traceback."""
        return shown_lines(super().formatException(ei))


def to_standard_error() -> None:
    """Log to standard error, in a program that has not set up logging."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler])


def set_level(level: str, *, default: object) -> None:
    """Set the level of the logger `hubbub`, unless the program has set one and the setting has its default value.

    The access log does not depend on that level, but on `access_log`; if the program has set a level for the logger of
    the access log, that level is kept.

    Args:
        level: The setting `log_level`.
        default: The default of that setting.
    """
    log, access = logging.getLogger("hubbub"), logging.getLogger("hubbub.access")
    if log.level == logging.NOTSET or level != default:
        log.setLevel(level.upper())
    if access.level == logging.NOTSET:
        access.setLevel(logging.INFO)


class Throttle:
    """In each interval, lets the first few lines of a kind into the log, and counts the others."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lines: int, tell_others: Callable[[int], None]) -> None:
        """Create a throttle.

        Args:
            loop: The event loop that provides the clock and calls `tell_others`.
            lines: How many lines pass in an interval of 10 s, which starts with the first line.
            tell_others: Called with the number of the other lines at the end of an interval, if there were any.
        """
        self._loop = loop
        self._lines = lines
        self._tell_others = tell_others
        self._passed = 0
        self._others = 0
        self._end: asyncio.TimerHandle | None = None

    def passes(self) -> bool:
        """Return whether a line may be written now; if not, count it."""
        self._begin()
        if self.is_full:
            self._others += 1
            return False
        self._passed += 1
        return True

    @property
    def is_full(self) -> bool:
        """Whether a line would not be written now, only counted."""
        return self._passed >= self._lines

    def count(self, others: int) -> None:
        """Count `others` lines as not written."""
        if others:
            self._begin()
            self._others += others

    def close(self) -> None:
        """End the interval early."""
        if self._end:
            self._end.cancel()
            self._finish()

    def _begin(self) -> None:
        if self._end is None:
            self._end = self._loop.call_later(INTERVAL, self._finish)

    def _finish(self) -> None:
        others, self._passed, self._others, self._end = self._others, 0, 0, None
        if others:
            self._tell_others(others)
