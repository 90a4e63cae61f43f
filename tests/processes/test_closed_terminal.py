"""The terminal that a server was started in: closing it stops the server, and a SIGHUP by hand reloads it."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from launched import LIFE, Launched, ProgramFile, Run, ask, gone, until
from websockets.asyncio.client import connect

from ports import refuses_connections

# Events go to a file too: the terminal will be gone.
TELL_TO_FILE = """
def tell(*values):
    print(*values, flush=True)
    with open("events", "a") as file:
        file.write(" ".join(map(str, values)) + "\\n")
"""
PRINTS = """
@server.on("message")
def on_message(server, frame):
    print("to the terminal:", frame.data)
    server.push(frame.fd, str(eval(frame.data)))
"""


class Terminal:
    """A terminal that is closed with its window."""

    def __init__(self) -> None:
        self._window, self.side_of_programs = pty.openpty()
        self.is_open = True

    def type(self, text: str) -> None:
        os.write(self._window, text.encode())

    def read_on(self) -> None:
        """Read the output, or programs would block."""
        asyncio.get_running_loop().add_reader(self._window, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._window, 65536)

    def close(self) -> None:
        """Close the window."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._window)
            os.close(self._window)
            os.close(self.side_of_programs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    if terminal.is_open:
        os.close(terminal._window)
        os.close(terminal.side_of_programs)


Begin = Callable[..., "asyncio.Future[asyncio.subprocess.Process]"]


@pytest.fixture
async def begin(terminal: Terminal, tmp_path: Path) -> AsyncIterator[Begin]:
    """Run a command as the leader of the terminal's session; what remains of the session ends with the test."""
    processes: list[asyncio.subprocess.Process] = []

    async def begin(*command: str | Path, **environ: str) -> asyncio.subprocess.Process:
        streams = terminal.side_of_programs
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=streams,
            stdout=streams,
            stderr=streams,
            cwd=tmp_path,
            env=os.environ | environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        processes.append(process)
        terminal.read_on()
        return process

    yield begin  # type: ignore[misc]
    for process in processes:
        for pid in session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


class Events:
    """The events that the program has reported."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "events"

    def all(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    async def wait_for(self, text: str, count: int = 1) -> str:
        """Wait for so many lines that begin with `text`, and return the last of them."""
        await until(lambda: sum(line.startswith(text) for line in self.all()) >= count)
        return [line for line in self.all() if line.startswith(text)][count - 1]

    async def port(self) -> int:
        return int((await self.wait_for("port ")).split()[1])


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(tmp_path)


@pytest.fixture
def in_terminal(program: ProgramFile) -> ProgramFile:
    """A program with two workers."""
    program.write(TELL_TO_FILE + "server = new_server(workers=2)\n" + LIFE + PRINTS)
    return program


def client_of(port: int) -> connect:
    return connect(f"ws://127.0.0.1:{port}", proxy=None, ping_interval=None, compression=None)


STARTS = {
    "it leads the session": [sys.executable, "app.py"],
    "a shell without job control": ["dash", "-c", f"{sys.executable} app.py; true"],
    "a shell that passes SIGHUP on": ["bash", "--norc", "--noprofile", "-i"],
    "in the background": ["bash", "--norc", "--noprofile", "-i"],
    "hubbub run --reload": [sys.executable, "-m", "hubbub", "run", "app:server", "--reload"],
}


async def begin_as(start: str, begin: Begin, terminal: Terminal) -> asyncio.subprocess.Process:
    leader = await begin(*STARTS[start], PS1="$ ")
    if STARTS[start][-1] == "-i":
        terminal.type(f"{sys.executable} app.py{' &' if start == 'in the background' else ''}\n")
    return leader


@pytest.mark.parametrize("start", STARTS)
async def test_closing_it_is_a_graceful_stop(
    start: str, begin: Begin, terminal: Terminal, in_terminal: ProgramFile, events: Events
) -> None:
    leader = await begin_as(start, begin, terminal)
    port = await events.port()
    async with client_of(port) as client:
        master = int(await ask(client, "os.getppid()"))
        terminal.close()
        await client.wait_closed()
        assert client.close_code == 1001
    await events.wait_for("shutdown")
    status = await leader.wait()
    await until(lambda: not session(leader.pid))
    await refuses_connections(port)
    told = events.all()
    end = told[told.index(f"port {port}") + 1 :]
    assert sorted(end[:3]) == ["close 1001", "worker_stop 0", "worker_stop 1"]
    if start == "hubbub run --reload":
        assert end[3:] == ["shutdown"]
    else:
        assert end[3:] == ["shutdown", "start() has returned"]
    if leader.pid == master:
        assert status == 0


@pytest.mark.parametrize("start", STARTS)
async def test_sighup_while_it_is_there_is_a_reload(
    start: str, begin: Begin, terminal: Terminal, in_terminal: ProgramFile, events: Events
) -> None:
    leader = await begin_as(start, begin, terminal)
    port = await events.port()
    async with client_of(port) as client:
        master = int(await ask(client, "os.getppid()"))
        os.kill(master, signal.SIGHUP)
        await client.wait_closed()
        assert client.close_code == 1012
    # Until this, the second of the old workers still accepts connections.
    await events.wait_for("worker_stop 1")
    async with client_of(port) as client:
        assert await ask(client, "os.getppid()") == str(master)
        terminal.close()
        await client.wait_closed()
        assert client.close_code in (1001, 1012)
    await events.wait_for("shutdown")
    await leader.wait()
    await until(lambda: not session(leader.pid))


async def test_without_one_sighup_is_a_reload(tmp_path: Path, in_terminal: ProgramFile, events: Events) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "app.py",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        async with client_of(await events.port()) as client:
            await ask(client, "1")
            process.send_signal(signal.SIGHUP)
            await client.wait_closed()
            assert client.close_code == 1012
        await events.wait_for("worker_start", 4)
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_under_nohup_the_server_outlives_it(
    begin: Begin, terminal: Terminal, in_terminal: ProgramFile, events: Events
) -> None:
    leader = await begin("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    terminal.type(f"nohup {sys.executable} app.py >/dev/null 2>&1 &\n")
    port = await events.port()
    async with client_of(port) as client:
        master = int(await ask(client, "os.getppid()"))
        terminal.close()
        await leader.wait()
        assert await ask(client, "1 + 1") == "2"
        os.kill(master, signal.SIGTERM)
        await client.wait_closed()
    await gone(master)
    assert events.all()[-1] == "start() has returned"


async def test_closing_it_stops_a_server_in_one_process(
    begin: Begin, terminal: Terminal, program: ProgramFile, events: Events
) -> None:
    program.write(TELL_TO_FILE + "server = new_server(workers=1)\n" + LIFE + PRINTS)
    leader = await begin("bash", "-c", f"exec {sys.executable} - < app.py")
    async with client_of(await events.port()) as client:
        assert await ask(client, "1 + 1") == "2"
        terminal.close()
        await client.wait_closed()
        assert client.close_code == 1001
    assert await leader.wait() == 0
    assert events.all()[-4:] == ["close 1001", "worker_stop 0", "shutdown", "start() has returned"]


async def test_sighup_to_a_server_in_one_process_is_refused_in_the_log(run: Run) -> None:
    launched = await in_one_process(run)
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("cannot reload")
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


async def in_one_process(run: Run) -> Launched:
    launched = await run("-")
    assert launched.process.stdin
    launched.process.stdin.write(dedent(ONE_PROCESS).encode())
    launched.process.stdin.close()
    await launched.serves()
    return launched


ONE_PROCESS = """
from hubbub import Server
server = Server(port=0, workers=1)
server.on("message", lambda server, frame: server.push(frame.fd, str(eval(frame.data))))
server.on("start", lambda server: print("port", server.port, flush=True))
server.start()
"""
