"""From the values of all rounds to medians, ratios, verdicts, JSON and Markdown."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
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
        median: Of the values, or of the ratios that each round has for itself.
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
        too_much = self.target.at_most is not None and self.median > self.target.at_most
        too_little = self.target.at_least is not None and self.median < self.target.at_least
        return not too_much and not too_little


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
    values = [sample.value for sample in samples[target.server]]
    if target.peer is None:
        return Verdict(target, statistics.median(values), min(values), max(values), None)
    peers = [sample.value for sample in samples[target.peer]]
    ratios = [value / peer for value, peer in zip(values, peers, strict=True)]
    return Verdict(
        target,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(values) / statistics.median(peers),
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
    values = [sample.value for sample in samples]
    return {
        "median": rounded(statistics.median(values)),
        "lowest": rounded(min(values)),
        "highest": rounded(max(values)),
        "rounds": [rounded(value) for value in values],
        "server_busy": middle(sample.server_busy for sample in samples),
        "load_busy": middle(sample.load_busy for sample in samples),
    }


def middle(shares: Iterable[float | None]) -> float | None:
    """The median of what is known."""
    known = [share for share in shares if share is not None]
    return rounded(statistics.median(known)) if known else None


def as_markdown(results: Results, conditions: Conditions) -> str:
    """The tables: the servers side by side, the ways to run one of them, and the targets."""
    parts = [described(conditions)]
    if columns := [name for name in taking_part(results) if not SERVERS[name].variant_of]:
        parts.append(table(("workload", "unit", *columns), side_by_side(results, columns)))
    if variants := [name for name in taking_part(results) if SERVERS[name].variant_of]:
        parts.append(table(("workload", "unit", "server", "measured"), one_by_one(results, variants)))
    if judged := verdicts(results):
        parts.append(table(("workload", "compared", "target", "measured", "rounds", ""), map(row, judged)))
    return "\n\n".join(parts) + "\n"


def taking_part(results: Results) -> list[str]:
    """The servers that have results, in the order of the plan."""
    return [name for name in SERVERS if any(name in samples for samples in results.values())]


def side_by_side(results: Results, servers: Sequence[str]) -> Iterator[Sequence[str]]:
    """A line for each workload, a column for each server."""
    for workload in measured(results):
        cells = [cell(results[workload.name].get(name)) for name in servers]
        if any(cells):
            yield workload.name, unit(workload), *cells


def one_by_one(results: Results, servers: Sequence[str]) -> Iterator[Sequence[str]]:
    """A line for each server at each workload."""
    for workload in measured(results):
        for name in servers:
            if samples := results[workload.name].get(name):
                yield workload.name, unit(workload), name, cell(samples)


def row(verdict: Verdict) -> tuple[str, ...]:
    """A verdict's line in the table of targets."""
    target = verdict.target
    return (
        target.workload,
        f"{target.server} / {target.peer}" if target.peer else target.server,
        bound(target),
        f"**{figure(verdict.median)}**",
        f"{figure(verdict.lowest)} to {figure(verdict.highest)}",
        "met" if verdict.met else "**missed**",
    )


def bound(target: Target) -> str:
    """What has to be kept to."""
    return f"at most {target.at_most:,g}" if target.at_least is None else f"at least {target.at_least:,g}"


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
    values = "; ".join(f"{name} {figure(of_one[-1].value)}" for name, of_one in samples.items())
    return f"{workload.name}, round {round_} of {rounds}: {values} {unit(workload)}"


def measured(results: Results) -> list[Workload]:
    """The workloads that have results, in the order of the plan."""
    return [workload for workload in WORKLOADS if workload.name in results]


def unit(workload: Workload) -> str:
    """What the figures of a workload are."""
    match workload.measure:
        case "cpu":
            return f"µs/{workload.unit}"
        case "memory":
            return f"bytes/{workload.unit}"
        case "rate":
            return f"{workload.unit}/s"


def cell(samples: Sequence[Sample] | None) -> str:
    """A server's figures at a workload."""
    if not samples:
        return ""
    values = [sample.value for sample in samples]
    return f"**{figure(statistics.median(values))}** ({figure(min(values))} to {figure(max(values))})"


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
