"""The control socket: the Unix socket at which other programs of the same user reach a running server.

With `control="auto"` its path follows from the user and the port, so that a server and its `Publisher` find each other
without being told. Beside it lies a lease file. Who holds its lock is the live server; a socket that nobody holds the
lock for is left over from one that was killed.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .errors import CannotServe

__all__ = ["Control", "open_control", "path_for"]

log = logging.getLogger("hubbub")

BACKLOG = 128
# What a system's `sun_path` holds, less the NUL; Linux has 4 bytes more.
MAX_PATH = 103


@dataclass(frozen=True, slots=True)
class Control:
    """A control socket that this process listens on; the two descriptors are to be handed over."""

    path: str
    listener: int
    lease: int
    is_temporary: bool
    """The port was any free one, so no other server will look for what this one has leased."""

    @property
    def lease_path(self) -> str:
        """The lease file's path."""
        return _lease_of(self.path)

    def remove(self) -> None:
        """Remove the socket's file; to be done while the lease is held, or it may be another's."""
        for path in (self.path, self.lease_path)[: 1 + self.is_temporary]:
            with contextlib.suppress(OSError):
                os.unlink(path)


def path_for(port: int) -> str:
    """Return the path at which a server of this user with `control="auto"` has its control socket.

    Raises:
        ConnectionError: Its directory belongs to somebody else, so whoever listens there is not to be trusted; or there
            is no directory for temporary files.
    """
    try:
        directory = _directory()
    except OSError as error:
        raise ConnectionError(f"cannot find the control socket of port {port}: {error.strerror}") from None
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        pass
    else:
        if refusal := _refusal(directory, found):
            raise ConnectionError(refusal)
    return _path_in(directory, port)


def open_control(setting: str | None, port: int, *, is_temporary: bool = False) -> Control | None:
    """Open the control socket that the setting `control` asks for; `None` for none.

    With "auto", one that cannot be had (another live server listens on the same port of another address, the directory
    is another user's) is done without, with a warning.

    Args:
        setting: The setting, `control`.
        port: The port that the server listens on.
        is_temporary: It is any free one.

    Raises:
        CannotServe: The one that `setting` names cannot be had; the message says where, and why.
    """
    if setting is None:
        return None
    try:
        return _open(setting, port, is_temporary)
    except CannotServe as refusal:
        # Nobody asked for it by name; and no other user, whose directory lies in the way, may keep us from serving.
        if setting != "auto":
            raise
        log.warning("no control socket: %s; `control` can name another path", refusal.strerror)
        return None


def _open(setting: str, port: int, is_temporary: bool) -> Control:
    # Without a directory for temporary files there is no path that the error could name.
    path: str | None = None
    try:
        path = _path_in(_own_directory(), port) if setting == "auto" else os.path.abspath(setting)
        if len(os.fsencode(path)) > MAX_PATH:
            raise CannotServe(errno.ENAMETOOLONG, f"a socket's path has at most {MAX_PATH} bytes: {path}")
        _refuse_what_is_no_socket(path)
        lease = _take_lease(path)
        if lease is None:
            raise CannotServe(errno.EADDRINUSE, f"the control socket {path} belongs to another running server")
        try:
            return Control(path, _listen(path), lease, is_temporary and setting == "auto")
        except BaseException:
            os.close(lease)
            raise
    except CannotServe:
        raise
    except OSError as error:
        place = error.filename or path
        reason = f"{place}: {error.strerror or error}" if place else error.strerror
        raise CannotServe(error.errno, f"cannot make the control socket: {reason}") from error


def _directory() -> str:
    return os.path.join(tempfile.gettempdir(), f"hubbub-{os.geteuid()}")


def _path_in(directory: str, port: int) -> str:
    return os.path.join(directory, f"{port}.sock")


def _refusal(directory: str, found: os.stat_result) -> str | None:
    """Return why a directory is not to be trusted, if so; anyone may make one of that name before us."""
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is no directory"
    if found.st_uid != os.geteuid():
        return f"{directory} belongs to another user"
    return None


def _own_directory() -> str:
    """Make sure that the directory is there, is ours, and opens to nobody else."""
    directory = _directory()
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if refusal := _refusal(directory, found):
        raise CannotServe(errno.EPERM, f"cannot make the control socket: {refusal}")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(directory, 0o700)
    return directory


def _lease_of(path: str) -> str:
    return path + ".lease"


def _take_lease(path: str) -> int | None:
    """Return the lease file's descriptor with the lock held; `None`: another process holds it."""
    lease = os.open(_lease_of(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lease)
        return None
    return lease


def _refuse_what_is_no_socket(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise CannotServe(errno.EEXIST, f"cannot make the control socket: {path} is something else")


def _listen(path: str) -> int:
    """Return the descriptor of a socket that listens at `path`, in place of one that a killed server left there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        # Nobody can connect before it listens; so nobody else's process ever could.
        Path(path).chmod(0o600)
        listener.listen(BACKLOG)
        return listener.detach()
