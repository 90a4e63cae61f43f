"""Report the server's state to systemd: the protocol of sd_notify(3), for a unit of `Type=notify`."""

import os
import socket
import time

__all__ = ["notify", "reloading"]


def notify(*assignments: str) -> None:
    """Send `READY=1` and the like to the socket named by `NOTIFY_SOCKET`; do nothing if it is not set.

    If nothing is listening there, the error is ignored: the server must not fail for that.
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
    """Report that a reload has begun; `READY=1` must follow. The timestamp lets systemd tell reloads apart."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
