"""Who asks, and by which scheme, where proxies stand between a client and the server."""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = ["MAX_PROXIES", "forwarded"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Reading an address takes its time, which clients are not to have as much of as fits into a head.
MAX_PROXIES = 32
# An IPv6 address of the longest kind, with the longest name of an interface.
_LONGEST_ADDRESS = 45 + 1 + 15

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def forwarded(
    headers: Iterable[tuple[str, str]],
    client: tuple[str, int],
    scheme: str,
    trusted: tuple[str, ...],
) -> tuple[tuple[str, int], str]:
    """Return who the client is and which scheme it used, as far as trusted proxies tell.

    Each proxy appends the address that it was called from to X-Forwarded-For, so that list is read from its
    right end, and what stands left of the first address that is no trusted proxy is hearsay. Nobody has more than
    `MAX_PROXIES` of them in a row: such a list is not believed.

    Args:
        headers: The request's pairs, names in any case.
        client: Address and port of the peer of the socket.
        scheme: `http` or `https`, as the socket has it.
        trusted: `Settings.trusted_proxies`.

    Returns:
        `client` and `scheme` themselves unless the peer is trusted; each of them too if its header is missing
            or malformed. A forwarded client has the port 0 unless the header tells it.
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

    peer = _judged(client[0], trusted)
    if not peer or not peer.is_trusted:
        return client, scheme
    if schemes:
        # The last one is what the trusted peer wrote itself.
        scheme = _SCHEMES.get(schemes[-1].strip().lower(), scheme)
    return _client_of(addresses, trusted) or client, scheme


def _client_of(addresses: list[str], trusted: tuple[str, ...]) -> tuple[str, int] | None:
    """Return the rightmost address that is no trusted proxy, or the leftmost.

    `None` for a malformed one, and for more proxies than there can be.
    """
    client = None
    for entry in reversed(addresses[-MAX_PROXIES:]):
        host, port = _split_port(entry.strip())
        judged = _judged(host, trusted)
        # A zone (fe80::1%eth0) means nothing on another host, and may be any text.
        if judged is None or "%" in host:
            return None
        client = judged.address, port
        if not judged.is_trusted:
            return client
    return client if len(addresses) <= MAX_PROXIES else None


# As some proxies write it: "192.0.2.1:4711" and "[2001:db8::1]:4711".
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
    """Return the address in its shortest form, and whether it is a trusted proxy's; `None` if it is none."""
    return _judged_before(text, trusted) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(maxsize=1024)  # Proxies are few, and many clients come again and again.
def _judged_before(text: str, trusted: tuple[str, ...]) -> _Judged | None:
    address = _address(text)
    if address is None:
        return None
    return _Judged(str(address), any(address in network for network in _networks(trusted)))


@lru_cache(maxsize=8)  # A process has one such tuple, from its settings.
def _networks(trusted: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in trusted)
