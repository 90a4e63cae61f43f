"""`hubbub run`: the right server, with the right settings, and with new code when it changes."""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from outside_server import PATIENCE

from hubbub import Publisher

APP = """
from hubbub import Server

server = Server(port=0, workers=2, max_message_size=1000, backlog=10)

@server.on("start")
def on_start(server):
    print("serving", server.settings.workers, server.settings.max_message_size, server.settings.backlog, flush=True)
    print("on port", server.port, flush=True)

@server.on("worker_start")
def on_worker_start(server, worker_id):
    print("worker", worker_id, VERSION, flush=True)

if __name__ != "app":
    raise ValueError("it is imported by its name")
VERSION = 1
server.start()
"""


class Running:
    """A running `hubbub run`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self._stdout: IO[str] = process.stdout

    def next_line(self) -> str:
        """Wait for the next line that it prints; it logs to the same place."""
        line = self._stdout.readline()
        assert line, "it has ended"
        return line.rstrip("\n")

    def wait_for(self, text: str) -> str:
        """Wait for a line that has the text in it, and return it."""
        while text not in (line := self.next_line()):
            pass
        return line

    def stop(self) -> None:
        """Stop it gracefully."""
        self.process.send_signal(signal.SIGTERM)
        self._stdout.read()
        assert self.process.wait(PATIENCE) == 0


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start `hubbub run`, with the app in `tmp_path`."""
    processes = []

    def run(*options: str, command: str = "run", **variables: str) -> Running:
        process = subprocess.Popen(
            [sys.executable, "-m", "hubbub", command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path)} | variables,
        )
        processes.append(process)
        return Running(process)

    (tmp_path / "app.py").write_text(APP)
    yield run
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def failure(run: Run, *options: str, **variables: str) -> tuple[int, str]:
    """Run to the end; return the exit status and what was printed."""
    process = run(*options, **variables).process
    out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out


# ---- which server, and how -------------------------------------------------------------------------------


def test_options_beat_variables_and_variables_beat_keywords(run: Run) -> None:
    options = ["--max-message-size", "2000", "--workers", "1"]
    server = run("app:server", *options, HUBBUB_MAX_MESSAGE_SIZE="3000", HUBBUB_BACKLOG="30")
    assert server.wait_for("serving") == "serving 1 2000 30"
    server.stop()


def test_a_switch_beats_the_variable_and_takes_no_other_word(run: Run) -> None:
    server = run("--access-log", "app:server", "--no-compression", "--workers", "1", HUBBUB_ACCESS_LOG="false")
    port = int(server.wait_for("on port").split()[-1])
    assert status_for(port, "localhost") == 426
    server.wait_for('"GET /" 426')
    server.stop()


def test_the_app_dir_is_where_the_module_is_looked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "deep" / "package").mkdir(parents=True)
    (tmp_path / "app.py").rename(tmp_path / "deep" / "app.py")
    (tmp_path / "deep" / "package" / "site.py").write_text("import app\nclass here: server = app.server\n")
    server = run("package.site:here.server", "--app-dir", "deep", "--workers", "1")
    assert server.wait_for("serving") == "serving 1 1000 10"
    server.stop()


def test_a_publisher_finds_it_by_its_path(run: Run, tmp_path: Path) -> None:
    server = run("app:server", "--control", "here.sock", "--workers", "1")
    server.wait_for("serving")
    with Publisher(tmp_path / "here.sock") as hub:
        assert hub.connections() == []
    server.stop()


def test_a_publisher_finds_it_by_its_port(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = run("app:server", "--workers", "1")
    port = int(server.wait_for("on port").split()[-1])
    with Publisher(port=port) as hub:
        assert hub.connections() == []
    server.stop()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("app", "'app' names neither a server nor an application: write MODULE:NAME"),
        ("app:", "'app:' names neither"),
        ("../app:server", "names neither"),
        ("missing:server", "there is no module 'missing'"),
        ("app.missing:server", "there is no module 'app.missing'"),
        ("app.py:server", "there is no module 'app.py'"),
        ("app:missing", "there is no missing in the module app"),
        (
            "app:VERSION",
            "app:VERSION is neither a Server nor an ASGI application: an object of type int is not callable",
        ),
        (
            "app:on_start",
            "app:on_start is neither a Server nor an ASGI application: function on_start takes one argument",
        ),
    ],
)
def test_what_names_no_server_is_one_line(run: Run, target: str, says: str) -> None:
    status, out = failure(run, target)
    assert status == 1
    assert re.fullmatch(rf"hubbub: .*{re.escape(says)}.*\n", out)


