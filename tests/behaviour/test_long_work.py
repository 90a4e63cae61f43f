"""The event loop keeps running while the reactor has much to do: long work is done in slices."""

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from application import Note
from running import Running, Serve

from hubbub import Server

CLIENTS = 6_000
# Long enough that writing it to all of them takes several slices on any machine.
MESSAGE = b"x" * 48 * 1024
FRAME = len(MESSAGE) + 4
TOPICS = 400_000
# Rounds of the loop that take less time than this do not count as slices.
ROUND = 0.001


def keeps_fds(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))


async def slices(until: Awaitable[object]) -> list[float]:
    """Return how long the loop's thread worked between rounds of the loop, in seconds of its CPU time."""
    waiting = asyncio.ensure_future(until)
    found = []
    last = time.thread_time()
    while not waiting.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        if now - last > ROUND:
            found.append(now - last)
        last = now
    await waiting
    return found


@asynccontextmanager
async def crowd(running: Running, expected: int) -> AsyncIterator[tuple[list[int], Callable[[], Awaitable[None]]]]:
    """Connect thousands of clients; yield their ids, and a function that waits until each has received its bytes."""
    pipe = asyncio.subprocess.PIPE
    program = Path(__file__).with_name("crowd.py")
    arguments = (str(running.port), str(CLIENTS), str(expected))
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), *arguments, stdin=pipe, stdout=pipe)
    assert process.stdout

    async def said(line: bytes) -> None:
        assert process.stdout
        assert await process.stdout.readline() == line + b"\n"

    try:
        await said(b"connected")
        yield [(await running.noted())[0] for _ in range(CLIENTS)], lambda: said(b"received")
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def many_files() -> None:
    """Let this process and its children have as many descriptors as the tests here need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > CLIENTS + 500, f"ulimit -Hn is too low: {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("call", ["publish", "broadcast", "push", "push and publish"])
async def test_the_loop_runs_on_while_thousands_are_sent_something(serve_here: Serve, call: str) -> None:
    running = await serve_here(keeps_fds, ping_interval=None)

    def send(server: Server, note: Note) -> None:
        if call == "broadcast":
            server.broadcast(MESSAGE)
        elif call == "publish":
            server.publish("news", MESSAGE)
        elif call == "push and publish":
            server.publish("news", b"")
            server.push(fds[0], b"")
            server.publish("news", MESSAGE)
        else:
            for fd in fds:
                server.push(fd, MESSAGE)

    async with crowd(running, FRAME) as (fds, received):
        for fd in fds:
            assert await running.server.subscribe(fd, "news")
        await running.server.run(send)
        found = await slices(received())
    assert max(found) < sum(found) / 3, found


async def test_the_loop_runs_on_while_a_connection_with_many_topics_ends(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note(request.fd))
        server.on("close", lambda server, fd: note("closed", fd))

    running = await serve_here(application, max_topics=TOPICS)
    server = running.server
    async with running.connect() as client, running.connect():
        fd, other = (await running.noted())[0], (await running.noted())[0]

        def subscribe(server: Server, note: Note) -> None:
            for number in range(TOPICS):
                server.subscribe(fd, f"topic {number}")
            server.subscribe(other, "topic 7")

        await server.run(subscribe)
        assert await server.subscribers("topic 7") == 2

        async def end() -> None:
            await server.disconnect(fd)
            # The connection no longer counts as a subscriber, although forgetting all its topics takes long.
            assert await server.subscribers("topic 7") == 1
            assert await server.subscribers("topic 8") == 0
            await client.wait_closed()
            assert await running.noted() == ("closed", fd)
            async with running.connect():
                # A new connection must not be mistaken for the old one, whose place it gets.
                newcomer = (await running.noted())[0]
                assert await server.subscribers("topic 8") == 0
                await server.publish("topic 9", "for nobody")
                await server.push(newcomer, "the end")
                for _ in range(100):
                    await asyncio.sleep(0)

        found = await slices(end())
    assert max(found) < sum(found) / 3, found
