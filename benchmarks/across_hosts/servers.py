"""The processes of `hosts.py`: a Redis of its own, and servers that are one through it."""

import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

from processes import START_SECONDS, Failed, Process, cpu_seconds, family
from servers import PEERS


class Redis(Process):
    """A `redis-server` that keeps nothing on disk."""

    def __init__(self, directory: Path) -> None:
        """Start it at a free port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        super().__init__("redis-server", ["redis-server", *place, "--save", "", "--appendonly", "no"], None)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                if self._ask("PING") == b"+PONG\r\n":
                    return
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                raise Failed("redis-server does not start")
            time.sleep(0.02)

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of its process."""
        return cpu_seconds(self.process.pid)

    def flush(self) -> None:
        """Forget everything."""
        self._ask("FLUSHALL")

    def commands(self) -> int:
        """Return how many commands it has carried out."""
        return self._number("stats", "total_commands_processed")

    def memory(self) -> int:
        """Return the bytes that it uses."""
        return self._number("memory", "used_memory")

    def _number(self, section: str, name: str) -> int:
        lines = self._ask("INFO", section).decode().splitlines()
        return next(int(line.split(":")[1]) for line in lines if line.startswith(f"{name}:"))

    def _ask(self, *parts: str) -> bytes:
        command = f"*{len(parts)}\r\n" + "".join(f"${len(part)}\r\n{part}\r\n" for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as connection:
            connection.sendall(command.encode())
            with connection.makefile("rb") as answer:
                line = answer.readline()
                return answer.read(int(line[1:])) if line.startswith(b"$") else line


@dataclass(frozen=True)
class Usage:
    """CPU time in seconds.

    Attributes:
        master: Of the process that was started.
        hub: Of the master's thread that passes messages between its workers and the other hosts.
        link: Of the master's thread that talks to Redis.
        workers: Of the processes that the master has started.
    """

    master: float = 0
    hub: float = 0
    link: float = 0
    workers: float = 0

    @property
    def whole(self) -> float:
        """The CPU time of the whole server."""
        return self.master + self.workers

    def __add__(self, other: Self) -> "Usage":
        """Add each."""
        return Usage(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Self) -> "Usage":
        """Subtract each."""
        return Usage(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Usage":
        """Multiply each."""
        return Usage(*(each * factor for each in astuple(self)))


class Host(Process):
    """One of several servers that are one."""

    def __init__(self, name: str, program: str, *options: str) -> None:
        """Start it."""
        super().__init__(name, [sys.executable, str(PEERS / program), *options], None)
        self.port = 0
        self.control: Path | None = None

    def wait_until_it_listens(self) -> None:
        """Wait until it says its port."""
        self.port = int(self.read_line(START_SECONDS))

    @property
    def usage(self) -> Usage:
        """The CPU time so far."""
        pid = self.process.pid
        threads = {"hubbub-hub": 0.0, "hubbub-redis": 0.0}
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if (name := (thread / "comm").read_text().strip()) in threads:
                threads[name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
        workers = sum(cpu_seconds(worker) for worker in family(pid)[1:])
        return Usage(cpu_seconds(pid), threads["hubbub-hub"], threads["hubbub-redis"], workers)


@contextmanager
def hubbubs(redis: Redis, directory: Path, count: int, workers: int = 1) -> Iterator[list[Host]]:
    """Run Hubbub as so many hosts, and wait until they reach one another."""
    with ExitStack() as stack:
        hosts = []
        for number in range(count):
            control = directory / f"control{number}"
            options = ("--broker", redis.url, "--workers", str(workers), "--control", str(control))
            host = stack.enter_context(Host("hubbub", "hubbub_hosts_server.py", *options))
            host.control = control
            hosts.append(host)
        stack.callback(_terminate, hosts)
        for host in hosts:
            host.wait_until_it_listens()
        _wait_until_healthy(hosts)
        yield hosts


def _terminate(hosts: Sequence[Host]) -> None:
    """Have all of them end at the same time."""
    for host in hosts:
        host.process.terminate()


def _wait_until_healthy(hosts: Sequence[Host]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for host in hosts:
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{host.port}/health") as answer:
                if answer.read().strip() == b"ok":
                    break
            if time.monotonic() > deadline:
                raise Failed(f"a host does not reach Redis.\n{host.said()}")
            time.sleep(0.05)


@contextmanager
def peers(redis: Redis, name: str, program: str, *options: str) -> Iterator[list[Host]]:
    """Run a peer as two hosts."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(name, program, "--broker", redis.url, *options)) for _ in range(2)]
        stack.callback(_terminate, hosts)
        for host in hosts:
            host.wait_until_it_listens()
        yield hosts


def usage(hosts: Sequence[Host]) -> Usage:
    """Return the CPU time of several hosts."""
    return sum((host.usage for host in hosts), Usage())
