"""The names and addresses under which a server is reached, worked out from the `host` setting."""

import ipaddress
from collections.abc import Sequence

__all__ = ["loopback_names"]

# What a browser on this machine may call it. Browsers resolve the names below localhost by themselves (RFC 6761 §6.3).
_LOOPBACK_NAMES = ("localhost", "*.localhost", "127.0.0.1", "[::1]")


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
