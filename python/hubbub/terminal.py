"""The controlling terminal of this process, and what happens once its window is closed."""

import contextlib
import errno
import os
import termios

__all__ = ["Terminal", "discard_lost_output"]

# What the system answers where there is no controlling terminal (ENXIO), or a connection to one that is gone (EIO).
GONE = {errno.ENXIO, errno.EIO}
STREAMS = (0, 1, 2)


class Terminal:
    """The terminal that the program was started in, if any.

    The kernel takes it away from all processes of its session before it sends them SIGHUP, and so before a shell can
    pass that on.
    """

    def __init__(self) -> None:
        """Remember whether there is one now."""
        self._was_there = not _is_missing()

    def is_closed(self) -> bool:
        """Tell whether there was one that is gone by now."""
        return self._was_there and _is_missing()


def _is_missing() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        # Anything else, no free descriptor for example, says nothing about the terminal.
        return error.errno in GONE
    return False


def discard_lost_output() -> None:
    """Let what is written to a closed terminal go nowhere, rather than fail: handlers still print while they end."""
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