def test_a_setting_that_is_wrong_is_told(run: Run) -> None:
    status, out = failure(run, "app:server", "--backlog", "many")
    assert status == 2
    assert "backlog: 'many' (option --backlog) is not allowed" in out
    status, out = failure(run, "app:server", HUBBUB_BACKLOG="many")
    assert status == 1
    assert re.fullmatch(r"hubbub: backlog: 'many' \(variable HUBBUB_BACKLOG\) is not allowed.*\n", out)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f():\n    1 / 0\nf()\n", "ZeroDivisionError"),
        ("import missing_dependency\n", "No module named 'missing_dependency'"),
        ("this is no Python\n", "SyntaxError"),
    ],
)
def test_a_failure_of_the_app_is_its_traceback(run: Run, tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "app.py").write_text(code)
    status, out = failure(run, "app:server")
    assert status == 3
    assert says in out
    assert "app.py" in out
    assert "hubbub/cli.py" not in out
    assert "importlib" not in out


# ---- ASGI applications -----------------------------------------------------------------------------------

ASGI = """
import os
import hubbub

async def app(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    settings = hubbub.current_server().settings
    print("application", VERSION, settings.lifespan, settings.origins, settings.root_path, flush=True)
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print("application ends", flush=True)
    await send({"type": "lifespan.shutdown.complete"})

def make():
    return app

def make_server():
    server = hubbub.Server(app=app, origins="same", port=0)
    server.start()
    return server

def fail():
    raise LookupError("no configuration")

async def make_async():
    return app

VERSION = 1
"""


@pytest.fixture
def asgi(tmp_path: Path) -> Path:
    """The file of an application, asgi.py."""
    path = tmp_path / "asgi.py"
    path.write_text(ASGI)
    return path


@pytest.mark.usefixtures("asgi")
@pytest.mark.parametrize("options", [["asgi:app"], ["--factory", "asgi:make"]])
def test_an_application_is_served_with_the_settings_of_the_command_line(run: Run, options: list[str]) -> None:
    server = run(*options, "--port", "0", "--workers=1", "--lifespan", "on", "--root-path", "/api", "--proxy-headers")
    assert server.wait_for("application") == "application 1 on * /api"
    server.wait_for("listening on")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("application ends")
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("asgi")
def test_a_factory_may_make_a_server(run: Run) -> None:
    server = run("asgi:make_server", "--factory", "--workers", "1")
    assert server.wait_for("application") == "application 1 auto same "
    server.wait_for("listening on")
    server.stop()


@pytest.mark.usefixtures("asgi")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["asgi:make"], "asgi:make is neither a Server nor an ASGI application: function make takes no arguments"),
        (["asgi:app", "--factory"], "asgi:app is not a factory: function app needs arguments"),
        (["asgi:VERSION", "--factory"], "asgi:VERSION is not a factory: an object of type int is not callable"),
        (["asgi:make_async", "--factory"], "asgi:make_async is not a factory: function make_async is async"),
    ],
)
def test_what_makes_no_application_is_one_line(run: Run, options: list[str], says: str) -> None:
    status, out = failure(run, *options)
    assert status == 1
    assert re.fullmatch(rf"hubbub: {re.escape(says)}.*\n", out)


@pytest.mark.usefixtures("asgi")
def test_a_failure_of_the_factory_is_its_traceback(run: Run) -> None:
    status, out = failure(run, "--factory", "asgi:fail")
    assert status == 3
    assert "LookupError: no configuration" in out
    assert "asgi.py" in out
    assert "hubbub/cli.py" not in out


@pytest.mark.usefixtures("asgi")
def test_an_application_that_cannot_start_is_status_3(run: Run, asgi: Path) -> None:
    asgi.write_text(ASGI.replace("startup.complete", "startup.failed"))
    status, out = failure(run, "asgi:app", "--port", "0")
    assert status == 3
    assert "the application cannot start" in out


