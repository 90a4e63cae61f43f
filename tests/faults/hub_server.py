"""A server of several workers, as the master's process and those of the workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from hub_client import HubClient, end
from raw_peer import PATIENCE
from server_process import memory_of, wait_until

from hubbub import Publisher

COMMAND = (str(Path(__file__).with_name("hub_program.py")),)


class HubServer:
    """`hub_program.py`, started with settings."""

    process_group: int | None = None
    """0: the master and all that it starts are a process group, which has the master's number."""
    environment: Mapping[str, str] = {}
    """Variables of its environment, beside those of this process."""

    def __init__(self, directory: Path, command: Sequence[str] = COMMAND, /, **settings: Any) -> None:
        """Start it with its control socket in `directory`, and wait until it accepts connections.

        Args:
            directory: For its files.
            command: The program to run, and its arguments after the settings.
            settings: Of the server.
        """
        self.connected: list[HubClient] = []
        """All clients that have ever received their ids."""
        self.control = directory / "control"
        self._log = directory / "log"
        options = {"workers": 3, "control": str(self.control), "ping_interval": None, **settings}
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, command[0], json.dumps(options), *command[1:]],
                stdout=subprocess.PIPE,
                stderr=errors,
                process_group=self.process_group,
                env={**os.environ, **self.environment},
            )
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self.log()
        self.port = int(line)

    async def connect(self, **how: Any) -> HubClient:
        """Connect to whichever worker."""
        client = await HubClient.connect(self.port, **how)
        self.connected.append(client)
        return client

    @asynccontextmanager
    async def client_of(self, worker_id: int, **how: Any) -> AsyncIterator[HubClient]:
        """Connect until a connection is that worker's, for a block."""
        clients = [await self.connect(**how)]
        try:
            while clients[-1].worker_id != worker_id:
                clients.append(await self.connect(**how))
            yield clients[-1]
        finally:
            await end(clients)

    @asynccontextmanager
    async def clients(self, **how: Any) -> AsyncIterator[list[HubClient]]:
        """Connect to each worker; a client's place is its worker's number."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.client_of(worker_id, **how)) for worker_id in range(3)]

    async def replaced(self, victim: HubClient) -> None:
        """Wait until another process has replaced a killed worker, and gets new connections."""
        while True:
            async with self.client_of(victim.worker_id) as client:
                if client.pid != victim.pid:
                    return

    @property
    def pid(self) -> int:
        """The master's."""
        return self._process.pid

    def publisher(self, **how: Any) -> Publisher:
        """Return a publisher to it."""
        return Publisher(self.control, **how)

    def memory(self) -> int:
        """Return the resident memory of the master in bytes, without mapped files."""
        return memory_of(self._process.pid)

    def descriptors(self) -> int:
        """Return the number of the master's descriptors."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def log(self) -> str:
        """Return what the processes have written to standard error."""
        return self._log.read_text()

    def logs(self, text: str) -> None:
        """Wait for a text in the log."""
        wait_until(lambda: text in self.log(), f"{text!r} in the log")

    def reload(self) -> None:
        """Ask for new workers, with SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    def reloads(self) -> None:
        """Ask for new workers, and wait until all others have ended."""
        _, *before = self.pids()
        self.reload()
        wait_until(lambda: set(before).isdisjoint(self.pids()), "all workers are replaced")
        # If a reload was in progress, its last workers started after `before`, and are replaced last.
        wait_until(lambda: self._last_of_reload() == "reloaded", "the reload ends")

    def _last_of_reload(self) -> str:
        """Return the state of the last reload, in the log's word: reloading or reloaded."""
        return next(words[-1] for line in reversed(self.log().splitlines()) if "reload" in (words := line.split())[-1])

    def pids(self) -> list[int]:
        """The process ids of the master and of the workers."""
        pid = self._process.pid
        # The event loop's thread, which is the first, starts the workers.
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stop(self) -> None:
        """Stop it gracefully; it must still be running, and must exit without a failure."""
        assert self._process.poll() is None, self.log()
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self.log()
        for sign in ("panicked", "Traceback", "has failed"):
            assert sign not in self.log(), self.log()

    def kill(self) -> None:
        """Kill it; its workers die with it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@contextmanager
def hub_serving(directory: Path, command: Sequence[str] = COMMAND, /, **settings: Any) -> Iterator[HubServer]:
    """Run a server that in the end must stop as it should."""
    server = HubServer(directory, command, **settings)
    try:
        yield server
        server.stop()
    finally:
        server.kill()


def state(thread: Path) -> str:
    """The state of a thread: a letter, as in proc_pid_stat(5)."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process with SIGSTOP, for a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # Its threads stop one after the other.
        wait_until(
            lambda: all(state(thread) == "T" for thread in Path(f"/proc/{pid}/task").iterdir()), "all its threads stop"
        )
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


StartHub = Callable[..., HubServer]
"""A fixture that starts one, with options, and ends it after the test."""
