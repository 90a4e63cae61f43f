"""Programs that serve, as separate processes with everything that they start."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect

# The beginning and end of every program. It prints its events line by line. A message is an expression, evaluated in
# the worker that owns the connection; the answer is its value. A program with other handlers for messages creates
# another server with `server = new_server(...)`.
BEGIN = """
import asyncio, ctypes, os, signal, sys, threading, time
from hubbub import NotRunning, Server

def tell(*values):
    # A line in one piece, for several processes write.
    os.write(1, (" ".join(map(str, values)) + "\\n").encode())

def on_start(server):
    tell("port", server.port)

def on_message(server, frame):
    server.push(frame.fd, str(eval(frame.data)))

def new_server(**settings):
    server = Server(port=0, **settings)
    server.on("start", on_start)
    return server

server = new_server(**SETTINGS)
server.on("message", on_message)
"""
END = """
server.start()
tell("start() has returned")
"""
LIFE = """
server.on("worker_start", lambda server, worker_id: tell("worker_start", worker_id))
server.on("worker_stop", lambda server, worker_id: tell("worker_stop", worker_id))
server.on("shutdown", lambda server: tell("shutdown"))
server.on("close", lambda server, fd, code: tell("close", code))
"""
LIFE_BUT_START = LIFE.replace(
    'server.on("worker_start", lambda server, worker_id: tell("worker_start", worker_id))\n', ""
)
BLOCK = """
def block():
    tell("blocks")
    time.sleep(3600)
"""


def source(lines: str = "", **settings: object) -> str:
    """Return a program that consists of BEGIN, its own lines, and END."""
    return f"SETTINGS = {settings!r}\n{BEGIN}\n{textwrap.dedent(lines)}\n{END}"


class ProgramFile:
    """A program in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def write(self, lines: str = "", **settings: object) -> None:
        """Write `source(lines, **settings)` into it."""
        self.write_text(source(lines, **settings))

    def write_text(self, text: str) -> None:
        """Write this text into it."""
        self.path.write_text(text)

    def change(self, old: str, new: str) -> None:
        """Replace a text in it."""
        text = self.path.read_text()
        assert old in text
        self.write_text(text.replace(old, new))


class Lines:
    """The output of a process, line by line; a line that was waited for is not found again."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self.all: list[str] = []
        self._seen = 0
        self._more = asyncio.Condition()
        self._ended = False
        self._reader = asyncio.ensure_future(self._read(stream))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            async with self._more:
                self.all.append(line.decode(errors="replace").rstrip("\n"))
                self._more.notify_all()
        async with self._more:
            self._ended = True
            self._more.notify_all()

    async def wait_for(self, text: str) -> str:
        """Wait for a line that has `text` in it, and return it."""
        async with self._more:
            while True:
                while self._seen < len(self.all):
                    self._seen += 1
                    if text in self.all[self._seen - 1]:
                        return self.all[self._seen - 1]
                assert not self._ended, f"there came no {text!r}, but {self.all}"
                await self._more.wait()

    async def to_the_end(self) -> list[str]:
        """Wait for the end; return all lines."""
        await self._reader
        return self.all


class Launched:
    """A program that was started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        assert process.stderr
        self.process = process
        self.told = Lines(process.stdout)
        self.log = Lines(process.stderr)
        self.port = 0

    async def serves(self) -> None:
        """Wait until its `start` handler prints the port."""
        waiting = asyncio.ensure_future(self.told.wait_for("port "))
        ending = asyncio.ensure_future(self.process.wait())
        await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not waiting.done() and not self.told.all:
            waiting.cancel()
            raise AssertionError(await self.log.to_the_end())
        self.port = int((await waiting).split()[1])

    def connect(self, **options: Any) -> connect:
        """Return a client."""
        options = {"proxy": None, "ping_interval": None, "compression": None, **options}
        return connect(f"ws://127.0.0.1:{self.port}", **options)

    @contextlib.asynccontextmanager
    async def connect_to(self, worker_id: int) -> AsyncIterator[ClientConnection]:
        """Connect until a connection belongs to that worker; the other connections stay open."""
        async with AsyncExitStack() as stack:
            while True:
                client = await stack.enter_async_context(self.connect())
                if await ask(client, "server.worker_id") == str(worker_id):
                    yield client
                    return

    def workers(self) -> dict[int, int]:
        """Return the pids of the processes that have a worker's title, by the worker's number."""
        found = {}
        for pid in children(self.process.pid):
            words = title(pid).split()
            if words[:2] == ["hubbub:", "worker"]:
                found[int(words[2])] = pid
        return found

    async def status(self) -> int:
        """Wait for its end, and return its exit status."""
        return await self.process.wait()

    async def stop(self) -> None:
        """Stop it with SIGTERM; it must end properly."""
        self.process.terminate()
        assert await self.status() == 0, self.log.all


class Launch(Protocol):
    """The fixture `launch`: starts `source(lines, **settings)`, which ends with the test if not before."""

    async def __call__(self, lines: str = "", **settings: object) -> Launched: ...


class Run(Protocol):
    """The fixture `run`: starts Python with arguments, in the test's directory; it ends with the test if not before."""

    async def __call__(self, *arguments: str | Path, pass_fds: Sequence[int] = (), **environ: str) -> Launched: ...


async def start(
    *arguments: str | Path, cwd: Path | None = None, pass_fds: Sequence[int] = (), **environ: str
) -> Launched:
    """Run Python with `arguments`, in a process group of its own, as a shell does; it inherits `pass_fds`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        process_group=0,
        cwd=cwd,
        pass_fds=pass_fds,
        env=os.environ | environ,
    )
    return Launched(process)


async def end(launched: Launched) -> None:
    """Kill it if it still runs; its workers have to die with it."""
    if launched.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            launched.process.kill()
    await launched.process.wait()
    # The workers have its pipes too, so the pipes end with the last worker.
    await launched.told.to_the_end()
    await launched.log.to_the_end()


async def ask(client: ClientConnection, expression: str) -> str:
    """Evaluate an expression in the worker that owns the connection."""
    await client.send(expression)
    answer = await client.recv()
    assert isinstance(answer, str)
    return answer


async def until(condition: Callable[[], bool]) -> None:
    """Poll until something has happened in another process."""
    holds = condition()
    while not holds:
        await asyncio.sleep(0.01)
        holds = condition()


async def gone(pid: int) -> None:
    """Wait until there is no such process, not even a zombie."""
    await until(lambda: not Path(f"/proc/{pid}").exists())


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started itself."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        # A thread may end meanwhile; one that has children does not.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, (task / "children").read_text().split())


def title(pid: int) -> str:
    """The title of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    except OSError:
        return ""


def signal_group(launched: Launched, number: signal.Signals) -> None:
    """Send a signal to a program and everything it has started, as a terminal does."""
    os.killpg(launched.process.pid, number)
