"""What several hosts on a Redis cost: publishes and pushes to another host, beside two peers, and with more hosts.

    python benchmarks/hosts.py [--only publish latency peers growth many] [--rounds 3] [--seconds 1.5] [--check] \
        [--keep]

Starts a Redis of its own, which keeps nothing on disk; prints tables for each part, and whether the targets are met.
All hosts, Redis and the clients run on this machine. Every message is counted where it arrives: a run in which one is
lost fails. Takes less than five minutes. Needs hubbub and the dependency group bench-all in this Python, Linux, and
`redis-server`.
"""

import argparse
import importlib.metadata
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pages
from across_hosts.bench import Bench
from across_hosts.growth import growth
from across_hosts.latency import latency
from across_hosts.many import many
from across_hosts.peers import beside_peers
from across_hosts.publishes import publish
from across_hosts.servers import Redis
from run import machine

PACKAGES = ("hubbub", "python-socketio", "channels", "channels-redis", "redis", "hiredis", "uvicorn", "uvloop")
PARTS = {"publish": publish, "latency": latency, "peers": beside_peers, "growth": growth, "many": many}


def conditions(rounds: int) -> str:
    """Describe the conditions of a run."""
    found = machine()
    output = subprocess.run(["redis-server", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    redis = next(word.removeprefix("v=") for word in output.split() if word.startswith("v="))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"`python benchmarks/hosts.py` on {found['processor']}, {found['cores']} cores, Linux {found['kernel']}; "
        f"Redis {redis}, Python {platform.python_version()}, {versions}. Medians of {rounds} rounds, with the lowest "
        "and the highest."
    )


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What several hosts on a Redis cost.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.add_argument("--keep", action="store_true", help="write the tables into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.keep and set(arguments.only) != set(PARTS):
        parser.error("only the tables of all parts can be kept")
    targets = []
    with tempfile.TemporaryDirectory() as directory, Redis(Path(directory)) as redis:
        bench = Bench(redis, Path(directory), arguments.rounds, arguments.seconds)
        for part in arguments.only:
            targets += PARTS[part](bench)
    bench.show("Targets", ("measured", "target", "median", ""), [each.row for each in targets], "")
    if arguments.keep:
        text = f"{conditions(arguments.rounds)}\n\n" + "\n".join(bench.shown)
        pages.fill(pages.ROOT / "docs" / "performance.md", text.rstrip() + "\n", "several hosts")
    return 1 if arguments.check and not all(each.is_met for each in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
