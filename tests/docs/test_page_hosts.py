"""The programs of docs/hosts.md, each as two servers on two ports, with a Redis."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from as_process import SECONDS_TO_START, Running, serving
from snippets import Snippet, shows

PAGE = "docs/hosts.md"


@pytest.fixture
def broker(installed: Callable[..., str]) -> Iterator[str]:
    """A Redis that keeps nothing; the value for `broker`."""
    program = installed("redis-server", package="redis-server")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "redis.sock")
        command = (program, "--port", "0", "--unixsocket", str(path), "--dir", directory, "--save", "")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as redis:
            try:
                deadline = time.monotonic() + SECONDS_TO_START
                while not path.exists():
                    assert redis.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                yield f"redis+unix://{path}"
            finally:
                redis.terminate()


async def two_servers(stack: AsyncExitStack, broker: str, *snippets: Snippet, **how: Any) -> list[Running]:
    """Run a program twice; each takes a worker only."""
    environ = {"HUBBUB_WORKERS": "1", "HUBBUB_BROKER": broker}
    return [await stack.enter_async_context(serving(*snippets, environ=environ, **how)) for _ in range(2)]


@shows(PAGE, "Several hosts")
async def test_a_chat_over_two_servers(snippets: list[Snippet], broker: str) -> None:
    program, *_ = snippets
    async with AsyncExitStack() as stack:
        one, other = await two_servers(stack, broker, program)
        async with one.connect() as first:
            await first.send("hello")
            assert await first.recv() == "hello"
            async with other.connect() as second:
                assert await second.recv() == "hello"
                await second.send("and hello to you")
                assert await first.recv() == "and hello to you"


@shows(PAGE, "What is different from one host")
async def test_the_connections_of_both_servers_are_counted(snippets: list[Snippet], broker: str) -> None:
    end = """
server = Server()


@server.on("message")
async def answer(server: Server, frame: Frame) -> None:
    server.push(frame.fd, await count(server))


server.start()
"""
    async with AsyncExitStack() as stack:
        one, other = await two_servers(
            stack, broker, *snippets, begin="from hubbub import Frame, Server\n\n\n", end=end
        )
        async with one.connect() as first, other.connect():
            async with asyncio.timeout(SECONDS_TO_START):
                answer = ""
                # Each server has to hear of the other first.
                while answer != "2 connections on all hosts; silent: []":
                    await first.send("how many?")
                    answer = str(await first.recv())
