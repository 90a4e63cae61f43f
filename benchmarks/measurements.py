"""Measures one server at one workload."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from certificate import Certificate
from processes import LoadGenerator, Run, ServerProcess
from results import Sample
from servers import Server
from workloads import X1, Workload

FIRST = {
    "echo": ("handshake", "--connections", "200"),
    "hello": ("request", "--connections", "200", "--size", "13", "--requests", "400"),
}
"""What to do before memory is read: what a server sets up for its first connections is not the cost of one more."""


@dataclass(frozen=True)
class Bench:
    """Where to measure, and for how long.

    Attributes:
        binaries: The directory of the Rust binaries.
        seconds: About how long one measurement takes, except of memory.
        server_core: The core that servers run on, `None` for any.
        load_core: The core that the load generator runs on, `None` for any.
        certificate: The certificate of the servers that speak TLS.
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
        """Return the load generator, on its core."""
        return LoadGenerator(self.binaries, self.load_core)


class Measurement(Protocol):
    """A server at a workload, to be measured once in each round."""

    def take(self) -> Sample:
        """Measure once."""

    def stop(self) -> None:
        """Stop everything that is still running."""


def prepare(bench: Bench, server: Server, workload: Workload) -> Measurement:
    """Get a server ready to be measured.

    Raises:
        Failed: It does not start, or fails under the first load.
    """
    if workload.measure == "memory":
        return MemoryMeasurement(bench, server, workload)
    if workload.rate is not None:
        return LatencyMeasurement(bench, server, workload, workload.rate)
    return LoadMeasurement(bench, server, workload)


class Running:
    """A server that runs through all rounds, but is paused while it is not measured."""

    def __init__(self, bench: Bench, server: Server, workload: Workload) -> None:
        self.bench = bench
        self.server = server
        self.workload = workload
        self.running = bench.start(server, workload)
        try:
            self.warm_up()
        except BaseException:
            self.stop()
            raise
        self.running.pause()

    def take(self) -> Sample:
        """Measure once."""
        self.running.resume()
        sample = self.measure()
        self.running.pause()
        return sample

    def measure(self) -> Sample:
        """Measure once, while the server runs."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Find out how much the server can handle."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the server."""
        self.running.stop()

    def count_for(self, workload: Workload, seconds: float) -> int:
        """Warm the server up with growing loads, until it is clear how much of the workload it handles in that time."""
        count = workload.least
        while (taken := self.run(workload, count).seconds) < seconds / 4:
            count *= 4
        return max(workload.least, int(count * seconds / taken))

    def run(self, workload: Workload, count: int) -> Run:
        """Run a workload on the server once."""
        load = (*workload.load, *self.server.load, workload.counted, str(count))
        return self.bench.load.run(self.running, load, workload.sender)


class LoadMeasurement(Running):
    """CPU time and rate of a server under full load."""

    def warm_up(self) -> None:
        self.count = self.count_for(self.workload, self.bench.seconds)

    def measure(self) -> Sample:
        run = self.run(self.workload, self.count)
        cost = 1e6 * run.server_cpu_seconds / run.count
        return {"cpu": cost, "rate": run.count / run.seconds} | busy(run)


class LatencyMeasurement(Running):
    """Latency of a server at a fixed number of messages per second."""

    def __init__(self, bench: Bench, server: Server, workload: Workload, rate: int) -> None:
        self.count = max(workload.least, int(rate * workload.longer * bench.seconds))
        super().__init__(bench, server, workload)

    def warm_up(self) -> None:
        self.run(X1, self.count_for(X1, self.bench.seconds / 4))

    def measure(self) -> Sample:
        run = self.run(self.workload, self.count)
        return {**run.found, "rate": run.count / run.seconds} | busy(run)


class MemoryMeasurement:
    """Memory of connections to a freshly started server: an older one would reuse memory of earlier connections."""

    def __init__(self, bench: Bench, server: Server, workload: Workload) -> None:
        self.bench = bench
        self.server = server
        self.workload = workload

    def take(self) -> Sample:
        """Open the connections, and measure how much the server has grown."""
        count = self.workload.least
        with self.bench.start(self.server, self.workload) as server:
            self.bench.load.run(server, FIRST[self.workload.serves])
            before = server.memory()
            with self.bench.load.holding(server, (*self.workload.load, self.workload.counted, str(count))):
                return {"memory": (server.memory() - before) / count}

    def stop(self) -> None:
        """Do nothing: no server runs between the rounds."""


def busy(run: Run) -> Sample:
    """Return the shares of the time in which the server and the load generator were running."""
    return {"server_busy": run.server_cpu_seconds / run.seconds, "load_busy": run.load_cpu_seconds / run.seconds}
