"""Runs the test-suite of another project, which judges the server, and compares the failures with the expected ones.

The suites are fetched from the package index, as source distributions, into `.cache/asgi`.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

__all__ = ["compared", "extras", "fetched", "outcomes", "verdict"]

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".cache" / "asgi"


def fetched(project: str) -> Path:
    """Return the directory of a project's source distribution, in the version that is installed."""
    version = importlib.metadata.version(project)
    directory = CACHE / f"{project.replace('-', '_')}-{version}"
    if not directory.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*download, "--dest", temporary, f"{project}=={version}"], check=True)
            (archive,) = Path(temporary).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(CACHE, filter="data")
    return directory


def extras(suite: str, *packages: str) -> str:
    """Install packages that only one suite needs, apart from ours; return the directory."""
    directory = CACHE / f"extras-{suite}"
    if not directory.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(directory)]
        subprocess.run([*install, *packages], check=True)
    return str(directory)


def outcomes(directory: Path, plugin: str, *arguments: str, **environment: str) -> dict[str, str]:
    """Run pytest in the directory of a suite with one of our plugins; return the outcome of each test."""
    with tempfile.NamedTemporaryFile() as results:
        command = [sys.executable, "-m", "pytest", "-p", plugin, "-q", "--no-header", "--tb=line", "-n", "2"]
        # Our own plugins, and warnings of other versions of Python and of libraries, would change what is judged.
        command += ["-p", "no:cacheprovider", "-p", "no:asyncio", "-o", "filterwarnings=ignore"]
        path = os.pathsep.join([str(HERE), str(directory), environment.pop("PYTHONPATH", "")])
        settings = {"PYTHONPATH": path, "JUDGE_RESULTS": results.name, "PY_COLORS": "0", **environment}
        subprocess.run([*command, *arguments], cwd=directory, env={**os.environ, **settings}, check=False)
        found = json.loads(Path(results.name).read_text() or "{}")
    return {str(test): str(outcome) for test, outcome in found.items()}


def compared(directory: Path, plugin: str, *arguments: str, **environment: str) -> dict[str, str]:
    """Run a suite on our server and on uvicorn; return our outcomes, without the tests that fail with both."""
    ours = outcomes(directory, plugin, *arguments, JUDGE_SERVER="hubbub", **environment)
    theirs = outcomes(directory, plugin, *arguments, JUDGE_SERVER="uvicorn", **environment)
    shared = {test for test in ours if ours[test] == theirs.get(test) == "failed"}
    print(f"{len(shared)} tests fail with both servers")
    return {test: outcome for test, outcome in ours.items() if test not in shared}


def verdict(found: dict[str, str], known: dict[str, str]) -> int:
    """Print what was found; return the exit status.

    Args:
        found: The outcome of each test.
        known: Why tests fail that are expected to, by their names, without what parametrizes them.
    """
    failed = {test for test, outcome in found.items() if outcome == "failed"}
    excused = {test: why for test in failed for name, why in known.items() if _is(test, name)}
    unused = [name for name in known if any(_is(test, name) for test in found.keys() - failed)]
    counts = {outcome: list(found.values()).count(outcome) for outcome in ("passed", "failed", "skipped")}
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    for test, why in sorted(excused.items()):
        print(f"  known: {test}: {why}")
    for name in unused:
        print(f"  passed this time: {name}")
    for test in sorted(failed - excused.keys()):
        print(f"  FAILED: {test}")
    if not counts["passed"]:
        print("  nothing was judged")
    return 1 if failed - excused.keys() or not counts["passed"] else 0


def _is(test: str, name: str) -> bool:
    return test == name or test.startswith(f"{name}[")
