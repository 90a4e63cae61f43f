"""Runs blocks of the docs as a reader would: as separate programs, servers or others."""

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from snippets import Snippet, source
from websockets.asyncio.client import connect

LISTENING = re.compile(r"listening on \S+ port (\d+)")
SECONDS_TO_START = 30
SECONDS_TO_STOP = 15


class Running:
    """A running server program, with its output and log."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        assert process.stdout
        self.process = process
        self.directory = directory
        self.port = 0
        self.lines: list[str] = []
        self._seen = 0
        self._more = asyncio.Condition()
        self._reader = asyncio.ensure_future(self._read(process.stdout))

    def connect(self, path: str = "/", **options: Any) -> connect:
        """Return a client, of the package `websockets`, that has not connected yet."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", **{"proxy": None, **options})

    async def printed(self, text: str) -> str:
        """Wait for a line that has `text` in it, and return it; the next call searches after it."""
        async with self._more:
            while True:
                while self._seen < len(self.lines):
                    self._seen += 1
                    if text in self.lines[self._seen - 1]:
                        return self.lines[self._seen - 1]
                assert not self._reader.done(), f"the program printed no {text!r} but {self.lines}"
                await self._more.wait()

    async def accepts(self) -> None:
        """Poll until something listens on the port."""
        while self.process.returncode is None:
            with suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the program ended with status {self.process.returncode}: {self.lines}")

    async def end(self) -> None:
        """Stop it as Ctrl-C does, or by force if it does not stop."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(SECONDS_TO_STOP):
                await self.process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self._reader

    async def _read(self, stream: asyncio.StreamReader) -> None:
        try:
            while line := await stream.readline():
                await self._tell(line.decode(errors="replace").rstrip("\n"))
        finally:
            async with self._more:
                self._more.notify_all()

    async def _tell(self, line: str) -> None:
        async with self._more:
            self.lines.append(line)
            self._more.notify_all()


@asynccontextmanager
async def serving(
    *snippets: Snippet,
    arguments: Sequence[str] = ("app.py",),
    port: int | None = None,
    begin: str = "",
    end: str = "",
    replacing: Mapping[str, str] = {},
    files: Mapping[str, str] = {},
    environ: Mapping[str, str] = {},
) -> AsyncIterator[Running]:
    """Run blocks as the program `app.py`, in a directory of their own, until the end of the block.

    Args:
        snippets: The blocks that make up `app.py`, in order.
        arguments: The arguments of Python: `("-m", "hubbub", "run", "app:server")` runs it in another way.
        port: The port that it listens on. With `None`, a variable makes Hubbub choose a free port, which it logs. For
            other servers, use `free_port()`, and put it into the program with `replacing`, or into `arguments`.
        begin: Lines above the blocks, for names that the page assumes.
        end: Lines below the blocks, such as `server.start()`.
        replacing: Texts to replace in the blocks; each must occur once.
        files: Other files of the directory, by name.
        environ: Variables of the environment.
    """
    program = begin + source(snippets, replacing) + end
    async with _started(program, arguments, files, {"HUBBUB_PORT": "0", **environ}) as running:
        async with asyncio.timeout(SECONDS_TO_START):
            if port is None:
                match = LISTENING.search(await running.printed("listening on "))
                assert match, running.lines
                running.port = int(match[1])
            else:
                running.port = port
                await running.accepts()
        yield running


async def output_of(
    *snippets: Snippet,
    begin: str = "",
    end: str = "",
    replacing: Mapping[str, str] = {},
    files: Mapping[str, str] = {},
    environ: Mapping[str, str] = {},
) -> str:
    """Run blocks as a program that ends by itself, without an error; return its output.

    The arguments are those of `serving`.
    """
    program = begin + source(snippets, replacing) + end
    async with _started(program, ("app.py",), files, environ) as running:
        status = await running.process.wait()
        await running._reader
        assert status == 0, running.lines
        return "\n".join(running.lines)


@asynccontextmanager
async def _started(
    program: str, arguments: Sequence[str], files: Mapping[str, str], environ: Mapping[str, str]
) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file, text in {"app.py": program, **files}.items():
            (directory / file).write_text(text, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )
        running = Running(process, directory)
        try:
            yield running
        finally:
            await running.end()
