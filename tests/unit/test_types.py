"""Type checkers accept correct programs, and find mistakes in events, handlers, settings and statistics."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

import hubbub
from hubbub import Server, Settings, Stats, WorkerStats
from hubbub.settings import ServerSettings

PROGRAMS = Path(__file__).parents[1] / "typing"
# What users are shown, and copy. `make lint` checks it with mypy.
SHOWN = [Path(__file__).parents[2] / "examples", Path(hubbub.__file__).parent / "demo"]
CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-incremental", "--config-file="],
    "pyright": ["pyright", "--level", "error", "--pythonpath", sys.executable],
}
# mypy and pyright write the file, the line, and "error".
COMPLAINT = re.compile(r"^\s*\S*\b(\w+)\.py:(\d+)(?::\d+)?:? (?:- )?error: .*$", re.MULTILINE)

pytestmark = pytest.mark.timeout(240)


def complaints(checker: str, program: str) -> set[int]:
    """Return the lines of a program that a checker complains about."""
    done = run(checker, str(PROGRAMS / program))
    found = COMPLAINT.findall(done.stdout)
    assert {name for name, _ in found} <= {Path(program).stem}, done.stdout
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return {int(line) for _, line in found}


def run(checker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a checker, which must be able to do its work."""
    command = [sys.executable, "-m", *CHECKERS[checker], *arguments]
    package = str(Path(hubbub.__file__).parents[1])
    environ = os.environ | {"MYPYPATH": package, "PYTHONPATH": package}
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROGRAMS, env=environ)
    if checker == "pyright" and done.returncode not in (0, 1):
        pytest.fail(f"NOT TESTED: pyright does not run, perhaps because its Node.js is missing:\n{done.stderr}")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_correct_program_has_no_errors(checker: str) -> None:
    assert complaints(checker, "good.py") == set()


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_mistake_is_found(checker: str) -> None:
    lines = (PROGRAMS / "bad.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert complaints(checker, "bad.py") == wrong


def test_the_examples_and_the_demo_have_no_errors() -> None:
    done = run("pyright", "--outputjson", *map(str, SHOWN))
    result = json.loads(done.stdout)
    assert result["generalDiagnostics"] == []
    assert result["summary"]["filesAnalyzed"] == sum(len(list(path.rglob("*.py"))) for path in SHOWN)


def test_every_setting_has_a_type() -> None:
    typed = set(ServerSettings.__annotations__) | {"host", "port", "workers"}
    assert typed == {setting.name for setting in fields(Settings)}


async def test_statistics_are_what_their_types_say() -> None:
    async with (server := Server(port=0)):
        stats = server.stats()
    assert set(get_type_hints(Stats)) == set(stats)
    (worker,) = stats["workers"]
    assert set(get_type_hints(WorkerStats)) == set(worker)
    for counted, kind in ((stats, Stats), (worker, WorkerStats)):
        types = get_type_hints(kind)
        wrong = [name for name, value in counted.items() if name != "workers" and type(value) is not types[name]]
        assert wrong == []
