"""Listening sockets that another process has opened and handed over: as a descriptor, or as systemd does."""

import errno
import os
import socket

from .errors import CannotServe

__all__ = ["from_descriptor", "from_systemd", "host_of", "uds_of"]

# sd_listen_fds(3): the first of them, after those of standard input, output and error.
FIRST = 3


def from_descriptor(descriptor: int, source: str = "fd") -> socket.socket:
    """Return a copy of a listening socket that this process has inherited; the original stays open.

    Programs that this process starts do not inherit it.

    Raises:
        CannotServe: The descriptor is not open, or not a listening stream socket; the message begins with `source`.
    """
    try:
        listener = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        problem = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise CannotServe(error.errno, f"{source}: descriptor {descriptor} {problem}") from None
    is_stream = listener.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) and (
        listener.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    )
    if not is_stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        kind = "a socket, but does not listen" if is_stream else "not a TCP or Unix stream socket"
        raise CannotServe(errno.EINVAL, f"{source}: descriptor {descriptor} is {kind}")
    os.set_inheritable(descriptor, False)
    return listener


def from_systemd() -> list[socket.socket]:
    """Return copies of the listening sockets that systemd has handed over to this process; usually there are none.

    See sd_listen_fds(3): `LISTEN_PID` names the process that they are meant for, and `LISTEN_FDS` is their number.

    Raises:
        CannotServe: One of them is not a listening stream socket, or their number is not one.
    """
    if os.environ.get("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdigit() or len(count) > 5:
        raise CannotServe(errno.EINVAL, f"LISTEN_FDS: {count[:100]!r} is not a number of descriptors")
    listeners: list[socket.socket] = []
    try:
        for descriptor in range(FIRST, FIRST + int(count)):
            listeners.append(from_descriptor(descriptor, "LISTEN_FDS"))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def host_of(descriptor: int) -> str | None:
    """Return the address at which an inherited TCP socket listens; `None` if the descriptor is nothing of the kind."""
    name = _name_of(descriptor)
    return str(name[0]) if isinstance(name, tuple) else None


def uds_of(descriptor: int) -> str | None:
    """Return the path of an inherited Unix socket; `None` if the descriptor is nothing of the kind."""
    name = _name_of(descriptor)
    return name if isinstance(name, str) else None


def _name_of(descriptor: int) -> object:
    try:
        with from_descriptor(descriptor) as listener:
            return listener.getsockname()
    except OSError:
        return None
