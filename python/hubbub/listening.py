"""Listening sockets, and the limit of open files."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import handed_over
from .errors import CannotServe
from .logs import shown
from .unix_sockets import SocketFile, listen_at

__all__ = ["Listeners", "listen", "open_listeners", "raise_file_limit"]

log = logging.getLogger("hubbub")

MAX_UNSENT_IN_KERNEL = 128 * 1024
# How many free ports to try until one is free at all addresses.
ATTEMPTS = 20

# The family, and the argument for `bind`.
_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


@dataclass(eq=False, slots=True)
class Listeners:
    """The listening sockets of a server."""

    sockets: list[socket.socket]
    """They may be handed over with `detach`."""
    port: int
    """Their TCP port; if there is none, the setting `port`."""
    where: str
    """Where they listen, for people: "127.0.0.1 and ::1 port 9501"."""
    title: str
    """The same in short, for process titles: "port 9501"."""
    are_shared: bool = False
    """Whether another process has handed them over and may go on using them after this one."""
    file: SocketFile | None = None
    """The file of a Unix socket that this process has created."""

    def remove_file(self) -> None:
        """Remove the file of the Unix socket, if there is one; call this before the sockets are closed."""
        if self.file:
            self.file.remove()
            self.file = None

    def close(self) -> None:
        """Close what was not handed over."""
        self.remove_file()
        for listener in self.sockets:
            with contextlib.suppress(OSError):
                listener.close()


async def open_listeners(
    hosts: Sequence[str], port: int, backlog: int, *, uds: str | None, fd: int | None
) -> Listeners:
    """Open what the settings of these names ask for.

    Sockets that systemd has handed over to this process replace `hosts` and `port`, unless `uds` or `fd` is given.

    Raises:
        CannotServe: A socket cannot be opened, or is not a listening socket; the message says which, and why.
    """
    if uds is not None:
        listener, file = listen_at(uds, backlog)
        return Listeners([listener], port, shown(uds), shown(uds), file=file)
    inherited = [handed_over.from_descriptor(fd)] if fd is not None else handed_over.from_systemd()
    if inherited:
        return _describe_inherited(inherited, port)
    listeners = await listen(hosts, port, backlog)
    port = listeners[0].getsockname()[1]
    return Listeners(listeners, port, f"{' and '.join(hosts)} port {port}", f"port {port}")


def _describe_inherited(listeners: list[socket.socket], port: int) -> Listeners:
    where = []
    ports = []
    for listener in listeners:
        name = listener.getsockname()
        if listener.family == socket.AF_UNIX:
            where.append(_shown_unix(os.fsdecode(name)))
        else:
            where.append(f"{name[0]} port {name[1]}")
            ports.append(name[1])
            _limit_unsent(listener)
    title = f"port {ports[0]}" if ports else where[0]
    port = ports[0] if ports else port
    return Listeners(listeners, port, " and ".join(where) + " (handed over)", title, are_shared=True)


def _shown_unix(name: str) -> str:
    """Return a Unix socket's name for people; one in Linux's abstract namespace begins with `@`, as `ss` shows it."""
    if name.startswith("\0"):
        return "@" + shown(name[1:])
    return shown(name) or "a Unix socket"


async def listen(hosts: Sequence[str], port: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets for all addresses of all `hosts`, on the same port.

    A repeated address, or one covered by `0.0.0.0` or `::` in the list, gets no socket of its own. IPv6 sockets accept
    IPv6 connections only.

    Raises:
        CannotServe: A host has no address on this machine, or an address is in use; the message says which, and why.
    """
    addresses = {host: await _resolve(host, port) for host in hosts}
    attempts = ATTEMPTS if port == 0 else 1
    while True:
        attempts -= 1
        try:
            return _listen_on(addresses, port, backlog)
        except CannotServe as error:
            # The free port that the first socket got may be in use at another address.
            if error.errno != errno.EADDRINUSE or not attempts:
                raise


async def _resolve(host: str, port: int) -> list[_Address]:
    """Return the addresses of a host, each once."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise CannotServe(error.errno, f"cannot listen on {host}: {error.strerror}") from error
    except UnicodeError as error:
        raise CannotServe(errno.EINVAL, f"cannot listen on {host}: not a valid host name") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_on(addresses: Mapping[str, Sequence[_Address]], port: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets for the addresses of all hosts, or raise, as `listen` does, and leave none open."""
    hosts: dict[_Address, str] = {}
    for host, found in addresses.items():
        for each in found:
            hosts.setdefault(each, host)
    covered = {family for family, address in hosts if _is_wildcard(address)}
    listeners: list[socket.socket] = []
    missing: dict[_Address, CannotServe] = {}
    with contextlib.ExitStack() as opened:
        for (family, address), host in hosts.items():
            if family in covered and not _is_wildcard(address):
                continue
            try:
                listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                taken = listeners[0].getsockname()[1] if listeners else port
                _bind(listener, (address[0], taken, *address[2:]), backlog)
                listeners.append(listener)
            except OSError as error:
                where = host if host == address[0] else f"{host} ({address[0]})"
                problem = os.strerror(error.errno or 0)
                refusal = CannotServe(error.errno, f"cannot listen on {where} port {port}: {problem}")
                # A name may have addresses of a family that this machine does not have.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise refusal from error
                missing[family, address] = refusal
        for found in addresses.values():
            if all(each in missing for each in found):
                raise missing[found[0]]
        opened.pop_all()
    return listeners


def _is_wildcard(address: tuple[Any, ...]) -> bool:
    return address[0] in ("0.0.0.0", "::")


def _bind(listener: socket.socket, address: tuple[Any, ...], backlog: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _limit_unsent(listener)
    if listener.family == socket.AF_INET6:
        # Otherwise the system decides whether `::` also accepts IPv4 connections.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    listener.listen(backlog)


def _limit_unsent(listener: socket.socket) -> None:
    # Connections inherit this. Without it, megabytes that a slow client has not read yet wait in the kernel, where
    # they count against none of our limits, and a ping queued after them arrives too late.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_IN_KERNEL)


def raise_file_limit(connections: int | None = None) -> None:
    """Raise the soft limit of open files to the hard one, and warn if that is too low for `connections` connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems (macOS) allow less than the hard limit says.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connections is not None and soft != resource.RLIM_INFINITY and soft < connections:
        log.warning("the limit of %d open files is too low for max_connections=%d", soft, connections)
