"""The results as Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from results import Results, Summary, Verdict, keeps_up
from servers import LIMIT, SERVERS
from workloads import RATES

HUBBUB = "hubbub"
"""The variant of Hubbub that others are compared with: one worker, and handlers that are `def`."""

MORE_IS_BETTER = {"rate"}


@dataclass(frozen=True)
class Column:
    """One quantity of one workload."""

    workload: str
    quantity: str
    heading: str


@dataclass(frozen=True)
class Section:
    """A table, with a line for each server."""

    title: str
    columns: tuple[Column, ...]


def messages(quantity: str) -> tuple[Column, ...]:
    """The workloads that send messages, whose CPU time and rate are measured."""
    return (
        Column("x1", quantity, "x1"),
        Column("x16", quantity, "x16"),
        Column("16K", quantity, "16K"),
        Column("fan-out", quantity, "fan-out"),
        Column("fan-out-deflate", quantity, "fan-out-deflate"),
    )


def latencies(rate: int) -> tuple[Column, ...]:
    """Latency at so many messages a second."""
    return tuple(Column(f"latency-{rate}", quantity, quantity) for quantity in ("p50", "p99", "p99.9", "max"))


CONNECTIONS = (10, 100, 1000, 10_000, 15_000)

SECTIONS = (
    Section("CPU time, µs per message or delivery", messages("cpu")),
    Section("Throughput, messages or deliveries per second, on one core", messages("rate")),
    Section(
        "Connections",
        (
            Column("handshake", "cpu", "handshake, µs of CPU time"),
            Column("handshake", "rate", "handshakes/s"),
            Column("idle", "memory", "idle connection, bytes"),
            Column("kept", "memory", "kept HTTP connection, bytes"),
        ),
    ),
    Section(
        "CPU time by the number of connections, µs per message",
        tuple(Column(f"connections-{count}", "cpu", f"{count:,}") for count in CONNECTIONS),
    ),
    *(Section(f"Latency at {rate:,} messages per second, µs", latencies(rate)) for rate in RATES),
    Section(
        "Between workers, and from other programs",
        (
            Column("cross-push", "cpu", "cross-push, µs of CPU time per push"),
            Column("broadcast-4000", "cpu", "broadcast-4000, µs of CPU time per delivery"),
            Column("publisher", "rate", "publisher, publishes/s"),
        ),
    ),
)


def tables(results: Results) -> str:
    """Return all tables, the failures, where a peer is ahead, and the verdicts."""
    parts = [described(results)]
    for section in SECTIONS:
        if columns := [column for column in section.columns if is_known(results, column)]:
            parts += [f"### {section.title}", grid(results, columns)]
    parts += [failures(results), ahead(results)]
    if results["targets"]:
        head = ("workload", "compared", "target", "measured", "rounds", "")
        parts += ["### Targets", table(head, map(verdict_row, results["targets"]))]
    return "\n\n".join(part for part in parts if part) + "\n"


def described(results: Results) -> str:
    """Return the conditions as a sentence."""
    conditions = results["conditions"]
    machine = conditions["machine"]
    cores = "a core each for server and load" if conditions["own_cores"] else "one core for server and load"
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    return (
        f"`{results['command']}` on {machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}; "
        f"{cores}; {versions}. Medians of up to {conditions['rounds']} rounds, with the lowest and the highest; "
        "the best server's is bold."
    )


def is_known(results: Results, column: Column) -> bool:
    """Whether a column has any values."""
    of_one = results["workloads"].get(column.workload)
    return of_one is not None and (
        bool(of_one["failed"]) or any(column.quantity in found for found in of_one["servers"].values())
    )


def grid(results: Results, columns: Sequence[Column]) -> str:
    """Return a line for each server that has a value in one of the columns."""
    shown = [name for name in SERVERS if any(takes_part(results, column.workload, name) for column in columns)]
    best = {column: best_of(results, column, shown) for column in columns}
    rows = [(name, *(cell(results, column, name, best[column]) for column in columns)) for name in shown]
    return table(("server", *(column.heading for column in columns)), rows)


def takes_part(results: Results, workload: str, server: str) -> bool:
    """Whether a server was measured at a workload."""
    of_one = results["workloads"][workload]
    return server in of_one["servers"] or server in of_one["failed"]


def cell(results: Results, column: Column, server: str, best: float | None) -> str:
    """Return a server's values."""
    of_one = results["workloads"][column.workload]
    if server in of_one["failed"]:
        return "**FAILED**"
    summary = of_one["servers"].get(server, {}).get(column.quantity)
    if summary is None:
        return "–"
    if not keeps_up(results, column.workload, server):
        return "too slow"
    median = figure(summary["median"])
    if server != LIMIT and summary["median"] == best:
        median = f"**{median}**"
    return f"{median} ({spread(summary)})"


