"""Measure Hubbub, its peers and a bare epoll loop, and compare the results with the targets.

    python benchmarks/run.py [bench|bench-all] [--quick] [--only NAME ...] [--servers NAME ...] [--check]

Needs hubbub and the dependency group of that name in this Python, and cargo. Linux only. A complete run writes its
results, tables and plots (see `pages.py`); a partial or quick one prints the tables.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pages
import results
import tables
from certificate import Certificate
from measurements import Bench, Measurement, prepare
from plan import PLANS, Plan
from progress import Meter
from results import MAIN, Conditions, Samples
from servers import LIMIT, SERVERS, Server
from workloads import Workload

HERE = Path(__file__).parent


def main() -> int:
    """Measure, report, and return the exit status."""
    arguments = parse_arguments()
    plan: Plan = PLANS[arguments.plan]
    complete = not (arguments.quick or arguments.only or arguments.servers)
    if arguments.quick:
        plan = replace(plan, rounds=2, seconds=0.2)
    if arguments.only:
        plan = replace(plan, workloads=tuple(each for each in plan.workloads if each.name in arguments.only))
    servers = [server for name, server in SERVERS.items() if not arguments.servers or name in arguments.servers]
    server_core, load_core = cores()
    print(f"{plan.name}: building the load generator", file=sys.stderr)
    binaries = build()
    with (
        tempfile.TemporaryDirectory() as directory,
        Meter(plan.expected_seconds([each.name for each in servers])) as meter,
    ):
        meter.say(f"{plan.name}: {len(plan.workloads)} workloads, up to {plan.rounds} rounds, {meter.left}")
        bench = Bench(binaries, plan.seconds, server_core, load_core, Certificate.make(Path(directory)))
        measured = [measure(bench, plan, workload, servers, meter) for workload in plan.workloads]
        minutes = meter.minutes
    taking_part = [server for server in servers if any(server.name in each.servers for each in plan.workloads)]
    conditions = Conditions(
        machine=machine(),
        versions=versions(taking_part),
        servers={server.name: described(server) for server in taking_part},
        rounds=plan.rounds,
        seconds_per_measurement=plan.seconds,
        own_cores=server_core != load_core,
        minutes=results.rounded(minutes),
    )
    found = results.results(plan, [samples for samples in measured if samples.servers or samples.failed], conditions)
    print(tables.tables(found))
    if complete:
        results.write(found, pages.RESULTS[found["command"]])
        pages.show(found)
    return 1 if broken(measured) or (arguments.check and missed(plan, found)) else 0


def parse_arguments() -> argparse.Namespace:
    """The command line: what to measure, and how thoroughly."""
    names = sorted({workload.name for plan in PLANS.values() for workload in plan.workloads})
    parser = argparse.ArgumentParser(description="Measure Hubbub and its peers.")
    parser.add_argument("plan", nargs="?", choices=PLANS, default="bench", help="which of the two (default: bench)")
    parser.add_argument("--quick", action="store_true", help="two short rounds: for orientation only")
    parser.add_argument("--only", nargs="+", choices=names, metavar="WORKLOAD", help=", ".join(names))
    parser.add_argument("--servers", nargs="+", choices=SERVERS, metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    return parser.parse_args()


def build() -> Path:
    """Build the Rust binaries. Returns their directory."""
    command = ["cargo", "build", "--release", "--package", "benchmarks", "--message-format", "json"]
    output = subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = map(json.loads, output.splitlines())
    return next(Path(message["executable"]).parent for message in messages if message.get("executable"))


def cores() -> tuple[int | None, int | None]:
    """Return a core for the servers and another for the load generator, or `None` twice if there is only one core."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[-2]) if len(allowed) > 1 else (None, None)


def measure(bench: Bench, plan: Plan, workload: Workload, servers: Sequence[Server], meter: Meter) -> Samples:
    """Run all rounds of a workload. Each round begins with another server; a server that fails is left out."""
    taking_part = [server for server in servers if server.name in workload.servers]
    samples = Samples(workload)
    with contextlib.ExitStack() as running:
        measurements: dict[str, Measurement] = {}
        for server in taking_part:
            meter.begin(f"{workload.name}: {server.name} starts")
            try:
                measurements[server.name] = prepare(bench, server, workload)
            except Exception as failure:  # whatever a server does, the run continues
                give_up(samples, server.name, failure, meter)
            else:
                running.callback(measurements[server.name].stop)
                samples.servers[server.name] = []
            meter.advance(plan.warm_up_seconds(workload))
        for round_ in range(plan.rounds_of(workload)):
            for turn in range(len(taking_part)):
                name = taking_part[(round_ + turn) % len(taking_part)].name
                meter.begin(f"{workload.name}, round {round_ + 1}: {name}")
                if name in samples.servers:
                    try:
                        samples.servers[name].append(measurements[name].take())
                    except Exception as failure:  # whatever a server does, the run continues
                        measurements[name].stop()
                        give_up(samples, name, failure, meter)
                meter.advance(plan.round_seconds(workload))
            meter.say(told(samples, round_ + 1, plan.rounds_of(workload)))
    return samples


def give_up(samples: Samples, server: str, failure: Exception, meter: Meter) -> None:
    """Continue without a server."""
    samples.fail(server, failure)
    meter.say(f"{samples.workload.name}: {server} FAILED: {failure}")


def told(samples: Samples, round_: int, rounds: int) -> str:
    """Return a line about the round that has just ended."""
    quantity = MAIN[samples.workload.measure]
    values = (f"{name} {tables.figure(of_one[-1][quantity])}" for name, of_one in samples.servers.items())
    return f"{samples.workload.name}, round {round_} of {rounds}: {'; '.join(values)}"


def broken(measured: Sequence[Samples]) -> bool:
    """Whether one of our own servers failed. The tables report peers that failed."""
    return any(
        server == LIMIT or (SERVERS[server].variant_of or server) == "hubbub"
        for samples in measured
        for server in samples.failed
    )


def missed(plan: Plan, found: results.Results) -> bool:
    """Whether a target was missed, or could not be checked."""
    judged = {workload.name for workload in plan.workloads}
    expected = sum(target.workload in judged for target in plan.targets)
    return len(found["targets"]) < expected or not all(verdict["met"] for verdict in found["targets"])


def machine() -> dict[str, str | int]:
    """Return the conditions of the measurement."""
    processors = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": processors[0] if processors else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    }


def versions(servers: Sequence[Server]) -> dict[str, str]:
    """Return the versions of Python and of the servers' packages, without those that are not installed."""
    packages = sorted({package for server in servers for package in server.packages})
    installed = {each.name.lower(): each.version for each in importlib.metadata.distributions() if each.name}
    return {"Python": platform.python_version()} | {name: installed[name] for name in packages if name in installed}


def described(server: Server) -> dict[str, str]:
    """How a server was run."""
    command = " ".join((server.program, "--workload", server.echo, *server.options, *server.load))
    return {"program": command, "settings": server.settings}


if __name__ == "__main__":
    sys.exit(main())
