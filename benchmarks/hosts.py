"""What several hosts on a Redis cost: publishes and pushes to another host, beside two peers, and with more hosts.

    python benchmarks/hosts.py [--only publish latency peers growth many] [--rounds 3] [--seconds 1.5] [--check]

Starts a Redis of its own, which keeps nothing on disk; prints tables for each part, and whether the targets are met.
All hosts, Redis and the clients run on this machine. Every message is counted where it arrives: a run in which one is
lost fails. Takes less than five minutes. Needs hubbub and the dependency group bench-all in this Python, Linux, and
`redis-server`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from across_hosts.bench import Bench, show
from across_hosts.growth import growth
from across_hosts.latency import latency
from across_hosts.many import many
from across_hosts.peers import beside_peers
from across_hosts.publishes import publish
from across_hosts.servers import Redis

PARTS = {"publish": publish, "latency": latency, "peers": beside_peers, "growth": growth, "many": many}


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What several hosts on a Redis cost.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    arguments = parser.parse_args()
    targets = []
    with tempfile.TemporaryDirectory() as directory, Redis(Path(directory)) as redis:
        bench = Bench(redis, Path(directory), arguments.rounds, arguments.seconds)
        for part in arguments.only:
            targets += PARTS[part](bench)
    show("Targets", ("measured", "target", "median", ""), [each.row for each in targets], "Medians of all rounds.")
    return 1 if arguments.check and not all(each.is_met for each in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