def best_of(results: Results, column: Column, shown: Sequence[str]) -> float | None:
    """Return the best median of the servers shown, without the limit; `None` if they are all variants of one."""
    found = compared(results, column)
    medians = {server: found[server]["median"] for server in shown if server in found}
    kinds = {SERVERS[server].variant_of or server for server in medians}
    if len(kinds) < 2:
        return None
    return (max if column.quantity in MORE_IS_BETTER else min)(medians.values())


def compared(results: Results, column: Column) -> Mapping[str, Summary]:
    """Return the values of all servers in a column, without the limit."""
    servers = results["workloads"].get(column.workload, {"servers": {}})["servers"]
    return {
        server: quantities[column.quantity]
        for server, quantities in servers.items()
        if server != LIMIT and column.quantity in quantities and keeps_up(results, column.workload, server)
    }


def ahead(results: Results) -> str:
    """List where another server is better than Hubbub with one worker and handlers that are `def`."""
    lines = list(peers_ahead(results))
    if not lines:
        return "### Where a peer is ahead of `hubbub`\n\nIn none of these columns."
    return "\n".join(["### Where a peer is ahead of `hubbub`", "", *(f"- {line}" for line in lines)])


def peers_ahead(results: Results) -> Iterator[str]:
    """Return a line for each such column."""
    for column in (column for section in SECTIONS for column in section.columns):
        summaries = compared(results, column)
        if HUBBUB not in summaries:
            continue
        own = summaries[HUBBUB]["median"]
        sign = -1 if column.quantity in MORE_IS_BETTER else 1
        better = {
            server: summary["median"]
            for server, summary in summaries.items()
            if SERVERS[server].variant_of != HUBBUB and sign * summary["median"] < sign * own
        }
        if better:
            those = ", ".join(f"{server} {figure(median)}" for server, median in better.items())
            yield f"{column.workload}, {named(column)}: {those}; hubbub {figure(own)}"


def named(column: Column) -> str:
    """Describe a column's values, for use outside its table."""
    return {
        "cpu": "µs of CPU time",
        "rate": "per second",
        "memory": "bytes",
    }.get(column.quantity, f"{column.quantity} in µs")


def failures(results: Results) -> str:
    """List which servers failed at which workloads, and why."""
    lines = [
        f"- **{server} FAILED at {name}**: {reason(why)}"
        for name, of_one in results["workloads"].items()
        for server, why in of_one["failed"].items()
    ]
    return "\n".join(lines)


def reason(why: str) -> str:
    """Return the first and the last line of a failure's text: what failed, and the error."""
    lines = why.strip().splitlines()
    return " … ".join(line.strip() for line in dict.fromkeys((lines[0], lines[-1]))) if lines else "no reason given"


def headline(results: Results) -> str:
    """A table for the front page: a line for each server, a column for each of the main workloads."""
    columns = [
        column
        for column in (
            Column("x1", "cpu", "echo, µs/message"),
            Column("x16", "cpu", "16 in flight, µs/message"),
            Column("fan-out", "cpu", "fan-out, µs/delivery"),
            Column("latency-20000", "p50", "median latency at 20,000/s, µs"),
            Column("idle", "memory", "bytes/idle connection"),
        )
        if is_known(results, column)
    ]
    shown = [name for name in SERVERS if takes_part(results, "x1", name) and SERVERS[name].variant_of is None]
    best = {column: best_of(results, column, shown) for column in columns}
    rows = []
    for name in shown:
        cells = (cell(results, column, name, best[column]).partition(" (")[0] for column in columns)
        rows.append((name, *cells))
    return table(("server", *(column.heading for column in columns)), rows)


def verdict_row(verdict: Verdict) -> tuple[str, ...]:
    """Return a verdict's line in the table of targets."""
    return (
        verdict["workload"],
        f"{verdict['server']} / {verdict['peer']}" if verdict["peer"] else verdict["server"],
        bound(verdict),
        f"**{figure(verdict['median'])}**",
        spread(verdict),
        "met" if verdict["met"] else "**missed**",
    )


def bound(verdict: Verdict) -> str:
    """Describe a target."""
    if verdict["at_least"] is not None:
        return f"at least {verdict['at_least']:,g}"
    return f"at most {verdict['at_most']:,g}"


def spread(values: Summary | Verdict) -> str:
    """Return the range from the lowest to the highest value."""
    return f"{figure(values['lowest'])} to {figure(values['highest'])}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float) -> str:
    """Format a number for people: three digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
