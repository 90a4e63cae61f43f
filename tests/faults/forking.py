"""A child process that outlives the process that has forked it."""

import os
import signal


def fork_away() -> int:
    """Fork a child that nobody waits for, with copies of all sockets; it ends after a minute at most."""
    if pid := os.fork():
        return pid
    signal.alarm(60)
    while True:
        signal.pause()
