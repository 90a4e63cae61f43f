"""The names and addresses under which a server is reached, worked out from the `host` setting."""

import contextlib
import ipaddress
import socket
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


def loopback_names(hosts: Sequence[str]) -> tuple[str, ...] | None:
    """Return the `allowed_hosts` of a server that only this machine can reach; `None` if others can reach it."""
    if not all(_is_loopback(host) for host in hosts):
        return None
    listed = (f"[{host}]" if ":" in host else host for host in hosts)
    return tuple(dict.fromkeys([*_LOOPBACK_NAMES, *listed]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")


def urls_to_open(hosts: Sequence[str], port: int, *, tls: bool) -> list[str]:
    """Return the URLs of a server's page, for people; one for this machine comes first, if the server listens there.

    A wildcard (`0.0.0.0`, `::`) cannot be opened, so localhost and the machine's own addresses replace it. No packet is
    sent to find them.
    """
    scheme = "https" if tls else "http"
    names = dict.fromkeys(name for host in hosts for name in _names_of(host))
    return [f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/" for name in names]


def _names_of(host: str) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        yield host
        return
    if not address.is_unspecified:
        yield host
        return
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
