"""HTTP requests to an ASGI application ("HTTP & WebSocket ASGI Message Format", version 2.4).

`receive` and `send` are those of `_core.AppRequest`. Their errors are here, and what they need of Python's library.
"""

import os
import stat
from collections.abc import Iterable, MutableMapping
from typing import Any

__all__ = ["ClientDisconnected", "ProtocolError", "final_status", "open_file"]

Message = MutableMapping[str, Any]
HeaderPairs = Iterable[tuple[bytes, bytes]]

PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)


class ClientDisconnected(OSError):
    """The client has left, so that nothing can be sent to it. An application need not catch this."""

    def __init__(self) -> None:
        """Create the error."""
        super().__init__("the client has disconnected")


class ProtocolError(RuntimeError):
    """The application has sent an event that ASGI does not allow here, or a body of another length than announced."""


def open_file(path: str | bytes | os.PathLike[str], length: int | None) -> tuple[int, int]:
    """Open a file that an application sends.

    Args:
        path: Its path.
        length: How many bytes have been announced, if any.

    Returns:
        The descriptor, and the length in bytes.

    Raises:
        OSError: It cannot be opened.
        ProtocolError: It is not a file, or has another length.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ProtocolError(f"{os.fspath(path)!r} is not a file")
        if length not in (None, found.st_size):
            raise ProtocolError(f"{os.fspath(path)!r} has {found.st_size} bytes, not {length}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def final_status(status: object) -> int:
    """Return the status of an answer.

    Raises:
        TypeError: It is not an int.
        ValueError: It is not that of a final response.
    """
    if not isinstance(status, int):
        raise TypeError(f"status must be an int, not {type(status).__name__}")
    if not 200 <= status <= 999:
        raise ValueError(f"status {status} is not that of a final response")
    return int(status)
