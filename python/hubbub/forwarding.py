"""Find a client's address and scheme if proxies stand between it and the server."""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = ["MAX_PROXIES", "ProxyItself", "forwarded"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Parsing an address takes time, so clients must not make us parse as many as fit into a request head.
MAX_PROXIES = 32
# The longest form of an IPv6 address, with the longest interface name.
_LONGEST_ADDRESS = 45 + 1 + 15

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class ProxyItself(tuple[str, int]):
    """The address and port of a proxy whose PROXY header names no client.

    Such a proxy passes on TCP as it comes, so the headers of its requests may have been written by anybody.
    """

    __slots__ = ()


def forwarded(
    headers: Iterable[tuple[str, str]],
    client: tuple[str, int],
    scheme: str,
    trusted: tuple[str, ...],
) -> tuple[tuple[str, int], str]:
    """Return the client's address and scheme, as reported by trusted proxies.

    Each proxy appends the address of its own peer to X-Forwarded-For. The list is therefore read from its right end,
    and everything to the left of the first address that is not a trusted proxy is ignored, as anyone can forge it. A
    list with more than `MAX_PROXIES` trusted proxies in a row is not believed.

    Args:
        headers: The request's pairs, names in any case.
        client: The address and port of the socket's peer, or those that a PROXY header names; `ProxyItself` if the
            header names none.
        scheme: `http` or `https`, according to the socket.
        trusted: `Settings.trusted_proxies`.

    Returns:
        `client` and `scheme` unchanged if `client` is not trusted, or a `ProxyItself`; each of them also if its header
            is missing or malformed. A forwarded client has port 0 unless the header contains the port.
    """
    addresses, schemes = [], []
    for name, value in headers:
        name = name.lower()
        if name == "x-forwarded-for":
            addresses += value.split(",")
        elif name == "x-forwarded-proto":
            schemes += value.split(",")
    if not addresses and not schemes:
        return client, scheme

    if isinstance(client, ProxyItself):
        return client, scheme
    peer = _judged(client[0], trusted)
    if not peer or not peer.is_trusted:
        return client, scheme
    if schemes:
        # The trusted peer itself wrote the last one.
        scheme = _SCHEMES.get(schemes[-1].strip().lower(), scheme)
    return _client_of(addresses, trusted) or client, scheme


def _client_of(addresses: list[str], trusted: tuple[str, ...]) -> tuple[str, int] | None:
    """Return the rightmost address that is not a trusted proxy; if all are trusted, the leftmost.

    Returns `None` if an address is malformed, or if there are more than `MAX_PROXIES` proxies.
    """
    client = None
    for entry in reversed(addresses[-MAX_PROXIES:]):
        host, port = _split_port(entry.strip())
        judged = _judged(host, trusted)
        # A zone (fe80::1%eth0) is meaningless on another host, and can be any text.
        if judged is None or "%" in host:
            return None
        client = judged.address, port
        if not judged.is_trusted:
            return client
    return client if len(addresses) <= MAX_PROXIES else None


# The form that some proxies use: "192.0.2.1:4711" and "[2001:db8::1]:4711".
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})")


def _split_port(entry: str) -> tuple[str, int]:
    match = _WITH_PORT.fullmatch(entry)
    if not match:
        return entry, 0
    port = int(match[2] or match[4] or 0)
    return match[1] or match[3] or "", port if port <= 65535 else 0


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A listener on `::` sees IPv4 clients as ::ffff:192.0.2.1.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


class _Judged(NamedTuple):
    address: str
    is_trusted: bool


def _judged(text: str, trusted: tuple[str, ...]) -> _Judged | None:
    """Return the address in its shortest form, and whether it is a trusted proxy's; `None` if it is not an address."""
    return _judged_before(text, trusted) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(maxsize=1024)  # There are few proxies, and many clients return often.
def _judged_before(text: str, trusted: tuple[str, ...]) -> _Judged | None:
    address = _address(text)
    if address is None:
        return None
    return _Judged(str(address), any(address in network for network in _networks(trusted)))


@lru_cache(maxsize=8)  # A process has one such tuple, from its settings.
def _networks(trusted: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in trusted)
