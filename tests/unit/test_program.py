"""What a process knows about its program; tests that need real processes are in tests/processes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest

from hubbub import Server, program
from hubbub.program import Assignment, Way, way_of

ASSIGNMENT = Assignment(
    worker_id=1,
    workers=2,
    slot=3,
    link=4,
    registry=5,
    master=6,
    port=9501,
    title="port 9501",
    server=1,
    start=1,
    is_reload=False,
    settings={"port": 9501},
    topics=[],
)


@pytest.mark.parametrize(
    ("arguments", "way"),
    [
        ("app.py", Way("script", "app.py")),
        ("-u app.py --port 1", Way("script", "app.py")),
        ("-X dev -W error app.py -c x", Way("script", "app.py")),
        ("-Xdev -Werror app.py -m x", Way("script", "app.py")),
        ("--check-hash-based-pycs always app.py", Way("script", "app.py")),
        ("-m app", Way("module", "app")),
        ("-um app -c x", Way("module", "app")),
        ("-mapp", Way("module", "app")),
        ("-c pass", Way("command", "pass")),
        ("-Ic pass app.py", Way("command", "pass")),
        ("-", Way("input")),
        ("-i", Way("input")),
        ("", Way("input")),
    ],
)
def test_pythons_own_arguments_tell_what_it_runs(arguments: str, way: Way) -> None:
    assert way_of(arguments.split()) == way


@pytest.mark.parametrize(
    ("way", "name"),
    [
        (Way("script", "bin/app.py"), "app.py"),
        (Way("module", "package.app"), "package.app"),
        (Way("command", "import app"), "python"),
        (Way("input"), "python"),
    ],
)
def test_the_name_of_the_program(way: Way, name: str) -> None:
    assert way.name == name


def test_what_runs_these_tests_can_be_run_again() -> None:
    assert program.why_not_again() is None


def test_what_is_typed_in_cannot_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert "typed in" in (program.why_not_again() or "")


def test_standard_input_cannot_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_way", Way("input"))
    assert "standard input" in (program.why_not_again() or "")


def test_a_script_that_is_gone_cannot_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_way", Way("script", "gone.py"))
    assert "no gone.py in" in (program.why_not_again() or "")


def test_a_forked_child_cannot_run_it_again() -> None:
    if (child := os.fork()) == 0:
        os._exit("only a child" in (program.why_not_again() or ""))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def run(code: str, *descriptors: int, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own, which inherits `descriptors`."""
    return subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=descriptors,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("value", ["4", "777", str(2**40), "two", "-1"])
def test_a_variable_that_no_master_has_set_is_one_line(value: str) -> None:
    ended = run("import hubbub", HUBBUB_WORKER=value)
    assert ended.stderr == (
        "hubbub: HUBBUB_WORKER is set, but not by a master of this process; the number of workers is HUBBUB_WORKERS\n"
    )
    assert ended.returncode == 1


def test_a_pipe_that_no_master_has_written_to_is_not_waited_for() -> None:
    source, sink = os.pipe()
    with open(source), open(sink, "w"):
        ended = run("import hubbub", source, HUBBUB_WORKER=str(source))
    assert "HUBBUB_WORKER is set" in ended.stderr
    assert ended.returncode == 1


def run_worker(code: str, **values: object) -> "subprocess.CompletedProcess[str]":
    """Run Python with an assignment that has these values."""
    source, sink = os.pipe()
    with open(source), open(sink, "w") as file:
        print(json.dumps(asdict(ASSIGNMENT) | {"link": 0, "registry": 1, **values}), file=file, flush=True)
        return run(code, source, HUBBUB_WORKER=str(source))


def test_a_worker_whose_master_is_gone_ends_at_import() -> None:
    assert run_worker("import hubbub; print('still there')", master=os.getpid() + 1).stdout == ""


def test_a_worker_takes_its_assignment_out_of_the_environment() -> None:
    code = """
import os, signal, sys
from hubbub import program
assert program.assignment.worker_id == 1
assert "HUBBUB_WORKER" not in os.environ
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGHUP)
sys.exit(7)
"""
    ended = run_worker(code, master=os.getpid())
    assert (ended.returncode, ended.stderr) == (7, "")


@pytest.mark.parametrize(
    ("error", "status", "errors"),
    [
        ("None", 0, ""),
        ("SystemExit()", 0, ""),
        ("SystemExit(7)", 7, ""),
        ("SystemExit('sorry')", 1, "sorry\n"),
        ("KeyError('what')", 1, "KeyError: 'what'\n"),
    ],
)
def test_a_worker_leaves_as_python_ends(error: str, status: int, errors: str) -> None:
    ended = run(f"""
import atexit
from hubbub import program
atexit.register(lambda: print("atexit"))
try:
    program.leave({error})
finally:
    print("it went on")
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "atexit\n", errors)


def test_where_the_system_does_not_tell_a_watcher_ends_the_worker() -> None:
    assert run(f"from hubbub import program; program._watch({os.getpid()} + 1)").returncode == -signal.SIGKILL


def test_start_only_marks_the_server_while_it_is_imported() -> None:
    server = Server()
    with program.importing() as marked:
        server.start()
    assert marked == [server]


def test_signals_are_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    came: list[int] = []
    with program.handling_signals({signal.SIGTERM: lambda number, frame: came.append(number)}):
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
