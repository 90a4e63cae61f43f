"""Workers whose event loop is blocked: the log names them and the blocking code; if configured, they are replaced."""

import asyncio
import ctypes
import logging
import os
import re
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest
from launched import Launch, Launched, ProgramFile, Run, ask, gone, until
from test_metrics import scrape
from test_metrics import until as until_scraped

from hubbub import Server
from ports import free_port

# Long enough that a worker on a busy machine does not seem stuck.
STUCK_AFTER = 1.5

# Ways to block; each ends when something is written to the FIFO.
WAYS = """
def spin():
    fifo = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    while True:
        try:
            if os.read(fifo, 1):
                return "done"
        except BlockingIOError:
            pass

def hold():
    # A call that keeps the interpreter to itself.
    fifo = os.open("fifo", os.O_RDWR)
    ctypes.PyDLL(None).read(fifo, ctypes.create_string_buffer(1), 1)
    return "done"

async def spin_in_task():
    await asyncio.sleep(0.01)
    spin()

tasks = []

def begin_task():
    tasks.append(asyncio.ensure_future(spin_in_task()))

def begin_timer():
    server.after(0.01, spin)
"""


def release(directory: Path) -> None:
    """Release whatever reads the FIFO."""
    with (directory / "fifo").open("wb") as fifo:
        fifo.write(b"x")


