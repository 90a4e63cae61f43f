"""A server in processes of its own, as `start()` creates them."""

import asyncio
import contextlib
import itertools
import os
import pickle
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from application import Application, Job
from running import Log, Notes, Running
from served import MAX_DATAGRAM

from hubbub import NotRunning

PROGRAM = Path(__file__).with_name("served.py")
LISTENING = re.compile(r"listening on \S+ port (\d+)")
# A server may log the failures of the application itself.
COMPLAINT = re.compile(r" hubbub ERROR (the \w+ handler|the application|a streamed answer|a timer's function) ")


class Channel:
    """The test's end of its channel to the processes of a server.

    It is a datagram socket: one queue for all, so that messages of several processes arrive in the order of sending.
    """

    def __init__(self, directory: Path, notes: Notes) -> None:
        self.addresses: list[str] = []
        """The addresses of the processes that have started."""
        self._notes = notes
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(directory / "test"))
        self._loop.add_reader(self._socket, self.read)

    async def ask(self, process: str, job: Job) -> Any:
        """Run something in the event loop of a worker."""
        number = next(self._numbers)
        self._asked[number] = self._loop.create_future()
        await self._loop.sock_sendto(self._socket, by_value(job, number, job), process)
        return await self._asked[number]

    def read(self) -> None:
        """Receive what has arrived."""
        while True:
            try:
                data, process = self._socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            match pickle.loads(data):
                case ("here",):
                    self.addresses.append(process)
                case "note", values:
                    self._notes.add(values)
                case "result", number, result:
                    self._asked.pop(number).set_result(result)
                case "error", number, error:
                    self._asked.pop(number).set_exception(error)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()


class MultiProcess:
    """A master and its workers."""

    def __init__(self, directory: Path, workers: int) -> None:
        self.notes = Notes()
        self.log = Log()
        self.workers = workers
        self.channel = Channel(directory, self.notes)
        self._directory = directory
        self._by_worker_id: dict[int, str] = {}

    @property
    def port(self) -> int:
        listening = LISTENING.search(self.log.text)
        assert listening
        return int(listening[1])

    async def start(self) -> None:
        # Its temporary files are removed together with ours.
        environment = {**os.environ, "TMPDIR": str(self._directory)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, self._directory, stderr=asyncio.subprocess.PIPE, env=environment
        )
        self._reading = asyncio.create_task(self._read_log())

    async def are_ready(self) -> None:
        """Wait until all workers accept connections."""
        await self.log.tells("listening on ")
        self.channel.read()
        for process in self.channel.addresses:
            with contextlib.suppress(NotRunning):
                self._by_worker_id[await self.channel.ask(process, lambda server, note: server.worker_id)] = process
        assert set(self._by_worker_id) == set(range(self.workers))

    async def run(self, worker_id: int, job: Job) -> Any:
        return await self.channel.ask(self._by_worker_id[worker_id], job)

    async def stop(self) -> None:
        # A server that the application has told to stop needs no signal. If one came after it had stopped, while Python
        # was still ending, it would end the process in its own way.
        if self._process.returncode is None and "shutdown() was called" not in self.log.text:
            self._process.send_signal(signal.SIGTERM)
        status = await self._process.wait()
        await self._reading
        self.channel.read()
        assert status == 0, self.log.text

    def close(self) -> None:
        """Release everything, however the test ended."""
        if self._process.returncode is None:
            self._process.kill()
        self.channel.close()
        # Report it in addition to the failure, if there is one.
        sys.stderr.write(self.log.text)

    async def _read_log(self) -> None:
        assert self._process.stderr
        async for line in self._process.stderr:
            self.log.add(line.decode())
        self.log.end()


@contextlib.asynccontextmanager
async def serve_in_processes(
    workers: int, application: Application, settings: dict[str, Any]
) -> AsyncIterator[Running]:
    """Serve in that many workers. No process may report an error outside the handlers."""
    # Not pytest's directory, whose path is too long for the address of a socket.
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "application").write_bytes(
            by_value(settings.get("app", application), application, {"workers": workers, **settings})
        )
        server = MultiProcess(Path(directory), workers)
        await server.start()
        try:
            await server.are_ready()
            yield Running(server)
        finally:
            try:
                await server.stop()
            finally:
                server.close()
    assert not unexpected(server.log.text)


def by_value(function: Any, *values: Any) -> bytes:
    """Pickle, including the function itself: a server's process cannot import the module of a test."""
    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    data = cloudpickle.dumps(values)
    assert isinstance(data, bytes)
    return data


def unexpected(log: str) -> list[str]:
    """Return the lines of a log that report failures other than the application's."""
    lines = ["the log begins", *log.splitlines()]
    return [
        line
        for before, line in itertools.pairwise(lines)
        if (" ERROR " in line and not COMPLAINT.search(line))
        or "panicked at" in line
        # A traceback after an empty line is of an exception that led to the next one.
        or (line.startswith("Traceback") and before and not COMPLAINT.search(before))
    ]
