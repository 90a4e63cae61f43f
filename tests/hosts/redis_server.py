"""Real Redis servers for tests, which start, disturb and end them; and a small client."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from raw_peer import PATIENCE
from server_process import wait_until

Reply = str | int | None | list[Any]

# Below the ports that the kernel chooses for clients, so that a restarted Redis gets its port back.
PORTS = range(20_000, 32_000)


class RedisError(Exception):
    """Redis has answered with an error."""


class RedisClient:
    """One connection to Redis."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        """Connect to a Unix socket, or to a host and port."""
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._input = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._input.close()
        self._socket.close()

    def send(self, *parts: str | bytes | int) -> None:
        """Send a command, and do not wait for its reply."""
        encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        self._socket.sendall(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in encoded)
        )

    def ask(self, *parts: str | bytes | int) -> Reply:
        """Send a command, and return its reply.

        Raises:
            RedisError: The reply is an error.
        """
        self.send(*parts)
        return self.reply()

    def reply(self) -> Reply:
        """Read the reply to a command."""
        line = self._input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis has closed the connection")
        kind, text = line[:1], line[1:-2].decode()
        match kind:
            case b"+":
                return text
            case b":":
                return int(text)
            case b"$":
                return None if text == "-1" else self._input.read(int(text) + 2)[:-2].decode(errors="replace")
            case b"*":
                return None if text == "-1" else [self.reply() for _ in range(int(text))]
        raise RedisError(text)


class RedisServer:
    """A `redis-server`, which keeps nothing on disk unless asked to."""

    def __init__(self, program: str, directory: Path, sentinel: Path | None = None, /, **options: str | int) -> None:
        """Start it.

        Args:
            program: The path of `redis-server`.
            directory: For its files.
            sentinel: The configuration of a Sentinel, if it is to be one.
            options: Of its configuration, with `_` for `-`.
        """
        self._program = program
        self._directory = directory
        self._socket = str(directory / "redis.sock")
        self._options = {"dir": str(directory), **options}
        if not sentinel:
            self._options = {"save": "", "appendonly": "no", **self._options}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._first = [str(sentinel)] if sentinel else []
        self._last = ["--sentinel"] if sentinel else []
        while True:
            self.port = random.choice(PORTS)
            if self._try_to_start():
                return

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process
        return self._process.pid

    def url(self, *, user: str = "", database: int = 0) -> str:
        """Return its address for the setting `broker`; `user` is a user and password with a colon between them."""
        return f"redis://{user and user + '@'}127.0.0.1:{self.port}/{database}"

    @property
    def socket_url(self) -> str:
        """Its address as a Unix socket."""
        return f"redis+unix://{self._socket}"

    def start(self) -> None:
        """Start it again, at the same port."""
        # Connections of the process before may hold the port for a moment.
        wait_until(self._try_to_start, f"redis-server starts at port {self.port}")

    def _try_to_start(self) -> bool:
        with suppress(FileNotFoundError):
            os.unlink(self._socket)
        options = {**self._options, "port": self.port, "unixsocket": self._socket}
        arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *self._first, *arguments, *self._last], stdout=log, stderr=log
            )
        while self._process.poll() is None:
            with suppress(OSError), self.client() as client:
                if is_ready(client):
                    return True
            time.sleep(0.01)
        return False

    def client(self) -> RedisClient:
        """Connect to it, through its Unix socket."""
        return RedisClient(self._socket)

    def ask(self, *parts: str | bytes | int) -> Reply:
        """Send a command, and return its reply."""
        with self.client() as client:
            return client.ask(*parts)

    def configure(self, name: str, value: str | int) -> None:
        """Change its configuration while it runs."""
        assert self.ask("CONFIG", "SET", name, value) == "OK"

    def keys(self, pattern: str) -> list[str]:
        """Return the keys that match."""
        found = self.ask("KEYS", pattern)
        assert isinstance(found, list)
        return found

    def clients(self) -> list[dict[str, str]]:
        """Return what it knows of its clients: of each, names and values as in CLIENT LIST."""
        listed = self.ask("CLIENT", "LIST")
        assert isinstance(listed, str)
        return [dict(word.partition("=")[::2] for word in line.split()) for line in listed.splitlines()]

    def counter(self, section: str, name: str) -> int:
        """Return a number of INFO."""
        text = self.ask("INFO", section)
        assert isinstance(text, str)
        return next(int(line.split(":")[1]) for line in text.splitlines() if line.startswith(name + ":"))

    def kill(self) -> None:
        """Kill it."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as systemd does."""
        assert self._process
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0, self.log()

    def log(self) -> str:
        """Return what it has logged."""
        return (self._directory / "redis.log").read_text()

    def save(self) -> Path:
        """Save its data into a file, and return the path of a copy."""
        assert self.ask("SAVE") == "OK"
        copy = self._directory / "old.rdb"
        shutil.copy(self._directory / "dump.rdb", copy)
        return copy

    def restore(self, saved: Path) -> None:
        """Start it, when it does not run, with the data of a file."""
        shutil.copy(saved, self._directory / "dump.rdb")
        self.start()
        (self._directory / "dump.rdb").unlink()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its process with SIGSTOP, for a block."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def is_ready(client: RedisClient) -> bool:
    """Return whether Redis answers as it will do from now on."""
    try:
        return client.ask("PING") == "PONG"
    except RedisError as error:
        # Not while it loads its data.
        return str(error).startswith("NOAUTH")


@contextmanager
def redis_running(program: str, directory: Path, **options: str | int) -> Iterator[RedisServer]:
    """Run a Redis for a block."""
    redis = RedisServer(program, directory, **options)
    try:
        yield redis
    finally:
        redis.kill()


class StartRedis(Protocol):
    """The fixture `start_redis`: starts one with options, which ends with the test if not before."""

    def __call__(self, **options: str | int) -> RedisServer: ...