async def health(launched: Launched) -> str:
    def get() -> str:
        with urlopen(f"http://127.0.0.1:{launched.port}/health", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


async def is_marked(metrics: int, value: int) -> None:
    """Wait until the metric of worker 1 has a value."""
    await until_scraped(metrics, lambda samples: samples['hubbub_worker_stuck{worker="1"}'] == value)


@pytest.mark.parametrize(
    ("way", "place"),
    [
        ("spin()", r"in the message handler, __main__\.on_message, line \d+, at .*app\.py, line \d+ \(spin\)"),
        ("begin_timer()", r"in .*app\.py, line \d+ \(spin\)"),
        ("begin_task()", r"in .*app\.py, line \d+ \(spin\)"),
        ("hold()", "its process is stopped, or a call is holding the interpreter"),
    ],
)
async def test_a_loop_that_stands_still_is_named_once_and_when_it_moves_again(
    launch: Launch, tmp_path: Path, way: str, place: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    metrics = free_port()
    launched = await launch(WAYS, workers=2, stuck_after=STUCK_AFTER, metrics_port=metrics)
    async with launched.connect_to(1) as client, launched.connect_to(0) as other:
        pid = launched.workers()[1]
        await client.send(way)
        name = f"worker 1 (pid {pid})"
        line = await launched.log.wait_for(f"{name} is stuck")
        assert re.search(place, line), line
        await is_marked(metrics, 1)
        assert (await scrape(metrics))['hubbub_worker_stuck{worker="0"}'] == 0
        assert await health(launched) == "ok"
        assert await ask(other, "1 + 1") == "2"
        async with AsyncExitStack() as stack:
            for _ in range(5):
                newcomer = await stack.enter_async_context(launched.connect())
                assert await ask(newcomer, "server.worker_id") == "0"
        await asyncio.to_thread(release, tmp_path)
        await launched.log.wait_for(f"{name} is running again")
        await is_marked(metrics, 0)
        assert await client.recv() in ("done", "None")
    await launched.stop()
    # The other worker was idle meanwhile, and was not reported as stuck.
    assert sum("stuck" in each for each in launched.log.all) == 1
    assert sum("is running again" in each for each in launched.log.all) == 1


async def test_a_stopped_worker_is_named_once_and_when_it_moves_again(launch: Launch) -> None:
    launched = await launch(workers=2, stuck_after=STUCK_AFTER)
    pid = launched.workers()[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        line = await launched.log.wait_for(f"worker 1 (pid {pid}) is stuck")
        assert "its process is stopped" in line
    finally:
        os.kill(pid, signal.SIGCONT)
    await launched.log.wait_for(f"worker 1 (pid {pid}) is running again")
    async with launched.connect_to(1) as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()
    assert sum("stuck" in each for each in launched.log.all) == 1


@pytest.mark.parametrize("way", ["spin()", "os.kill(os.getpid(), signal.SIGSTOP)"])
async def test_a_stuck_worker_is_replaced_if_that_is_wanted(launch: Launch, tmp_path: Path, way: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    launched = await launch(WAYS, workers=2, stuck_after=STUCK_AFTER, stuck_restart=True)
    pid = launched.workers()[1]
    async with launched.connect_to(1) as client, launched.connect_to(0) as other:
        await client.send(way)
        await launched.log.wait_for(f"worker 1 (pid {pid}) is stuck")
        await launched.log.wait_for(f"killing worker 1 (pid {pid}) because it is stuck")
        await gone(pid)
        await until(lambda: launched.workers().get(1, pid) != pid)
        async with launched.connect_to(1) as newcomer:
            assert await ask(newcomer, "1 + 1") == "2"
        assert await ask(other, "1 + 1") == "2"
    await launched.stop()


START = """
server = Server(port=0, **SETTINGS)
server.on("message", on_message)

@server.on("worker_start")
async def begin(server, worker_id):
    if worker_id == 1 and os.path.exists("fifo"):
        spin()

@server.on("start")
def started(server):
    on_start(server)
    if os.path.exists("fifo-of-master"):
        os.rename("fifo-of-master", "fifo")
        spin()
"""


async def test_a_worker_that_takes_long_to_start_is_named_and_serves_in_the_end(
    program: ProgramFile, run: Run, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    program.write(WAYS + START, workers=2, stuck_after=STUCK_AFTER)
    launched = await run(program.path)
    line = await launched.log.wait_for("is stuck")
    await asyncio.to_thread(release, tmp_path)
    await launched.serves()
    assert re.search(r"worker 1 \(pid \d+\) .* in the worker_start handler, __main__\.begin, .*\(spin\)", line), line
    await launched.log.wait_for("is running again")
    async with launched.connect_to(1) as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


async def test_the_successor_of_a_worker_is_replaced_if_its_start_is_stuck(launch: Launch, tmp_path: Path) -> None:
    launched = await launch(WAYS + START, workers=2, stuck_after=STUCK_AFTER, stuck_restart=True)
    os.mkfifo(tmp_path / "fifo")
    pid = launched.workers()[1]
    os.kill(pid, signal.SIGKILL)
    line = await launched.log.wait_for("because it is stuck")
    assert f"(pid {pid})" not in line
    (tmp_path / "fifo").unlink()
    async with launched.connect_to(1) as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


async def test_a_master_that_stands_still_is_named(launch: Launch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo-of-master")
    launched = await launch(WAYS + START, workers=2, stuck_after=STUCK_AFTER)
    line = await launched.log.wait_for("master (pid")
    assert re.search(r"is stuck: .* in the start handler, __main__\.started, .*\(spin\)", line), line
    assert await health(launched) == "ok"
    await asyncio.to_thread(release, tmp_path)
    await launched.log.wait_for("is running again")
    await launched.stop()


async def test_nobody_looks_if_that_is_not_wanted(launch: Launch) -> None:
    launched = await launch(workers=1, stuck_after=None)
    async with launched.connect() as client:
        assert "hubbub-watchdog" not in await ask(client, "[thread.name for thread in threading.enumerate()]")
    await launched.stop()


def stand_still() -> None:
    time.sleep(3 * STUCK_AFTER)


async def test_an_embedded_server_says_it_too(caplog: pytest.LogCaptureFixture) -> None:
    def said(text: str) -> bool:
        return any(text in message for message in caplog.messages)

    with caplog.at_level(logging.WARNING, "hubbub"):
        async with Server(port=0, stuck_after=STUCK_AFTER):
            stand_still()
            await until(lambda: said(f"worker 0 (pid {os.getpid()}) is running again"))
            assert said(f"worker 0 (pid {os.getpid()}) is stuck: ")
            assert said("(stand_still)")
            # While this holds the interpreter, nothing can be logged.
            ctypes.PyDLL(None).sleep(5)
            await until(lambda: said("a call held the interpreter"))
