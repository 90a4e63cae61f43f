"""Run Autobahn's fuzzing client against a hubbub echo server, and compare the results with the stored ones.

`run.py` runs the quick cases (all of 1 to 10, and the first four of each group of 12 and 13), `run.py --all` runs every
case. Autobahn's suite needs Python 2.7. Without it, nothing is run: a line on standard error says so, and it is a
failure only with `--require` or `CI=true`.
"""

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from conformance_cases import (
    NOT_RUN,
    Outcome,
    by_number,
    choose_cases,
    faults,
    read_kept,
    read_report,
    write_kept,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
REQUIREMENTS = HERE / "requirements.txt"
CACHE = HERE.parents[1] / ".cache" / "autobahn"
ENVIRONMENT = CACHE / "environment"
REPORTS = CACHE / "reports"

# The last virtualenv that is a single file without dependencies and supports Python 2.7.
VIRTUALENV = "virtualenv==16.7.12"

# While one client waits for the server, the other keeps the second core busy.
CLIENTS = 2
INSTALLATION_PATIENCE = 600  # seconds, for each step


class Unavailable(Exception):
    """This machine cannot run Autobahn's suite; the message says what is missing."""


def main() -> int:
    options = parse_arguments()
    # SIGTERM has to pass through the `finally` that ends the server.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    started = time.monotonic()
    try:
        python = prepare_environment()
    except Unavailable as reason:
        return report_unavailable(reason, required=options.require or os.environ.get("CI") == "true")

    cases = choose_cases(list_cases(python), everything=options.all)
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    deadline = started + options.timeout
    print(f"Running {len(cases)} of Autobahn's cases", flush=True)
    if options.url:
        found = run_cases(python, cases, options.url, deadline)
    else:
        with echo_server() as url:
            found = run_cases(python, cases, url, deadline)

    if options.record:
        write_kept(RESULTS, read_kept(RESULTS) | found)
    at_fault = faults(cases, found, read_kept(RESULTS))
    print_summary(cases, found, at_fault, time.monotonic() - started)
    return 1 if at_fault else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every case, not only the quick ones")
    parser.add_argument("--record", action="store_true", help="keep the results of this run")
    parser.add_argument("--require", action="store_true", help="fail where there is no Python 2.7")
    parser.add_argument("--url", help="test the server at this ws:// address instead of starting ours")
    parser.add_argument("--timeout", type=float, default=2400, help="seconds for the whole run (default: 2400)")
    options = parser.parse_args()
    if options.url and options.record:
        parser.error("--record keeps the results of our own server, not of another one (--url)")
    return options


def report_unavailable(reason: Unavailable, *, required: bool) -> int:
    rule = "!" * 78
    consequence = "This is an error: the run is required here." if required else "Going on without it."
    message = f"AUTOBAHN'S CONFORMANCE CASES WERE NOT RUN.\n{reason}\n{consequence}"
    print(rule, message, rule, sep="\n", file=sys.stderr)
    return 1 if required else 0


# Autobahn's suite and the Python that it needs


def prepare_environment() -> Path:
    """Install Autobahn's suite below the project's cache, once, and return the Python to run it with.

    Raises:
        Unavailable: there is no Python 2.7, or the suite could not be installed for it.
    """
    python = ENVIRONMENT / "bin" / "python"
    # This file is written last, so that an interrupted installation is repeated; so is one of other versions.
    stamp = ENVIRONMENT / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted and is_python27(python):
        return python

    base = find_python27()
    print(f"Installing Autobahn's suite for {base}", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    bootstrap = CACHE / "bootstrap"
    quiet_pip = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    install(sys.executable, *quiet_pip, "--no-deps", "--target", bootstrap, VIRTUALENV)
    install(base, bootstrap / "virtualenv.py", "--quiet", "--no-download", ENVIRONMENT)
    install(python, "-W", "ignore", *quiet_pip, "--requirement", REQUIREMENTS)
    stamp.write_text(wanted)
    return python


def install(*command: str | Path) -> None:
    words = " ".join(map(str, command))
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALLATION_PATIENCE,
        )
    except subprocess.TimeoutExpired as slow:
        raise Unavailable(f"Not done after {slow.timeout:.0f} s: {words}") from slow
    if done.returncode != 0:
        raise Unavailable(f"{done.stdout}\nThis failed: {words}")


def find_python27() -> Path:
    """Return a working Python 2.7: the one on the PATH, or one of pyenv's."""
    for candidate in python27_candidates():
        if is_python27(candidate):
            return candidate
    raise Unavailable(
        "Autobahn's suite needs a Python 2.7. None is on the PATH (python2.7), and none among pyenv's.\n"
        "`pyenv install 2.7.18` brings one."
    )


def python27_candidates() -> Iterator[Path]:
    on_path = shutil.which("python2.7")
    if on_path:
        yield Path(on_path)
    for root in pyenv_roots():
        yield from sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True)


