"""Listening on a Unix socket: its file appears when the server starts, and is removed when it stops."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator

from .errors import CannotServe

__all__ = ["SocketFile", "listen_at"]

# Attempts to lock a directory, and the seconds between them.
LOCK_ATTEMPTS = 100
LOCK_INTERVAL = 0.01


class SocketFile:
    """The file of a listening Unix socket."""

    def __init__(self, path: str) -> None:
        """Remember the file that is at `path` now."""
        # The program may change its directory while it serves.
        self.path = os.path.abspath(path)
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file, unless another one has taken its place.

        Call this while the socket still listens: its file's number is not given to another file before that.
        """
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                os.unlink(self.path)


def listen_at(path: str, backlog: int) -> tuple[socket.socket, SocketFile]:
    """Listen on a Unix socket, and replace one that was left behind by a server that was killed.

    The file gets the permissions that the umask of this process leaves; a client needs the one to write.

    Raises:
        CannotServe: Something other than a socket is at `path`, or a socket on which somebody listens; or the system
            refuses to create one. The message says which, and why.
    """
    try:
        with _alone_in(os.path.dirname(path) or "."):
            _make_room(path)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(path)
                file = SocketFile(path)
                listener.listen(backlog)
            except BaseException:
                listener.close()
                raise
        return listener, file
    except OSError as error:
        if isinstance(error, CannotServe):
            raise
        # Python itself reports a path that is too long, without a number.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotServe(error.errno or errno.EINVAL, f"cannot listen on {path}: {reason}") from error


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """Keep other servers from replacing sockets in this directory: two could replace a dead one, and one be lost."""
    with contextlib.ExitStack() as stack:
        # A directory that may not be read can still be written to. Some file systems have no locks.
        with contextlib.suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            _lock(descriptor)
        yield


def _lock(descriptor: int) -> None:
    """Wait for the lock, which servers hold for a moment only; not for ever, since anybody may hold it."""
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_INTERVAL)
        else:
            return


def _make_room(path: str) -> None:
    """Remove a socket on which nobody listens."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotServe(errno.EEXIST, f"cannot listen on {path}: there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            # A full queue (EAGAIN), or another type of socket (EPROTOTYPE), also means that it is in use. A socket that
            # may not even be connected to is not ours to replace.
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise
    raise CannotServe(errno.EADDRINUSE, f"cannot listen on {path}: another process listens there")


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
