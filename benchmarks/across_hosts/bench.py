"""How the parts are measured, and how their results are shown."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from across_hosts.clients import Load, Receivers
from across_hosts.servers import Host, Redis, Usage, hubbubs, usage
from tables import figure, table


@dataclass(frozen=True)
class Sample:
    """One measurement under load; CPU time is in µs for each message.

    Attributes:
        rate: Messages per second.
        sender: Of the host that sends, or of all hosts.
        receiver: Of the other host.
        redis: Of Redis.
        commands: Commands to Redis for each message.
    """

    rate: float
    sender: Usage
    receiver: Usage
    redis: float
    commands: float


@dataclass(frozen=True)
class Target:
    """What is asked for, and whether it was measured."""

    what: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the measured value is within the bounds."""
        return (self.at_most is None or self.measured <= self.at_most) and (
            self.at_least is None or self.measured >= self.at_least
        )

    @property
    def row(self) -> tuple[str, ...]:
        """The line of the table."""
        asked = f"at most {self.at_most:,g}" if self.at_most is not None else f"at least {self.at_least:,g}"
        return self.what, asked, f"**{figure(self.measured)}**", "met" if self.is_met else "**missed**"


@dataclass(frozen=True)
class Bench:
    """Where and how long to measure, and the tables of what was measured."""

    redis: Redis
    directory: Path
    rounds: int
    seconds: float
    shown: list[str] = field(default_factory=list)

    def show(self, title: str, head: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> None:
        """Print a table, and note it for the page."""
        text = f"### {title}\n\n{table(head, rows)}\n\n{note}\n"
        print(text, flush=True)
        self.shown.append(text)

    @contextmanager
    def hosts(self, count: int, workers: int = 1) -> Iterator[list[Host]]:
        """Run Hubbub as so many hosts."""
        self.redis.flush()
        with hubbubs(self.redis, self.directory, count, workers) as hosts:
            yield hosts

    def measure(self, hosts: Sequence[Host], receivers: Receivers, load: Load, sending: int = 1) -> Sample:
        """Carry a load; the first `sending` hosts are those that send."""
        count = load.chunks * load.per_chunk
        commands, redis = self.redis.commands(), self.redis.cpu_seconds
        senders, others = usage(hosts[:sending]), usage(hosts[sending:])
        seconds = load.carry(receivers)
        senders, others = usage(hosts[:sending]) - senders, usage(hosts[sending:]) - others
        redis = self.redis.cpu_seconds - redis
        # One of the commands has asked for their number.
        commands = self.redis.commands() - commands - 1
        scale = 1e6 / count
        return Sample(count / seconds, senders * scale, others * scale, redis * scale, commands / count)

    def measure_for_long(
        self, hosts: Sequence[Host], receivers: Receivers, make: Callable[[int], Load], sending: int = 1
    ) -> Sample:
        """Carry a load of about `seconds`; `make` returns one of so many chunks."""
        chunks = 4
        while True:
            begin = time.monotonic()
            make(chunks).carry(receivers)
            took = time.monotonic() - begin
            for client in receivers.clients:
                client.take()
            if took > self.seconds / 5:
                break
            chunks *= 4
        return self.measure(hosts, receivers, make(max(1, int(chunks * self.seconds / took))), sending)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which that part of the values is."""
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def spread(values: Sequence[float]) -> str:
    """Return the median, the lowest and the highest."""
    return f"{figure(median(values))} ({figure(min(values))} to {figure(max(values))})"


def threads(values: Sequence[Usage]) -> str:
    """Return a master's CPU time, and that of its threads."""
    hub, link = median([each.hub for each in values]), median([each.link for each in values])
    return f"{figure(median([each.master for each in values]))} ({figure(hub)} + {figure(link)})"
