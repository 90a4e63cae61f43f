"""The control socket: the Unix socket at which other programs of the same user reach a running server.

With `control="auto"`, its path is derived from the user and the port, so that a server and its `Publisher` find each
other without configuration. A lease file lies next to it. The live server holds the lock on that file; if no process
holds the lock, the socket was left behind by a server that was killed.
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

__all__ = ["Control", "open_control", "open_host_file", "path_for"]

log = logging.getLogger("hubbub")

BACKLOG = 128
# The size of `sun_path` without the NUL; Linux allows 4 bytes more.
MAX_PATH = 103


@dataclass(frozen=True, slots=True)
class Control:
    """A control socket that this process listens on; its user takes over the two descriptors."""

    path: str
    listener: int
    lease: int
    is_temporary: bool
    """Whether the port was any free one, so that no later server needs this one's lease file."""

    @property
    def lease_path(self) -> str:
        """The lease file's path."""
        return _lease_of(self.path)

    def remove(self) -> None:
        """Remove the socket's file; call this while holding the lease, or the file may be another server's."""
        for path in (self.path, self.lease_path, _host_file_of(self.path))[: 3 if self.is_temporary else 1]:
            with contextlib.suppress(OSError):
                os.unlink(path)


def path_for(port: int) -> str:
    """Return the path of the control socket of a server of this user with `control="auto"`.

    Raises:
        ConnectionError: The socket's directory belongs to another user, so a server there cannot be trusted; or there
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
    """Open the control socket that the setting `control` asks for; return `None` if there is none.

    With "auto", if the socket cannot be opened (another live server listens on the same port of another address, the
    directory belongs to another user, there is no port), the server does without it, and a warning is logged.

    Args:
        setting: The setting `control`.
        port: The port that the server listens on; on a Unix socket, the setting `port`.
        is_temporary: Whether that port is any free one.

    Raises:
        CannotServe: The socket that `setting` names cannot be opened; the message says where, and why.
    """
    if setting is None:
        return None
    try:
        return _open(setting, port, is_temporary)
    except CannotServe as refusal:
        # "auto" does not require a socket, and another user must not be able to stop us by creating the directory.
        if setting != "auto":
            raise
        log.warning("no control socket: %s; set `control` to another path", refusal.strerror)
        return None


def _open(setting: str, port: int, is_temporary: bool) -> Control:
    # If there is no directory for temporary files, there is no path for the error to name.
    path: str | None = None
    try:
        if setting == "auto" and not port:
            raise CannotServe(errno.EINVAL, "the server listens on a Unix socket, and has no port to be found by")
        path = _path_in(_own_directory(), port) if setting == "auto" else os.path.abspath(setting)
        if len(os.fsencode(path)) > MAX_PATH:
            raise CannotServe(errno.ENAMETOOLONG, f"a socket's path may have at most {MAX_PATH} bytes: {path}")
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
        raise CannotServe(error.errno, f"cannot create the control socket: {reason}") from error


def open_host_file(control: Control) -> int:
    """Open the file that keeps the number of this host among others over a restart; return its descriptor.

    It lies next to the lease file, whose lock also covers this file.

    Raises:
        OSError: The file cannot be opened.
    """
    return os.open(_host_file_of(control.path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _directory() -> str:
    return os.path.join(tempfile.gettempdir(), f"hubbub-{os.geteuid()}")


def _path_in(directory: str, port: int) -> str:
    return os.path.join(directory, f"{port}.sock")


def _refusal(directory: str, found: os.stat_result) -> str | None:
    """Return why a directory cannot be trusted, or `None`; anyone may have created one of that name before us."""
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory} is not a directory"
    if found.st_uid != os.geteuid():
        return f"{directory} belongs to another user"
    return None


def _own_directory() -> str:
    """Create the directory if needed, and make sure that it is ours and closed to other users."""
    directory = _directory()
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if refusal := _refusal(directory, found):
        raise CannotServe(errno.EPERM, f"cannot create the control socket: {refusal}")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(directory, 0o700)
    return directory


def _lease_of(path: str) -> str:
    return path + ".lease"


def _host_file_of(path: str) -> str:
    return path + ".host"


def _take_lease(path: str) -> int | None:
    """Lock the lease file and return its descriptor; return `None` if another process holds the lock."""
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
            raise CannotServe(errno.EEXIST, f"cannot create the control socket: {path} is not a socket")


def _listen(path: str) -> int:
    """Listen at `path`, replacing a socket left by a killed server, and return the listener's descriptor."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        # Nobody can connect before it listens, so other users' processes can never connect.
        Path(path).chmod(0o600)
        listener.listen(BACKLOG)
        return listener.detach()
