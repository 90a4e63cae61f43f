"""The end of a server with several processes."""

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest
from launched import LIFE, Launch, ProgramFile, ask, end, gone, signal_group, start

# A client's closing handshake, with all the events of the end.
CLOSED = ["close 1001"] * 4
WORKERS_STOP = ["worker_stop 0", "worker_stop 1"]
END = ["shutdown", "start() has returned"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", ["the master", "all processes"])
async def test_a_signal_is_one_graceful_stop(launch: Launch, number: signal.Signals, to: str) -> None:
    launched = await launch(LIFE, workers=2)
    workers = launched.workers()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(launched.connect()) for _ in range(4)]
        for client in clients:
            await ask(client, "server.worker_id")
        if to == "the master":
            launched.process.send_signal(number)
        else:
            signal_group(launched, number)
        for client in clients:
            await client.wait_closed()
            assert client.close_code == 1001
    assert await launched.status() == 0
    told = (await launched.told.to_the_end())[3:]
    assert sorted(told[:-2]) == CLOSED + WORKERS_STOP
    assert told[-2:] == END
    log = "\n".join(await launched.log.to_the_end())
    assert "Traceback" not in log
    assert "ERROR" not in log
    for pid in workers.values():
        await gone(pid)


async def test_several_ctrl_c_at_once_are_a_stop_at_once(launch: Launch) -> None:
    lines = """
    @server.on("close")
    async def on_close(server):
        tell("closing")
        await asyncio.Event().wait()
    """
    launched = await launch(lines, workers=2, shutdown_timeout=60)
    workers = launched.workers()
    async with launched.connect() as client:
        await ask(client, "server.worker_id")
        signal_group(launched, signal.SIGINT)
        await launched.told.wait_for("closing")
        signal_group(launched, signal.SIGINT)
        assert await launched.status() == 128 + signal.SIGINT
    await asyncio.gather(*map(gone, workers.values()))


@pytest.mark.parametrize("call", ["server.shutdown()", "threading.Thread(target=server.shutdown).start()"])
async def test_shutdown_in_a_worker_stops_the_server(launch: Launch, call: str) -> None:
    launched = await launch(LIFE, workers=2)
    async with launched.connect() as client:
        await client.send(call)
        await client.wait_closed()
        assert client.close_code == 1001
    assert await launched.status() == 0
    assert (await launched.told.to_the_end())[-2:] == END


@pytest.mark.parametrize("event", ["start", "worker_start"])
async def test_shutdown_at_the_start_stops_the_server(program: ProgramFile, event: str) -> None:
    lines = f"""
    server = Server(port=0, workers=2)
    server.on("{event}", lambda server: server.shutdown())
    """
    program.write(lines)
    launched = await start(program.path)
    try:
        assert await launched.status() == 0
        assert await launched.told.to_the_end() == ["start() has returned"]
    finally:
        await end(launched)


async def test_shutdown_from_a_thread_of_the_master(launch: Launch) -> None:
    lines = """
    server.on("shutdown", lambda: tell("shutdown"))
    threading.Thread(target=lambda: (sys.stdin.readline(), server.shutdown()), daemon=True).start()
    """
    launched = await launch(lines, workers=2)
    assert launched.process.stdin
    launched.process.stdin.write(b"\n" * 3)
    assert await launched.status() == 0


async def test_a_worker_that_blocks_is_killed_in_the_end(launch: Launch) -> None:
    lines = LIFE + "def block():\n    tell('blocks')\n    time.sleep(3600)"
    launched = await launch(lines, workers=2, shutdown_timeout=0.1)
    async with launched.connect_to(0) as client:
        await client.send("block()")
        await launched.told.wait_for("blocks")
        launched.process.terminate()
        await launched.log.wait_for("does not end, and is killed")
        assert await launched.status() == 0
    assert (await launched.told.to_the_end())[-2:] == END


async def test_a_worker_that_is_still_being_loaded_does_not_delay_the_stop(program: ProgramFile) -> None:
    lines = """
    from hubbub.program import assignment
    if assignment:
        tell("loads", os.getpid())
        time.sleep(3600)
    server.on("shutdown", lambda: tell("shutdown"))
    """
    program.write(lines, workers=2)
    launched = await start(program.path)
    try:
        worker = int((await launched.told.wait_for("loads")).split()[1])
        launched.process.terminate()
        assert await launched.status() == 0
        assert (await launched.told.to_the_end())[-2:] == END
        await gone(worker)
    finally:
        await end(launched)


async def test_system_exit_in_the_master_stops_the_workers_gracefully(program: ProgramFile) -> None:
    lines = LIFE + 'server = Server(port=0, workers=2)\nserver.on("worker_stop", lambda s, n: tell("worker_stop", n))'
    for kind in ("def", "async def"):
        program.write(f"{lines}\n@server.on('start')\n{kind} on_start(server):\n    sys.exit(7)\n")
        launched = await start(program.path)
        try:
            assert await launched.status() == 7
            assert sorted(await launched.told.to_the_end()) == WORKERS_STOP
        finally:
            await end(launched)


async def test_atexit_functions_of_a_worker_run_and_its_output_is_flushed(launch: Launch) -> None:
    lines = """
    import atexit
    from hubbub.program import assignment
    if assignment:
        atexit.register(sys.stdout.write, f"atexit {assignment.worker_id}\\n")
    """
    launched = await launch(lines, workers=2)
    await launched.stop()
    assert sorted((await launched.told.to_the_end())[1:]) == ["atexit 0", "atexit 1", "start() has returned"]


async def test_nothing_after_start_runs_in_a_worker(launch: Launch) -> None:
    lines = """
    class Stubborn(Server):
        def start(self):
            try:
                super().start()
            finally:
                tell("after start", os.getpid())

    server = Stubborn(port=0, workers=2)
    server.on("start", on_start)
    """
    launched = await launch(lines)
    await launched.stop()
    assert (await launched.told.to_the_end())[1:] == [f"after start {launched.process.pid}", "start() has returned"]


async def test_a_signal_before_the_start_is_complete_stops_it(program: ProgramFile) -> None:
    lines = """
    @server.on("worker_start")
    async def on_worker_start(server):
        tell("begins", os.getpid())
        await asyncio.Event().wait()
    """
    program.write(lines, workers=2)
    launched = await start(program.path)
    try:
        worker = int((await launched.told.wait_for("begins")).split()[1])
        launched.process.terminate()
        assert await launched.status() == 0
        await gone(worker)
    finally:
        await end(launched)
