"""From the values of all rounds to medians, ratios, verdicts, JSON and Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

from measurements import Sample
from plan import SERVERS, TARGETS, WORKLOADS, Target, Workload


class Conditions(TypedDict):
    """Under what conditions it was measured: part of the results."""

    machine: dict[str, str | int]
    versions: dict[str, str]
    rounds: int
    seconds_per_measurement: float
    own_cores: bool


Results = dict[str, dict[str, list[Sample]]]
"""The samples of all rounds, by workload and server."""


@dataclass(frozen=True)
class Verdict:
    """A target, and what was measured.

    Attributes:
        median: Of the costs, or of the ratios that each round has for itself.
        ratio_of_medians: The other way to compare: first the medians, then their ratio.
    """

    target: Target
    median: float
    lowest: float
    highest: float
    ratio_of_medians: float | None

    @property
    def met(self) -> bool:
        """Whether the median keeps to the target."""
        return self.median <= self.target.at_most


def verdicts(results: Results) -> list[Verdict]:
    """The verdict on every target whose measurements are there."""
    return [
        judge(target, results[target.workload])
        for target in TARGETS
        if target.workload in results
        and target.server in results[target.workload]
        and (target.peer is None or target.peer in results[target.workload])
    ]


def judge(target: Target, samples: dict[str, list[Sample]]) -> Verdict:
    """Compare round by round, so that what slows a whole round down does not count."""
    costs = [sample.cost for sample in samples[target.server]]
    if target.peer is None:
        return Verdict(target, statistics.median(costs), min(costs), max(costs), None)
    peers = [sample.cost for sample in samples[target.peer]]
    ratios = [cost / peer for cost, peer in zip(costs, peers, strict=True)]
    return Verdict(
        target,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(costs) / statistics.median(peers),
    )


def as_json(results: Results, conditions: Conditions) -> dict[str, object]:
    """Everything, as it goes into `results.json`."""
    return {
        "conditions": conditions,
        "workloads": {
            workload.name: {
                "meaning": workload.meaning,
                "unit": unit(workload),
                "servers": {name: summary(samples) for name, samples in results[workload.name].items()},
            }
            for workload in measured(results)
        },
        "targets": [
            asdict(verdict.target)
            | {
                "median": rounded(verdict.median),
                "lowest": rounded(verdict.lowest),
                "highest": rounded(verdict.highest),
                "ratio_of_medians": verdict.ratio_of_medians and rounded(verdict.ratio_of_medians),
                "met": verdict.met,
            }
            for verdict in verdicts(results)
        ],
    }


def summary(samples: Sequence[Sample]) -> dict[str, object]:
    """The rounds of one server at one workload."""
    costs = [sample.cost for sample in samples]
    return {
        "median": rounded(statistics.median(costs)),
        "lowest": rounded(min(costs)),
        "highest": rounded(max(costs)),
        "rounds": [rounded(cost) for cost in costs],
        "server_busy": middle(sample.server_busy for sample in samples),
        "load_busy": middle(sample.load_busy for sample in samples),
    }


def middle(shares: Iterable[float | None]) -> float | None:
    """The median of what is known."""
    known = [share for share in shares if share is not None]
    return rounded(statistics.median(known)) if known else None


def as_markdown(results: Results, conditions: Conditions) -> str:
    """The two tables: what everything costs, and the targets."""
    servers = [name for name in SERVERS if any(name in samples for samples in results.values())]
    costs = table(
        ("workload", "unit", *servers),
        (
            (workload.name, unit(workload), *(cell(results[workload.name].get(name)) for name in servers))
            for workload in measured(results)
        ),
    )
    judged = verdicts(results)
    checks = [table(("workload", "compared", "at most", "measured", "rounds", ""), map(row, judged))] if judged else []
    return "\n\n".join([described(conditions), costs, *checks]) + "\n"


def row(verdict: Verdict) -> tuple[str, ...]:
    """A verdict's line in the table of targets."""
    target = verdict.target
    return (
        target.workload,
        f"{target.server} / {target.peer}" if target.peer else target.server,
        f"{target.at_most:,g}",
        f"**{figure(verdict.median)}**",
        f"{figure(verdict.lowest)} to {figure(verdict.highest)}",
        "met" if verdict.met else "**missed**",
    )


def described(conditions: Conditions) -> str:
    """The conditions in a sentence."""
    machine = conditions["machine"]
    cores = "a core each for server and load" if conditions["own_cores"] else "one core for server and load"
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}; {cores}; {versions}. "
        f"Medians of {conditions['rounds']} rounds, and the lowest to the highest."
    )


def progress(workload: Workload, round_: int, rounds: int, samples: dict[str, list[Sample]]) -> str:
    """A line about the round that has just ended."""
    costs = ", ".join(f"{name} {figure(of_one[-1].cost)}" for name, of_one in samples.items())
    return f"{workload.name}, round {round_} of {rounds}: {costs} {unit(workload)}"


def measured(results: Results) -> list[Workload]:
    """The workloads that have results, in the order of the plan."""
    return [workload for workload in WORKLOADS if workload.name in results]


def unit(workload: Workload) -> str:
    """What the figures of a workload are."""
    return f"{'µs' if workload.measure == 'cpu' else 'bytes'}/{workload.unit}"


def cell(samples: Sequence[Sample] | None) -> str:
    """A server's place in the table of costs."""
    if not samples:
        return ""
    costs = [sample.cost for sample in samples]
    return f"**{figure(statistics.median(costs))}** ({figure(min(costs))} to {figure(max(costs))})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float) -> str:
    """A number as people read it: three digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rounded(value: float) -> float:
    """A number as it is stored: five significant digits."""
    return float(f"{value:.5g}")
