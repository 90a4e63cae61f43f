"""Workers that end, and are replaced."""

import asyncio
import contextlib
import os
import signal
import time

import pytest
from launched import BLOCK, LIFE, Launch, Launched, ProgramFile, ask, end, gone, start, until
from websockets.exceptions import ConnectionClosed


async def replaced(launched: Launched, worker_id: int, pid: int) -> None:
    """Wait until another process of that worker serves."""
    await gone(pid)
    async with launched.connect_to(worker_id) as client:
        assert int(await ask(client, "os.getpid()")) != pid


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("os._exit(5)", "exit status 5"),
        ("os._exit(0)", "exit status 0"),
        ("sys.exit(7)", "exit status 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9 (SIGKILL)"),
        ("ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("os.abort()", "signal 6 (SIGABRT)"),
    ],
)
async def test_a_worker_that_dies_is_replaced_and_the_others_go_on(launch: Launch, death: str, words: str) -> None:
    launched = await launch(workers=2)
    before = launched.workers()
    async with launched.connect_to(0) as bystander, launched.connect_to(1) as client:
        fd = await ask(client, "frame.fd")
        await client.send(death)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert words in await launched.log.wait_for("worker 1")
        await replaced(launched, 1, before[1])
        assert await ask(bystander, "os.getpid()") == str(before[0])
        # Its connections are gone, and a push to them fails.
        assert await ask(bystander, f"server.exists({fd}), server.push({fd}, 'x')") == "(False, False)"
        assert await ask(bystander, "server.stats()['restarts']") == "1"
    await launched.stop()


async def test_the_only_worker_is_replaced_too(launch: Launch) -> None:
    launched = await launch(workers=1)
    pid = launched.workers()[0]
    os.kill(pid, signal.SIGKILL)
    await launched.log.wait_for("was killed")
    # A client that connects meanwhile waits for the next worker.
    async with launched.connect() as client:
        assert await ask(client, "os.getpid()") != str(pid)


async def test_one_that_dies_again_and_again_is_started_later_each_time(launch: Launch) -> None:
    launched = await launch("server.on('worker_start', lambda: tell('starts', os.getpid()))", workers=1)
    deaths: list[float] = []
    for _ in range(4):
        deaths.append(time.monotonic())
        os.kill(launched.workers()[0], signal.SIGKILL)
        await launched.told.wait_for("starts")
    # The first restart is immediate, the next ones come after 0.1 s, 0.2 s and 0.4 s, or later on a slow machine.
    assert time.monotonic() - deaths[1] >= 0.7
    await launched.stop()


async def test_one_whose_worker_start_fails_is_started_again_until_it_ends_well(launch: Launch) -> None:
    lines = """
    broken = __file__ + ".broken"

    @server.on("worker_start")
    def on_worker_start(server, worker_id):
        if os.path.exists(broken):
            tell("fails")
            raise LookupError("no database")
    """
    launched = await launch(lines, workers=2)
    async with launched.connect_to(0) as bystander:
        await ask(bystander, "open(broken, 'w').close()")
        pid = launched.workers()[1]
        os.kill(pid, signal.SIGKILL)
        await launched.told.wait_for("fails")
        await launched.log.wait_for("before it was ready")
        await launched.log.wait_for("restarting worker 1 in")
        await launched.told.wait_for("fails")
        # A worker that failed to start gets no connection.
        async with launched.connect() as client:
            assert await ask(client, "server.worker_id") == "0"
        await ask(bystander, "os.unlink(broken)")
        await replaced(launched, 1, pid)
    await launched.stop()


async def test_sigterm_ends_one_worker_gracefully(launch: Launch) -> None:
    launched = await launch(LIFE, workers=2)
    pid = launched.workers()[1]
    async with launched.connect_to(0) as bystander, launched.connect_to(1) as client:
        os.kill(pid, signal.SIGTERM)
        await client.wait_closed()
        assert client.close_code == 1001
        await launched.told.wait_for("close 1001")
        await launched.told.wait_for("worker_stop 1")
        await replaced(launched, 1, pid)
        assert await ask(bystander, "server.worker_id") == "0"
    await launched.stop()


async def test_sigterm_is_heeded_by_the_others_while_a_handler_blocks_that_worker(launch: Launch) -> None:
    launched = await launch(BLOCK, workers=1, shutdown_timeout=0.1)
    pid = launched.workers()[0]
    async with launched.connect() as client:
        await client.send("block()")
        await launched.told.wait_for("blocks")
        os.kill(pid, signal.SIGTERM)
        await launched.log.wait_for("is starting")
        async with launched.connect() as other:
            assert await ask(other, "os.getpid()") != str(pid)
        # In the end the old process is killed.
        assert f"pid {pid}" in await launched.log.wait_for("because it does not stop")
        await gone(pid)
    await launched.stop()


