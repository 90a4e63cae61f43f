"""One value of one server at one workload: CPU time, memory or a rate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from certificate import Certificate
from plan import Server, Workload
from processes import LoadGenerator, Run, ServerProcess

FIRST_HANDSHAKES = ("handshake", "--connections", "200")
"""Before memory is read: what a server sets up for its first connections is not the cost of one more."""


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        value: µs of CPU time, or bytes of memory, for one of what the workload counts; or how many in a second.
        server_busy: The share of the time that the server was running. Not known with memory.
        load_busy: The share of the time that the load generator was running. Not known with memory.
    """

    value: float
    server_busy: float | None = None
    load_busy: float | None = None


@dataclass(frozen=True)
class Bench:
    """Where to measure, and for how long.

    Attributes:
        binaries: The directory of the Rust binaries.
        seconds: About how long one measurement takes, but for memory.
        server_core: The core that servers run on, `None` for any.
        load_core: The core that the load generator runs on, `None` for any.
        certificate: Of the servers that speak TLS.
    """

    binaries: Path
    seconds: float
    server_core: int | None
    load_core: int | None
    certificate: Certificate

    def start(self, server: Server, workload: Workload) -> ServerProcess:
        """Start a server for a workload, and wait until it listens."""
        serves = server.echo if workload.serves == "echo" else workload.serves
        return ServerProcess(server, serves, self.binaries, self.server_core, self.certificate)

    @property
    def load(self) -> LoadGenerator:
        """The load generator, on its core."""
        return LoadGenerator(self.binaries, self.load_core)


class Measurement(Protocol):
    """A server at a workload, to be measured once in each round."""

    def take(self) -> Sample:
        """Measure once."""

    def stop(self) -> None:
        """End what still runs."""


class LoadMeasurement:
    """CPU time or rate of a server that runs through all rounds."""

    def __init__(self, bench: Bench, server: Server, workload: Workload) -> None:
        self.bench = bench
        self.workload = workload
        self.server = server
        self.running = bench.start(server, workload)
        try:
            self.count = self._count_for(bench.seconds)
        except BaseException:
            self.stop()
            raise

    def take(self) -> Sample:
        """Run the load once."""
        run = self._run(self.count)
        cost, rate = 1e6 * run.server_cpu_seconds / run.count, run.count / run.seconds
        return Sample(
            rate if self.workload.measure == "rate" else cost,
            run.server_cpu_seconds / run.seconds,
            run.load_cpu_seconds / run.seconds,
        )

    def stop(self) -> None:
        """End the server."""
        self.running.stop()

    def _count_for(self, seconds: float) -> int:
        """Warm the server up with ever more, until it is clear how much it does in that time."""
        count = self.workload.least
        while (taken := self._run(count).seconds) < seconds / 4:
            count *= 4
        return max(self.workload.least, int(count * seconds / taken))

    def _run(self, count: int) -> Run:
        load = (*self.workload.load, *self.server.load, self.workload.counted, str(count))
        return self.bench.load.run(self.running, load, self.workload.sender)


class MemoryMeasurement:
    """Memory of connections to a server that is fresh each time: what others left behind would be reused."""

    def __init__(self, bench: Bench, server: Server, workload: Workload) -> None:
        self.bench = bench
        self.server = server
        self.workload = workload

    def take(self) -> Sample:
        """Open the connections and see by how much the server has grown."""
        count = self.workload.least
        with self.bench.start(self.server, self.workload) as server:
            self.bench.load.run(server, FIRST_HANDSHAKES)
            before = server.memory()
            with self.bench.load.holding(server, (*self.workload.load, self.workload.counted, str(count))):
                return Sample((server.memory() - before) / count)

    def stop(self) -> None:
        """Nothing runs between the rounds."""
