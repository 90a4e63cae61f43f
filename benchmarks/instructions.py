"""Count the instructions that the server executes for a message, and compare them with the stored figures.

    python benchmarks/instructions.py [--keep] [--only NAME ...]

Unlike times, counts do not depend on what else the machine does. The embedded server runs twice under callgrind, with
few messages and with many: the difference is the cost of the additional ones. Libraries choose different code on
different processors, so a difference of a few per cent between machines means nothing.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from run import build

HERE = Path(__file__).parent
SERVER = HERE / "peers" / "hubbub_server.py"
STORED = HERE / "instructions.json"

WARN, FAIL = 0.03, 0.10
"""By how much a count may exceed the stored figure before there is a warning, and before the command fails."""
TIMES = 3
"""How often to count at most. Messages arrive together by chance, so the lowest of several counts is taken."""
SECONDS = 120.0
"""The timeout of one run. Under callgrind everything takes about fifty times as long."""


@dataclass(frozen=True)
class Load:
    """A load for the server.

    Attributes:
        name: Its name in the results.
        serves: Which of its workloads the server is started with.
        options: The load generator's subcommand and options.
        counted: The option that says how much to do.
        few: Its value in the first run.
        many: Its value in the second run.
        deliveries: How many messages one of these is.
    """

    name: str
    serves: str
    options: tuple[str, ...]
    counted: str
    few: int
    many: int
    deliveries: int = 1


def echo(name: str, serves: str, connections: int, in_flight: int, size: int, many: int) -> Load:
    """A load whose messages of `size` bytes come back."""
    options = ("--connections", str(connections), "--in-flight", str(in_flight), "--size", str(size))
    return Load(name, serves, ("echo", *options), "--messages", many // 5, many)


SUBSCRIBERS = 200
# One publish after the other, and each wakes the server: otherwise chance decides how many are gathered for one write,
# and how many are read at the end of the turn before.
FAN_OUT = ("fanout", "--subscribers", str(SUBSCRIBERS), "--size", "128", "--in-flight", "1", "--pause", "5")
LOADS = (
    echo("x1", "echo", 64, 1, 64, 20_000),
    echo("x1, async", "echo-async", 64, 1, 64, 20_000),
    echo("x16", "echo", 64, 16, 64, 40_000),
    echo("x16, async", "echo-async", 64, 16, 64, 40_000),
    echo("16K", "echo", 8, 4, 16_384, 5_000),
    echo("16K, async", "echo-async", 8, 4, 16_384, 5_000),
    Load("fan-out", "fanout", FAN_OUT, "--publishes", 80, 400, SUBSCRIBERS),
    Load("fan-out, async", "fanout-async", FAN_OUT, "--publishes", 80, 400, SUBSCRIBERS),
)


def main() -> int:
    """Count, compare, and return the exit status."""
    arguments = parse_arguments()
    if not shutil.which("valgrind"):
        print("Counting instructions needs valgrind (Debian: apt-get install valgrind).", file=sys.stderr)
        return 1
    loads = [load for load in LOADS if not arguments.only or load.name in arguments.only]
    binary = build() / "load"
    stored = {} if arguments.keep else json.loads(STORED.read_text())
    limits = {name: figure * (1 + WARN) for name, figure in stored.get("instructions", {}).items()}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        least = threads.map(lambda load: least_count(load, binary, limits.get(load.name, 0)), loads)
        counts = {load.name: round(counted, 1) for load, counted in zip(loads, least, strict=True)}
    if arguments.keep:
        stored = {"python": platform.python_version(), "instructions": counts}
        STORED.write_text(json.dumps(stored, indent=2) + "\n")
    return report(counts, stored["instructions"], stored["python"])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help=f"write the counts to {STORED.name}")
    names = [load.name for load in LOADS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=f"of {', '.join(names)}")
    arguments = parser.parse_args()
    if arguments.keep and arguments.only:
        parser.error("--keep is for all of them")
    return arguments


def least_count(load: Load, binary: Path, limit: float) -> float:
    """Return the lowest of up to `TIMES` counts; stop counting once one is not above the limit."""
    least = count(load, binary)
    for _ in range(TIMES - 1):
        if least <= limit:
            break
        least = min(least, count(load, binary))
    return least


def count(load: Load, binary: Path) -> float:
    """Return how many instructions the server executes for one message."""
    few, many = (total(load, binary, number) for number in (load.few, load.many))
    return (many - few) / ((load.many - load.few) * load.deliveries)


def total(load: Load, binary: Path, number: int) -> int:
    """Return how many instructions a server executes from its start to its end, with this many messages."""
    with tempfile.TemporaryDirectory() as directory:
        valgrind = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/counts")
        command = [*valgrind, sys.executable, str(SERVER), "--workload", load.serves, "--embedded"]
        # The hashes of strings determine how dicts are filled and searched, so make them the same in each run.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True) as server:
            try:
                assert server.stdout
                port = server.stdout.readline().strip()
                generate = [str(binary), "--port", port, *load.options, load.counted, str(number)]
                subprocess.run(generate, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
                server.send_signal(signal.SIGTERM)
                _, errors = server.communicate(timeout=SECONDS)
            finally:
                server.kill()
    found = re.search(r"Collected : (\d+)", errors)
    if not found:
        raise RuntimeError(f"callgrind did not count anything:\n{errors}")
    return int(found[1])


def report(counts: dict[str, float], stored: dict[str, float], python: str) -> int:
    """Print the counts beside the stored figures, and return the exit status."""
    print(f"{'':16}{'instructions':>14}{'stored':>8}{'change':>9}")
    worst = 0.0
    for name, counted in counts.items():
        change = counted / stored[name] - 1
        worst = max(worst, change)
        remark = "  <-- TOO MANY" if change > FAIL else "  <-- MORE" if change > WARN else ""
        print(f"{name:16}{counted:>14,.0f}{stored[name]:>8,.0f}{change:>+9.1%}{remark}")
    if python != platform.python_version():
        print(f"The stored figures are for Python {python}, not {platform.python_version()}: do not compare them.")
        return 0
    if worst > FAIL:
        print(f"A message costs over {FAIL:.0%} more instructions than it did.", file=sys.stderr)
        return 1
    if worst > WARN:
        print(f"WARNING: a message costs over {WARN:.0%} more instructions than it did.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
