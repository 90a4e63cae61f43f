"""The names and addresses under which a server is reached, worked out from the `host` setting."""

import contextlib
import ipaddress
import re
import socket
import threading
from collections.abc import Iterator, Sequence

__all__ = ["loopback_names", "urls_to_open"]

# The names that a browser on this machine may use for it. Browsers resolve names below localhost themselves (RFC 6761
# §6.3).
_LOOPBACK_NAMES = ("localhost", "*.localhost", "127.0.0.1", "[::1]")

# Addresses of the internet and of private networks. The routes of this machine determine which of its own addresses it
# would use to reach each of them.
_ELSEWHERE = {
    socket.AF_INET: ("192.0.2.1", "10.0.0.1", "172.16.0.1", "192.168.0.1"),
    socket.AF_INET6: ("2001:db8::1", "fd00::1"),
}

# Seconds that a name may take to be resolved. One that cannot be resolved at all is reported by the listen step.
_PATIENCE = 2.0

# A name in the form of a Host header. Such a name, or a number that stands for an address, can be listed.
_HOST_NAME = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*\.?")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def loopback_names(hosts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the `allowed_hosts` of a server that only this machine can reach; `None` if others can reach it.

    This depends on the addresses that the hosts resolve to. A name that takes too long counts as loopback: clients can
    then reach the server by that name, and by no foreign one.
    """
    listed: list[str] = []
    for host in hosts:
        addresses: list[_Address] | None = None
        if not _is_localhost(host):
            addresses = _resolve_soon(host)
            if addresses is not None and not (addresses and all(map(_is_loopback, addresses))):
                return None
        listed += _as_in_host_header(host, addresses or [])
    return tuple(dict.fromkeys([*_LOOPBACK_NAMES, *listed]))


def _is_localhost(host: str) -> bool:
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def _is_loopback(address: _Address) -> bool:
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).is_loopback


def _as_in_host_header(host: str, addresses: Sequence[_Address]) -> Iterator[str]:
    """Yield a host as clients may write it: as it was given, and its addresses."""
    with contextlib.suppress(UnicodeError):
        name = host.encode("idna").decode()
        if _HOST_NAME.fullmatch(name):
            yield name
    for address in addresses:
        yield f"[{address}]" if address.version == 6 else str(address)


def _resolve_soon(host: str) -> list[_Address] | None:
    """Return the addresses of a host, none if it cannot be resolved; `None` if that takes too long."""
    found: list[list[_Address]] = []
    # A daemon, so that a program that ends does not wait for it.
    resolving = threading.Thread(target=lambda: found.append(_resolve(host)), name="hubbub-resolve", daemon=True)
    resolving.start()
    resolving.join(_PATIENCE)
    return found[0] if found else None


def _resolve(host: str) -> list[_Address]:
    """Return the addresses that a server listens on for a host, each once; none if it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        return []
    # An IPv6 address may have the name of its interface at its end.
    texts = dict.fromkeys(str(address[0]).partition("%")[0] for _, _, _, _, address in found)
    return [ipaddress.ip_address(text) for text in texts]


def urls_to_open(hosts: Sequence[str], port: int, *, tls: bool) -> list[str]:
    """Return the URLs of a server's page, for people; one for this machine comes first, if the server listens there.

    A wildcard (`0.0.0.0`, `::`, or another spelling such as `0`) cannot be opened, so localhost and the machine's own
    addresses replace it. No packet is sent to find them.
    """
    scheme = "https" if tls else "http"
    names = dict.fromkeys(name for host in hosts for name in _names_of(host))
    return [f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/" for name in names]


def _names_of(host: str) -> Iterator[str]:
    addresses = _resolve(host)
    wildcards = [address for address in addresses if address.is_unspecified]
    if not wildcards or len(wildcards) < len(addresses):
        yield host
    for address in wildcards:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        yield "localhost" if _resolves("localhost", family) else "127.0.0.1" if address.version == 4 else "::1"
        yield from _own_addresses(family)


def _resolves(name: str, family: socket.AddressFamily) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None, family))
    except socket.gaierror:
        return False


def _own_addresses(family: socket.AddressFamily) -> Iterator[str]:
    """Yield the addresses under which other machines may reach this one."""
    for elsewhere in _ELSEWHERE[family]:
        # Connecting a UDP socket only selects the route. It fails if there is no route.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            own = ipaddress.ip_address(probe.getsockname()[0])
            if not own.is_loopback and not own.is_link_local:
                yield str(own)
