"""Listening sockets, the certificate that they speak TLS with, and how many files may be open."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket

from . import _core
from .errors import CannotServe, SettingsError

__all__ = ["check_certificate", "describe", "listen", "raise_file_limit"]

log = logging.getLogger("hubbub")

MOST_UNSENT_IN_KERNEL = 128 * 1024


async def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets for all addresses of `host`, on the same port.

    Raises:
        CannotServe: None of them can be had, or one is in use; the message says which, and why.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotServe(error.errno, f"cannot listen on {host}: {error.strerror}") from error
    except UnicodeError as error:
        raise CannotServe(errno.EINVAL, f"cannot listen on {host}: this is no name of a host") from error
    listeners: list[socket.socket] = []
    refusal: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            refusal = error  # A family that this machine does not have.
            continue
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it. Without, megabytes that a slow reader has not taken yet wait in the kernel, where
            # they count against no limit of ours, and a ping behind them comes too late.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT_IN_KERNEL)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = listeners[0].getsockname()[1] if listeners else port
            listener.bind((address[0], taken, *address[2:]))
            listener.listen(backlog)
            listeners.append(listener)
        except OSError as error:
            listener.close()
            refusal = error
            if error.errno != errno.EADDRNOTAVAIL:
                break
    else:
        if listeners:
            return listeners
    for listener in listeners:
        listener.close()
    assert refusal is not None
    raise CannotServe(refusal.errno, f"cannot listen on {host} port {port}: {os.strerror(refusal.errno or 0)}")


def check_certificate(certfile: str | None, keyfile: str | None) -> None:
    """Read the certificate and its key, if there are any, as the engine will.

    Raises:
        SettingsError: They cannot be used; the message names the setting and the file, and says why.
    """
    if certfile is None or keyfile is None:
        return
    try:
        _core.check_certificate(certfile, keyfile)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def describe(host: str, port: int, certfile: str | None) -> str:
    """Return for the log where a server listens, and whether it speaks TLS."""
    return f"{host} port {port}" + (" (TLS)" if certfile else "")


def raise_file_limit(connections: int | None = None) -> None:
    """Raise the soft limit of open files to the hard one, and warn if that is too low for so many `connections`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems (macOS) allow less than the hard limit says.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connections is not None and soft != resource.RLIM_INFINITY and soft < connections:
        log.warning("only %d files may be open: too few for max_connections=%d", soft, connections)