def test_workers_are_replaced_when_the_code_of_the_application_changes(run: Run, asgi: Path, tmp_path: Path) -> None:
    listed = tmp_path / "listed"
    listed.mkdir()
    options = ["--port", "0", "--workers", "1", "--reload", "--reload-dir", str(listed)]
    server = run("asgi:app", *options)
    server.wait_for("application 1")
    server.wait_for("listening on")
    asgi.write_text(ASGI.replace("VERSION = 1", "VERSION = 2"))
    server.wait_for("application 2")
    server.wait_for("reloaded")
    (listed / "page.html").write_text("new")
    server.wait_for("application 2")
    server.wait_for("reloaded")
    server.stop()


# ---- which hosts a developer's server is for ---------------------------------------------------------------


def status_for(port: int, host: str) -> int:
    """Ask for / of that host, and return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status


@pytest.mark.parametrize(
    ("options", "variables", "foreign"),
    [
        # Only this machine can reach the address, but so can a page whose own name resolves to it.
        (["--reload"], {}, 400),
        (["--reload", "--host", "localhost"], {}, 400),
        (["--reload", "--allowed-hosts", "none"], {}, 426),
        (["--reload", "--allowed-hosts", "localhost,*.example,127.0.0.1"], {}, 426),
        (["--reload"], {"HUBBUB_ALLOWED_HOSTS": "none"}, 426),
        ([], {}, 426),
    ],
)
def test_with_reload_on_loopback_only_its_names_are_served(
    run: Run, options: list[str], variables: dict[str, str], foreign: int
) -> None:
    server = run("app:server", "--workers", "1", *options, **variables)
    port = int(server.wait_for("on port").split()[-1])
    assert status_for(port, f"rebound.example:{port}") == foreign
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}"):
        assert status_for(port, host) == 426
    server.stop()


def test_what_the_program_says_of_hosts_counts_with_reload_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.replace("port=0", "port=0, allowed_hosts=['rebound.example']"))
    server = run("app:server", "--reload", "--workers", "1")
    port = int(server.wait_for("on port").split()[-1])
    assert status_for(port, "rebound.example") == 426
    assert status_for(port, "localhost") == 400
    server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001"])
def test_the_demo_on_loopback_serves_its_names_only(run: Run, host: str) -> None:
    server = run("--host", host, "--port", "0", "--workers", "1", command="demo")
    port = int(re.findall(r":([0-9]+)/", server.wait_for("Open http"))[0])
    assert status_for(port, f"rebound.example:{port}") == 400
    for name in (host, "localhost", "chat.localhost", "127.0.0.1", "[::1]"):
        assert status_for(port, f"{name}:{port}") == 200
    server.stop()


# ---- reloading -------------------------------------------------------------------------------------------


def test_workers_are_replaced_when_the_code_changes(run: Run, tmp_path: Path) -> None:
    server = run("app:server", "--reload", "--workers", "1")
    server.wait_for("worker 0 1")
    server.wait_for("serving")
    app = tmp_path / "app.py"
    app.write_text(APP.replace("VERSION = 1", "VERSION ="))
    assert "app.py" in server.wait_for("changed: ")
    server.wait_for("SyntaxError")
    server.wait_for("the reload failed")
    app.write_text(APP.replace("VERSION = 1", "VERSION = 2"))
    server.wait_for("worker 0 2")
    server.stop()


def test_files_of_other_directories_count_if_they_are_listed(run: Run, tmp_path: Path) -> None:
    listed, other = tmp_path / "listed", tmp_path / "other"
    for directory in (listed, other):
        directory.mkdir()
        (directory / "page.html").write_text("old")
    server = run("app:server", "--reload", "--workers", "1", "--reload-dirs", str(listed))
    server.wait_for("worker 0 1")
    server.wait_for("serving")
    (other / "page.html").write_text("new")
    (listed / ".hidden.swp").write_text("new")
    (listed / "page.html").write_text("new")
    assert server.wait_for("changed: ").endswith(f"changed: {Path('listed', 'page.html')}")
    server.wait_for("worker 0 1")
    server.stop()


def test_a_listed_directory_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    told = f"hubbub: reload_dirs: {str(nowhere)!r} is not a directory\n"
    assert failure(run, "app:server", "--reload", "--reload-dirs", str(nowhere)) == (1, told)
