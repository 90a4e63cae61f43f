"""The results of a run, as stored in `results.json`: medians, spreads, verdicts and the conditions."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from plan import Plan, Target
from workloads import RATES, Workload, latency

QUANTITIES = {
    "cpu": "µs",
    "memory": "bytes",
    "rate": "1/s",
    "p50": "µs",
    "p99": "µs",
    "p99.9": "µs",
    "max": "µs",
    "late": "µs",
    "server_busy": "",
    "load_busy": "",
}
"""The quantities that a measurement can find, with their units; the last two are shares of the time."""

KEEPS_UP = 0.95
"""The part of the messages a second that a server has to answer for its latency to say anything."""

ASKED_FOR = {latency(rate).name: rate for rate in RATES}
"""The messages a second that are sent, by the workload."""

Sample = dict[str, float]
"""The result of one measurement, by quantity."""

MAIN = {"cpu": "cpu", "memory": "memory", "rate": "rate", "latency": "p50"}
"""The most important quantity of each kind of workload."""


class Summary(TypedDict):
    """A quantity of a server at a workload, over all rounds."""

    median: float
    lowest: float
    highest: float
    rounds: list[float]


class WorkloadResults(TypedDict):
    """All servers at one workload. A server that failed has no results."""

    meaning: str
    unit: str
    measure: str
    servers: dict[str, dict[str, Summary]]
    failed: dict[str, str]


class Verdict(TypedDict):
    """A target, and the measured values, or their ratio in each round."""

    workload: str
    server: str
    peer: str | None
    at_most: float | None
    at_least: float | None
    median: float
    lowest: float
    highest: float
    ratio_of_medians: float | None
    met: bool


class Conditions(TypedDict):
    """The conditions of the measurement."""

    machine: dict[str, str | int]
    versions: dict[str, str]
    servers: dict[str, dict[str, str]]
    rounds: int
    seconds_per_measurement: float
    own_cores: bool
    minutes: NotRequired[float]


class Results(TypedDict):
    """A whole run."""

    command: str
    conditions: Conditions
    workloads: dict[str, WorkloadResults]
    targets: list[Verdict]


@dataclass
class Samples:
    """The measurements of one workload.

    Attributes:
        workload: Which one.
        servers: The samples of each server, in the order of the rounds.
        failed: The reasons why servers have no further samples.
    """

    workload: Workload
    servers: dict[str, list[Sample]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def fail(self, server: str, why: object) -> None:
        """Record that a server failed, and discard its samples."""
        self.servers.pop(server, None)
        self.failed[server] = str(why)


def results(plan: Plan, measured: Sequence[Samples], conditions: Conditions) -> Results:
    """Return the results of all measurements."""
    return {
        "command": f"make {plan.name}",
        "conditions": conditions,
        "workloads": {
            samples.workload.name: {
                "meaning": samples.workload.meaning,
                "unit": samples.workload.unit,
                "measure": samples.workload.measure,
                "servers": {name: summaries(of_one) for name, of_one in samples.servers.items() if of_one},
                "failed": samples.failed,
            }
            for samples in measured
        },
        "targets": verdicts(plan.targets, {samples.workload.name: samples for samples in measured}),
    }


def summaries(samples: Sequence[Sample]) -> dict[str, Summary]:
    """Return each quantity of a server at a workload."""
    return {name: summary([sample[name] for sample in samples]) for name in QUANTITIES if name in samples[0]}


def summary(values: Sequence[float]) -> Summary:
    """Summarise a quantity over all rounds."""
    return {
        "median": rounded(statistics.median(values)),
        "lowest": rounded(min(values)),
        "highest": rounded(max(values)),
        "rounds": [rounded(value) for value in values],
    }


def verdicts(targets: Sequence[Target], measured: Mapping[str, Samples]) -> list[Verdict]:
    """Return the verdict on every target that was measured."""
    return [
        verdict(target, samples)
        for target in targets
        if (samples := measured.get(target.workload))
        and samples.servers.get(target.server)
        and (target.peer is None or samples.servers.get(target.peer))
    ]


def verdict(target: Target, samples: Samples) -> Verdict:
    """Compare round by round, so that a disturbance of a whole round does not count."""
    quantity = MAIN[samples.workload.measure]
    values = [sample[quantity] for sample in samples.servers[target.server]]
    ratio_of_medians = None
    if target.peer is not None:
        peers = [sample[quantity] for sample in samples.servers[target.peer]]
        ratio_of_medians = rounded(statistics.median(values) / statistics.median(peers))
        values = [value / peer for value, peer in zip(values, peers, strict=True)]
    median = statistics.median(values)
    too_much = target.at_most is not None and median > target.at_most
    too_little = target.at_least is not None and median < target.at_least
    return {
        **asdict(target),  # type: ignore[typeddict-item]
        "median": rounded(median),
        "lowest": rounded(min(values)),
        "highest": rounded(max(values)),
        "ratio_of_medians": ratio_of_medians,
        "met": not too_much and not too_little,
    }


def keeps_up(results: Results, workload: str, server: str) -> bool:
    """Whether a server has answered about as many messages a second as it was sent; else its latency only grows."""
    rate = ASKED_FOR.get(workload)
    return rate is None or results["workloads"][workload]["servers"][server]["rate"]["median"] >= KEEPS_UP * rate


def rounded(value: float) -> float:
    """Return a number as it is stored: with five significant digits."""
    return float(f"{value:.5g}")


def write(results: Results, path: Path) -> None:
    """Store the results as JSON."""
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Results:
    """Read the results that `write` stored."""
    results: Results = json.loads(path.read_text())
    return results
