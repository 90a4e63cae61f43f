"""The processes of a measurement: servers and the load generator, with their memory and CPU time."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from certificate import Certificate
from servers import PEERS, Server

START_SECONDS = 30.0
STOP_SECONDS = 15.0
RUN_SECONDS = 60.0


class Failed(Exception):
    """A server or the load generator failed; the message contains its output."""


class Process:
    """A child process on one core that is controlled line by line. Its standard error is kept in case it fails."""

    def __init__(self, name: str, command: list[str], core: int | None) -> None:
        self.name = name
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `stop`
        with on_core(core):
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                process_group=0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def read_line(self, seconds: float) -> str:
        """Return the next line of its output; raises `Failed` if none arrives in that time."""
        assert self.process.stdout is not None
        alarm = threading.Timer(seconds, self.process.kill)
        alarm.start()
        line = self.process.stdout.readline()
        alarm.cancel()
        if not line:
            raise Failed(f"{self.name} ended, or said nothing for {seconds:.0f} s.\n{self.said()}")
        return line.strip()

    def said(self) -> str:
        """Return the last lines of its standard error."""
        self.errors.seek(0)
        return self.errors.read()[-4000:].decode(errors="replace")

    def stop(self) -> None:
        """Stop it with SIGTERM, then with SIGKILL if necessary; SIGKILL also ends its remaining children."""
        if self.errors.closed:
            return
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()


class ServerProcess(Process):
    """A running server."""

    def __init__(
        self, server: Server, workload: str, binaries: Path, core: int | None, certificate: Certificate
    ) -> None:
        python = [sys.executable, str(PEERS / server.program)]
        program = python if server.is_python else [str(binaries / server.program)]
        tls = ["--certificate", str(certificate.chain), str(certificate.key)] if server.tls else []
        self.load_options = ["--tls", str(certificate.authority)] if server.tls else []
        super().__init__(server.name, [*program, "--workload", workload, *server.options, *tls], core)
        try:
            self.port = self._read_port()
        except BaseException:
            self.stop()
            raise

    def _read_port(self) -> int:
        line = self.read_line(START_SECONDS)
        if not line.isdecimal():
            raise Failed(f"{self.name} said {line!r} where its port should be.\n{self.said()}")
        return int(line)

    def pause(self) -> None:
        """Pause it, so that it gets no CPU time: some servers are busy even without clients."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        self._signal_all(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it, even while it is paused."""
        with contextlib.suppress(OSError):
            self.resume()
        super().stop()

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def cpu_seconds(self) -> float:
        """Return the CPU time, user and system, of all running threads of this process and its descendants."""
        return sum(cpu_seconds(pid) for pid in family(self.process.pid))

    def memory(self) -> int:
        """Return the bytes of memory of it and its descendants, counting each one's share of shared pages (PSS)."""
        return sum(proportional_set_size(pid) for pid in family(self.process.pid))


@dataclass(frozen=True)
class Run:
    """The result of one run of the load generator.

    Attributes:
        count: Messages, deliveries or handshakes.
        seconds: How long they took.
        load_cpu_seconds: The load generator's own CPU time.
        server_cpu_seconds: The server's.
        found: The other results of the load generator, by quantity.
    """

    count: int
    seconds: float
    load_cpu_seconds: float
    server_cpu_seconds: float
    found: dict[str, float]


@dataclass(frozen=True)
class LoadGenerator:
    """The Rust binary `load`, on a core of its own."""

    binaries: Path
    core: int | None

    def run(self, server: ServerProcess, load: tuple[str, ...], sender: str | None = None) -> Run:
        """Run a load on the server. The measurement does not include opening and closing the connections.

        Args:
            server: The server to load.
            load: The subcommand and its options.
            sender: A program of `peers/` that runs on the load generator's core too, with the same options.
        """
        with self._started(server, load) as process, self._sending(sender, server, load) as senders:
            before = server.cpu_seconds()
            for each in (process, *senders):
                go_on(each)
            result = json.loads(process.read_line(RUN_SECONDS))
            spent = server.cpu_seconds() - before
            self._finish(process, server)
        return Run(result["messages"], result["seconds"], result["load_cpu_seconds"], spent, result["found"])

    @contextlib.contextmanager
    def holding(self, server: ServerProcess, load: tuple[str, ...]) -> Iterator[None]:
        """Keep the connections of an idle load open until the end of the context."""
        with self._started(server, load) as process:
            yield
            self._finish(process, server)

    @contextlib.contextmanager
    def _started(self, server: ServerProcess, load: tuple[str, ...]) -> Iterator[Process]:
        options = ["--port", str(server.port), "--stepped", *server.load_options]
        command = [str(self.binaries / "load"), *options, *load]
        with Process("the load generator", command, self.core) as process:
            try:
                process.read_line(RUN_SECONDS)
                yield process
            except Failed as failure:
                raise Failed(f"{server.name}, {' '.join(load)}: {failure}\n{server.said()}") from None

    @contextlib.contextmanager
    def _sending(
        self, sender: str | None, server: ServerProcess, load: tuple[str, ...]
    ) -> Iterator[tuple[Process, ...]]:
        if sender is None:
            yield ()
            return
        command = [sys.executable, str(PEERS / sender), "--port", str(server.port), *load[1:]]
        with Process(sender, command, self.core) as process:
            process.read_line(START_SECONDS)
            try:
                yield (process,)
            except Failed as failure:
                raise Failed(f"{failure}\n{process.said()}") from None

    @staticmethod
    def _finish(process: Process, server: ServerProcess) -> None:
        go_on(process)
        try:
            status = process.process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"its connections to {server.name} did not close in {RUN_SECONDS:.0f} s") from None
        if status != 0:
            raise Failed(f"after its run on {server.name}: {process.said()}")


def go_on(process: Process) -> None:
    """Let a stepped run take its next step."""
    assert process.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.process.stdin.write("\n")
        process.process.stdin.flush()


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Within the context, start children on this core only."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, including threads that have ended, to the nanosecond."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise Failed(f"no CPU clock of process {pid}: {os.strerror(error)}")
    return time.clock_gettime(clock.value)


def proportional_set_size(pid: int) -> int:
    """Return the memory of a process in bytes, counting its share of each shared page."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Failed(f"no memory figure of process {pid}")


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(member for child in children for member in family(child))]
