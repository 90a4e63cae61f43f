"""Where lines of the log go, what goes into one, and how many there may be.

What a client has sent may be made to deceive whoever reads the log: a line break begins a line that the server never
wrote, an escape sequence makes a terminal hide or change what stands there. And what clients do must not fill a disk.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from types import TracebackType

__all__ = ["LineFormatter", "Throttle", "name_of", "set_level", "shown", "shown_client", "to_standard_error"]

# Characters of one text of a client's.
LONGEST = 500
# Characters of a traceback: of its begin, and of its end.
MAX_BEGIN, MAX_END = 4096, 4096
# Seconds for which lines are counted.
INTERVAL = 10.0


def shown(text: str) -> str:
    r"""Return a client's text as it may stand in a log, also between quotes: in one line, of bounded length.

    What is not printable (controls, escape sequences, line ends, marks that change the direction of writing, what is
    invisible) is written as an escape, such as `\x1b`. So are the backslash, so that nobody can pretend one, and the
    quote.
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


def shown_client(client: tuple[str, int]) -> str:
    """Return a client's address, with its port if that is known."""
    host, port = client
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def name_of(function: Callable[..., object]) -> str:
    """Return the qualified name of a function, or of what was made a function by `partial`; else of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else named.__qualname__


class LineFormatter(logging.Formatter):
    """Formats records so that what a client has sent cannot pass for a record by way of an exception's message.

    Of a traceback all lines but the first are indented, what is not printable is written as an escape, and if it is
    long, its middle is left out.
    """

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """Return the lines of a traceback."""
        text = super().formatException(ei)
        if len(text) > MAX_BEGIN + MAX_END:
            text = f"{text[:MAX_BEGIN]}\n...\n{text[-MAX_END:]}"
        # Backslashes and quotes stay as they are: code has many.
        return "\n  ".join("".join(map(_printable, line)) for line in text.split("\n"))


def to_standard_error() -> None:
    """Have what is logged written to standard error, in a program that has not set its logging up."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler])


def set_level(level: str, *, default: object) -> None:
    """Set the level of the logger `hubbub`, unless the program has set it and left the setting alone.

    What the access log tells does not depend on that level, but on `access_log`; a level that the program gives its
    logger stays.

    Args:
        level: The setting `log_level`.
        default: What that is if it is left alone.
    """
    log, access = logging.getLogger("hubbub"), logging.getLogger("hubbub.access")
    if log.level == logging.NOTSET or level != default:
        log.setLevel(level.upper())
    if access.level == logging.NOTSET:
        access.setLevel(logging.INFO)


class Throttle:
    """Lets the first few lines of a kind into the log, and counts the others; again and again, for an interval each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lines: int, tell_others: Callable[[int], None]) -> None:
        """Make it.

        Args:
            loop: Whose clock counts, and in which `tell_others` is called.
            lines: How many are let through in an interval of 10 s, which begins with the first of them.
            tell_others: Is given the number of the others at the end of an interval in which there were any.
        """
        self._loop = loop
        self._lines = lines
        self._tell_others = tell_others
        self._passed = 0
        self._others = 0
        self._end: asyncio.TimerHandle | None = None

    def passes(self) -> bool:
        """Tell whether a line may be written now; if not, it is counted."""
        self._begin()
        if self.is_full:
            self._others += 1
            return False
        self._passed += 1
        return True

    @property
    def is_full(self) -> bool:
        """Whether a line would only be counted now."""
        return self._passed >= self._lines

    def count(self, others: int) -> None:
        """Count so many lines as not written."""
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
