"""The controlling terminal of this process, and how to detect that its window was closed."""

import contextlib
import errno
import os
import termios

__all__ = ["Terminal", "discard_lost_output"]

# The errors if there is no controlling terminal (ENXIO), or if its other end is gone (EIO).
GONE = {errno.ENXIO, errno.EIO}
STREAMS = (0, 1, 2)


class Terminal:
    """The terminal that the program was started in, if any.

    When a terminal is closed, the kernel detaches it from all processes of its session before it sends them SIGHUP,
    and so before a shell can pass the signal on.
    """

    def __init__(self) -> None:
        """Record whether there is a terminal now."""
        self._was_there = not _is_missing()

    def is_closed(self) -> bool:
        """Return whether there was a terminal that is now gone."""
        return self._was_there and _is_missing()


def _is_missing() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        # Other errors, no free descriptor for example, say nothing about the terminal.
        return error.errno in GONE
    return False


def discard_lost_output() -> None:
    """Discard output to a closed terminal, so that it does not fail: handlers may still print while they end."""
    for stream in STREAMS:
        if _is_lost(stream):
            with contextlib.suppress(OSError), open(os.devnull, "r+b", buffering=0) as nowhere:
                os.dup2(nowhere.fileno(), stream)


def _is_lost(stream: int) -> bool:
    try:
        termios.tcgetattr(stream)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False
