"""The browser client in Node 22, whose WebSocket fires `error` but not `close` if it cannot connect."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from hubbub import Server
from ports import free_port

HERE = Path(__file__).parent / "node22"
PATIENCE = 30


@pytest.fixture(scope="module")
def node_22(unavailable: Callable[[str], NoReturn]) -> str:
    """The path of Node 22, installed by npm, because the Node on the PATH may be newer."""
    made = HERE / "node_modules" / "made"
    lock = HERE / "package-lock.json"
    if not made.exists() or made.stat().st_mtime < lock.stat().st_mtime:
        npm = shutil.which("npm")
        if npm is None:
            unavailable("hubbub.js in Node 22: there is no npm to install it with")
        command = [npm, "ci", "--prefix", str(HERE), "--no-audit", "--no-fund"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if run.returncode != 0:
            unavailable(f"hubbub.js in Node 22: npm could not install it: {run.stderr.strip()}")
        made.parent.mkdir(exist_ok=True)
        made.touch()
    found = next(HERE.glob("node_modules/node-*/bin/node"), None)
    if found is None:
        unavailable(f"hubbub.js in Node 22: npm has none for this system ({os.uname().sysname} {os.uname().machine})")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    assert version.startswith("v22."), version
    return str(found)


class Client:
    """A running `comes_back.js`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout
        return (await self._process.stdout.readline()).decode().rstrip("\n")

    async def lines_up_to(self, last: str) -> list[str]:
        """Return the lines that it prints, up to this one."""
        lines = [await self.line()]
        while lines[-1] != last:
            assert lines[-1], f"it has ended without {last!r}: {lines}"
            lines.append(await self.line())
        return lines


@asynccontextmanager
async def connecting(node: str, port: int) -> AsyncIterator[Client]:
    """Run `comes_back.js` until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(node, str(HERE / "comes_back.js"), f"ws://127.0.0.1:{port}/"), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def greeter(port: int) -> Server:
    """Return a server that greets each client."""
    server = Server(port=port, control=None)
    server.on("open", lambda server, request: server.push(request.fd, "welcome"))
    return server


@pytest.mark.timeout(func_only=True)
async def test_it_comes_back_by_its_backoff_where_it_was_refused(node_22: str) -> None:
    # Bound, but not listening: connections are refused, and no other program can get the port.
    with socket.socket() as down:
        port = free_port()
        down.bind(("127.0.0.1", port))
        async with connecting(node_22, port) as client:
            # Its connectTimeout is an hour.
            assert await client.lines_up_to("waiting") == ["error", "waiting"]
            assert await client.lines_up_to("waiting") == ["connecting", "error", "waiting"]
            down.close()
            async with greeter(port):
                assert (await client.lines_up_to("welcome"))[-2:] == ["open", "welcome"]
                assert await client.lines_up_to("close") == ["closed", "close"]


@pytest.mark.timeout(func_only=True)
async def test_it_comes_back_by_its_backoff_where_the_handshake_was_refused(node_22: str) -> None:
    answers = [False, False, True]
    server = greeter(0)
    server.on("handshake", lambda server: answers.pop(0))
    async with server, connecting(node_22, server.port) as client:
        assert await client.lines_up_to("welcome") == [
            *("error", "waiting"),
            *("connecting", "error", "waiting"),
            *("connecting", "open", "welcome"),
        ]
