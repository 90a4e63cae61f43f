"""Telling systemd how the server is doing: the protocol of sd_notify(3), for a unit of `Type=notify`."""

import os
import socket
import time

__all__ = ["notify", "reloading"]


def notify(*assignments: str) -> None:
    """Send `READY=1` and the like to where `NOTIFY_SOCKET` says; without it, nothing is done.

    Nobody may be listening there: that is no reason for a server to fail.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as notifier:
            # In Linux's abstract namespace, names begin with NUL.
            notifier.connect("\0" + path[1:] if path.startswith("@") else path)
            notifier.send("\n".join(assignments).encode())
    except OSError:
        pass


def reloading() -> None:
    """Say that a reload has begun; `READY=1` is to follow. systemd wants to know when, to tell reloads apart."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
