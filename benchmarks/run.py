"""Measure Hubbub, its peers and a bare epoll loop, and hold the result against the targets.

    python benchmarks/run.py [--quick] [--only NAME ...] [--servers NAME ...] [--check]

Needs hubbub, picows, trustme, uvloop and websockets in this Python, and cargo. Linux only. A complete run writes
`results.json` and the tables of `README.md`; a partial or quick one prints the tables.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import report
from certificate import Certificate
from measurements import Bench, LoadMeasurement, Measurement, MemoryMeasurement, Sample
from plan import SERVERS, WORKLOADS, Server, Workload
from processes import Failed
from report import Conditions, Results

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
README = HERE / "README.md"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"


def main() -> int:
    """Measure, report, and return the exit status."""
    arguments = parse_arguments()
    rounds, seconds = (3, 0.3) if arguments.quick else (9, 1.0)
    server_core, load_core = cores()
    workloads = [workload for workload in WORKLOADS if workload.name in arguments.only]
    servers = [SERVERS[name] for name in arguments.servers]
    try:
        with tempfile.TemporaryDirectory() as directory:
            bench = Bench(build(), seconds, server_core, load_core, Certificate.make(Path(directory)))
            results = {
                workload.name: measure(bench, workload, taking_part, rounds)
                for workload in workloads
                if (taking_part := [server for server in servers if server.name in workload.servers])
            }
    except Failed as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    conditions = Conditions(
        machine=machine(),
        versions=versions(servers),
        rounds=rounds,
        seconds_per_measurement=seconds,
        own_cores=server_core != load_core,
    )
    markdown = report.as_markdown(results, conditions)
    print(markdown)
    if not arguments.quick and len(workloads) == len(WORKLOADS) and len(servers) == len(SERVERS):
        keep(results, conditions, markdown)
    missed = [verdict for verdict in report.verdicts(results) if not verdict.met]
    return 1 if missed and arguments.check else 0


def parse_arguments() -> argparse.Namespace:
    """What to measure, and how thoroughly."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description="Measure Hubbub and its peers.")
    parser.add_argument("--quick", action="store_true", help="three short rounds instead of nine")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="WORKLOAD", help=", ".join(names))
    parser.add_argument(
        "--servers",
        nargs="+",
        choices=SERVERS,
        default=list(SERVERS),
        metavar="SERVER",
        help=", ".join(SERVERS),
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    return parser.parse_args()


def build() -> Path:
    """Build the Rust binaries. Returns their directory."""
    command = ["cargo", "build", "--release", "--package", "benchmarks", "--message-format", "json"]
    output = subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = map(json.loads, output.splitlines())
    return next(Path(message["executable"]).parent for message in messages if message.get("executable"))


def cores() -> tuple[int | None, int | None]:
    """A core for the servers and another for the load generator, or two times none, if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[-2]) if len(allowed) > 1 else (None, None)


def measure(bench: Bench, workload: Workload, servers: Sequence[Server], rounds: int) -> dict[str, list[Sample]]:
    """Go through all rounds of a workload. Each round begins with another server."""
    kind = MemoryMeasurement if workload.measure == "memory" else LoadMeasurement
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    with contextlib.ExitStack() as running:
        measurements: list[Measurement] = []
        for server in servers:
            print(f"{workload.name}: {server.name} starts", file=sys.stderr)
            measurements.append(kind(bench, server, workload))
            running.callback(measurements[-1].stop)
        for round_ in range(rounds):
            for turn in range(len(servers)):
                index = (round_ + turn) % len(servers)
                samples[servers[index].name].append(measurements[index].take())
            print(report.progress(workload, round_ + 1, rounds, samples), file=sys.stderr)
    return samples


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    processors = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": processors[0] if processors else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
    }


def versions(servers: Sequence[Server]) -> dict[str, str]:
    """The versions of Python and of what the servers are made of."""
    packages = sorted({package for server in servers for package in server.packages})
    return {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def keep(results: Results, conditions: Conditions, markdown: str) -> None:
    """Write `results.json`, and the tables into `README.md` between their marks."""
    RESULTS.write_text(json.dumps(report.as_json(results, conditions), indent=2, ensure_ascii=False) + "\n")
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{markdown}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
