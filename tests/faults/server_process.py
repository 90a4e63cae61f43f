"""A server in a process of its own: memory, descriptors and CPU time can be judged from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raw_peer import PATIENCE, Peer

PROGRAM = Path(__file__).with_name("fault_server.py")
MIB = 1 << 20


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until something has happened outside this process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"this did not happen: {what}"
        time.sleep(0.01)


def memory_of(pid: int) -> int:
    """Return the resident memory of a process in bytes, without mapped files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in the process's status")


class ServerProcess:
    """`fault_server.py`, started with `options`, and a control connection to it."""

    def __init__(self, log: Path, **options: Any) -> None:
        """Start it, and wait until it accepts connections; `log` is where its standard error goes."""
        # Whether the test makes the server log tracebacks.
        self.raises = False
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(options)], stdout=subprocess.PIPE, stderr=errors
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log()
        self.port = int(line)
        self._control = Peer.open(self.port, "/control")

    def ask(self, command: str, *arguments: object) -> Any:
        """Make the server do something, and return the result, or an exception's name."""
        self._control.send_text(json.dumps([command, *arguments]))
        return self._control.read_json()

    def peer(self, path: str = "/echo", **how: Any) -> Peer:
        """Open a WebSocket."""
        return Peer.open(self.port, path, **how)

    def memory(self) -> int:
        """The resident memory in bytes, without mapped files."""
        return memory_of(self._process.pid)

    def descriptors(self) -> int:
        """How many descriptors are open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def cpu_seconds(self) -> float:
        """CPU time used until now."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """The text that it wrote to standard error."""
        return self._log.read_text()

    def stop(self) -> None:
        """Stop it; it must still be running, and end properly.

        Its log may contain tracebacks only if the test made handlers raise.
        """
        assert self._process.poll() is None, self.log()
        # It would wait for the control connection's answer to its Close.
        self._control.socket.close()
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(PATIENCE)
        assert status == 0, self.log()
        assert "panicked" not in self.log()
        assert self.raises == ("Traceback" in self.log()), self.log()

    def kill(self) -> None:
        """Kill it, and release its resources."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._control.socket.close()


class Bystander:
    """A well-behaved connection that constantly receives numbers, and must not miss any of them."""

    def __init__(self, server: ServerProcess) -> None:
        """Connect to `server`."""
        self._peer = server.peer("/bystander")

    def check(self) -> None:
        """Assert that every number since the last check has arrived, in order, and that an answer comes."""
        self._peer.send_text("how many were that?")
        expected = 0
        while not (text := self._peer.read_text()).startswith("that were"):
            assert int(text) == expected
            expected += 1
        assert text == f"that were {expected}"

    def __enter__(self) -> Self:
        self.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._peer:
            if error is None:
                self.check()


@contextmanager
def serving(log: Path, **options: Any) -> Iterator[ServerProcess]:
    """Run a server that must not have more descriptors at the end than at first, and must stop properly."""
    server = ServerProcess(log, **options)
    try:
        idle = server.descriptors()
        yield server
        wait_until(lambda: server.descriptors() <= idle, "descriptors return")
        server.stop()
    finally:
        server.kill()


StartServer = Callable[..., ServerProcess]
"""A fixture that starts one, with options, and ends it after the test."""