async def test_a_worker_that_is_stopped_delays_nobody_in_the_other(launch: Launch) -> None:
    launched = await launch(workers=2)
    pid = launched.workers()[1]
    async with launched.connect_to(0) as client, launched.connect_to(1) as stopped:
        os.kill(pid, signal.SIGSTOP)
        fd = await ask(client, "frame.fd")
        assert await ask(client, f"server.push({fd}, 'hello')") == "hello"
        assert await client.recv() == "True"
        os.kill(pid, signal.SIGCONT)
        assert await ask(stopped, "server.worker_id") == "1"


async def test_many_clients_see_one_death_only(launch: Launch) -> None:
    """New connections find a worker at all times."""
    launched = await launch(workers=2)
    for worker_id in (0, 1):
        pid = launched.workers()[worker_id]
        os.kill(pid, signal.SIGKILL)
        for _ in range(20):
            async with launched.connect() as client:
                # One may be passed to a worker that dies at that moment.
                with contextlib.suppress(ConnectionClosed):
                    await ask(client, "server.worker_id")
        await replaced(launched, worker_id, pid)


# ---- workers that cannot start ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_program_that_fails_shows_its_traceback_once_and_ends_with_status_3(
    program: ProgramFile, workers: int
) -> None:
    lines = """
    from hubbub.program import assignment
    if assignment:
        raise LookupError("in the program")
    """
    program.write(lines, workers=workers)
    launched = await start(program.path)
    try:
        assert await launched.status() == 3
        log = "\n".join(await launched.log.to_the_end())
        assert log.count("LookupError: in the program") == 1
        assert log.count("Traceback") == 1
        assert launched.told.all == []
    finally:
        await end(launched)


@pytest.mark.parametrize(
    ("end_of_it", "words"),
    [
        ("os._exit(0)", "never reached start()"),
        ("sys.exit(7)", "exit status 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
    ],
)
async def test_a_program_that_ends_before_start_is_told_in_a_line(
    program: ProgramFile, end_of_it: str, words: str
) -> None:
    lines = f"""
    from hubbub.program import assignment
    if assignment:
        {end_of_it}
    """
    program.write(lines, workers=2)
    launched = await start(program.path)
    try:
        assert await launched.status() == 3
        log = await launched.log.to_the_end()
        assert sum(words in line and "before it was ready" in line for line in log) == 1
    finally:
        await end(launched)


async def test_one_that_cannot_start_later_on_is_tried_again(launch: Launch, program: ProgramFile) -> None:
    launched = await launch(workers=2)
    program.change("import asyncio", "raise LookupError('for a while'); import asyncio")
    pid = launched.workers()[1]
    async with launched.connect_to(0) as bystander:
        os.kill(pid, signal.SIGKILL)
        await launched.log.wait_for("restarting worker 1 in")
        await launched.log.wait_for("restarting worker 1 in")
        assert await ask(bystander, "server.worker_id") == "0"
        program.change("raise LookupError('for a while'); ", "")
        await replaced(launched, 1, pid)
    await launched.stop()


# ---- the master's death ----------------------------------------------------------------------------------


async def test_workers_die_with_the_master_also_one_that_sleeps(launch: Launch) -> None:
    launched = await launch(BLOCK, workers=2)
    workers = launched.workers()
    async with launched.connect_to(1) as client:
        await client.send("block()")
        await launched.told.wait_for("blocks")
        launched.process.kill()
        await asyncio.gather(*map(gone, workers.values()))


async def test_a_worker_that_is_being_loaded_dies_with_the_master(program: ProgramFile) -> None:
    lines = """
    from hubbub.program import assignment
    if assignment:
        tell("loads", os.getpid())
        time.sleep(3600)
    """
    program.write(lines, workers=1)
    launched = await start(program.path)
    try:
        worker = int((await launched.told.wait_for("loads")).split()[1])
        launched.process.kill()
        await gone(worker)
    finally:
        await end(launched)


async def test_no_worker_is_left_as_a_zombie(launch: Launch) -> None:
    launched = await launch(workers=3)
    workers = launched.workers()
    for pid in workers.values():
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*map(gone, workers.values()))
    await until(lambda: len(launched.workers()) == 3)
    await launched.stop()