def pyenv_roots() -> Iterator[Path]:
    if "PYENV_ROOT" in os.environ:
        yield Path(os.environ["PYENV_ROOT"])
    if shutil.which("pyenv"):
        answer = subprocess.run(["pyenv", "root"], stdout=subprocess.PIPE, text=True).stdout.strip()
        if answer:
            yield Path(answer)
    yield Path.home() / ".pyenv"


def is_python27(python: Path) -> bool:
    """Return whether this runs Python 2.7: pyenv's `python2.7` on the PATH fails unless that version is selected."""
    try:
        done = subprocess.run(
            [python, "-c", "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout == "2.7"


# The cases


def list_cases(python: Path) -> list[str]:
    """Ask the suite for the names of all its cases."""
    script = (
        "import json; from autobahntestsuite.case import Cases; "
        "print(json.dumps([c.__name__[len('Case'):].replace('_', '.') for c in Cases]))"
    )
    answer = subprocess.run([python, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, check=True)
    return sorted(json.loads(answer.stdout), key=by_number)


def run_cases(python: Path, cases: Sequence[str], url: str, deadline: float) -> dict[str, Outcome]:
    """Run the cases, and return Autobahn's results.

    Neighbouring cases take about the same time, so the clients get cases in turn. A client writes its report when it
    ends. If it dies, or is killed at the deadline (by `time.monotonic()`), its cases have no result.
    """
    names = [f"client-{number}" for number in range(CLIENTS)]
    with ExitStack() as ends:
        clients = []
        for number, name in enumerate(names):
            client = start_client(python, name, cases[number::CLIENTS], url)
            ends.callback(end, client)
            clients.append(client)
        for client in clients:
            with suppress(subprocess.TimeoutExpired):
                client.wait(timeout=max(0, deadline - time.monotonic()))

    found: dict[str, Outcome] = {}
    for name in names:
        report = REPORTS / name / "index.json"
        if report.exists():
            found |= read_report(report)
        else:
            print(f"No report from {name}, see {REPORTS / name}.log", file=sys.stderr)
    return found


def start_client(python: Path, name: str, cases: Sequence[str], url: str) -> subprocess.Popen[bytes]:
    spec = REPORTS / f"{name}.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(REPORTS / name),
                "servers": [{"agent": name, "url": url}],
                "cases": cases,
            }
        )
    )
    with open(REPORTS / f"{name}.log", "wb") as log:
        return subprocess.Popen(
            [python, "-W", "ignore", "-m", "autobahntestsuite.wstest", "-m", "fuzzingclient", "-s", spec],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


# The server


@contextmanager
def echo_server() -> Iterator[str]:
    """Run `server.py` as a process of its own, and yield its address once it accepts connections."""
    with open(REPORTS / "server.log", "wb") as log:
        server = subprocess.Popen([sys.executable, HERE / "server.py"], stdout=subprocess.PIPE, stderr=log)
    try:
        yield f"ws://127.0.0.1:{announced_port(server)}"
    finally:
        end(server)


def announced_port(server: subprocess.Popen[bytes], patience: float = 30) -> int:
    """Wait at most `patience` seconds for the port, which the server prints once it accepts connections."""
    assert server.stdout is not None
    readable, _, _ = select.select([server.stdout], [], [], patience)
    line = server.stdout.readline() if readable else b""
    if not line:
        sys.exit(f"The echo server did not start:\n{(REPORTS / 'server.log').read_text()}")
    return int(line)


def end(process: subprocess.Popen[bytes], patience: float = 15) -> None:
    """Stop a process, by force if it has not ended within `patience` seconds."""
    process.terminate()
    try:
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The summary


def print_summary(cases: Sequence[str], found: dict[str, Outcome], at_fault: dict[str, str], seconds: float) -> None:
    """Print the counts, each case at fault, and a closing line in the form `N passed, N failed`."""
    print(f"{len(cases)} cases in {seconds:.0f} s")
    for outcome, count in Counter(found.get(case, NOT_RUN) for case in cases).most_common():
        print(f"  {count:4} {outcome}")
    for case, reason in at_fault.items():
        print(f"FAULT {case}: {reason}")
    if at_fault:
        print(f"Autobahn's page on each case, and the logs: {REPORTS}")
    print(f"{len(cases) - len(at_fault)} passed, {len(at_fault)} failed")


if __name__ == "__main__":
    sys.exit(main())
