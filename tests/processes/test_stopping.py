"""The end of a server with several processes."""

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack

import pytest
from launched import BLOCK, LIFE, Launch, ProgramFile, Run, ask, gone, signal_group

from ports import refuses_connections

END = ["shutdown", "start() has returned"]


def worker_events(event: str, workers: int) -> list[str]:
    """Return the lines that LIFE prints for an event of each worker."""
    return [f"{event} {worker_id}" for worker_id in range(workers)]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", ["the master", "all processes"])
async def test_a_signal_is_one_graceful_stop(launch: Launch, number: signal.Signals, to: str, workers: int) -> None:
    launched = await launch(LIFE, workers=workers)
    pids = launched.workers().values()
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
    told = await launched.told.to_the_end()
    assert sorted(told[:workers]) == worker_events("worker_start", workers)
    assert sorted(told[workers + 1 : -2]) == ["close 1001"] * 4 + worker_events("worker_stop", workers)
    assert told[-2:] == END
    log = "\n".join(await launched.log.to_the_end())
    assert "Traceback" not in log
    assert "ERROR" not in log
    for pid in pids:
        await gone(pid)


async def test_a_second_signal_is_a_stop_at_once(launch: Launch) -> None:
    lines = """
    server = new_server(workers=1, shutdown_timeout=60.0)

    @server.on("message")
    async def on_message(server):
        tell("busy")
        await asyncio.Event().wait()

    server.on("worker_stop", lambda server: tell("worker_stop"))
    """
    launched = await launch(lines)
    async with launched.connect() as client:
        await client.send("hello")
        await launched.told.wait_for("busy")
        launched.process.terminate()
        # Once it accepts no new connections, it has begun to stop.
        await refuses_connections(launched.port)
        launched.process.terminate()
        assert await launched.status() != 0
        assert (await launched.told.to_the_end())[2:] == []


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


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("call", ["server.shutdown()", "threading.Thread(target=server.shutdown).start()"])
async def test_shutdown_in_a_worker_stops_the_server(launch: Launch, call: str, workers: int) -> None:
    launched = await launch(LIFE, workers=workers)
    async with launched.connect() as client:
        await client.send(call)
        await client.wait_closed()
        assert client.close_code == 1001
    assert await launched.status() == 0
    told = (await launched.told.to_the_end())[workers + 1 :]
    assert sorted(told[:-2]) == ["close 1001", *worker_events("worker_stop", workers)]
    assert told[-2:] == END


@pytest.mark.parametrize("event", ["start", "worker_start"])
async def test_shutdown_at_the_start_stops_the_server(run: Run, program: ProgramFile, event: str) -> None:
    lines = f"""
    server = Server(port=0, workers=2)
    server.on("{event}", lambda server: server.shutdown())
    """
    program.write(lines)
    launched = await run(program.path)
    assert await launched.status() == 0
    assert await launched.told.to_the_end() == ["start() has returned"]


@pytest.mark.parametrize("where", ["the master", "a worker"])
async def test_shutdown_from_a_thread_as_soon_as_it_may_be_called(run: Run, program: ProgramFile, where: str) -> None:
    lines = f"""
    from hubbub import program

    def stop():
        while True:
            try:
                return server.shutdown()
            except NotRunning:
                pass

    if (program.assignment is None) is {where == "the master"}:
        sys.setswitchinterval(1e-6)
        threading.Thread(target=stop).start()
    """
    program.write(lines, workers=1)
    launched = await run(program.path)
    assert await launched.status() == 0, launched.log.all


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
    launched = await launch(LIFE + BLOCK, workers=2, shutdown_timeout=0.1)
    async with launched.connect_to(0) as client:
        await client.send("block()")
        await launched.told.wait_for("blocks")
        launched.process.terminate()
        await launched.log.wait_for("because it does not stop")
        assert await launched.status() == 0
    assert (await launched.told.to_the_end())[-2:] == END


async def test_a_signal_is_heeded_while_a_handler_blocks_the_event_loop(launch: Launch) -> None:
    launched = await launch(BLOCK, workers=1)
    (worker,) = launched.workers().values()
    async with launched.connect() as client:
        await client.send("block()")
        await launched.told.wait_for("blocks")
        launched.process.send_signal(signal.SIGINT)
        # Two signals of the same kind that arrive at the same time count as one, so send more.
        while launched.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                launched.process.terminate()
            await asyncio.sleep(0.01)
        assert launched.process.returncode != 0
        # The worker ends too, although its handler is still sleeping.
        await gone(worker)
    assert (await launched.told.to_the_end())[2:] == []


async def test_a_worker_that_is_still_being_loaded_does_not_delay_the_stop(run: Run, program: ProgramFile) -> None:
    lines = """
    from hubbub.program import assignment
    if assignment:
        tell("loads", os.getpid())
        time.sleep(3600)
    server.on("shutdown", lambda: tell("shutdown"))
    """
    program.write(lines, workers=2)
    launched = await run(program.path)
    worker = int((await launched.told.wait_for("loads")).split()[1])
    launched.process.terminate()
    assert await launched.status() == 0
    assert (await launched.told.to_the_end())[-2:] == END
    await gone(worker)


async def test_the_signal_handlers_of_the_program_are_back_after_start(launch: Launch) -> None:
    lines = """
    def ours(number, frame):
        pass

    import atexit
    signal.signal(signal.SIGTERM, ours)
    atexit.register(lambda: tell(signal.getsignal(signal.SIGTERM) is ours))
    """
    launched = await launch(lines, workers=1)
    async with launched.connect() as client:
        await client.send("server.shutdown()")
        await client.wait_closed()
    assert await launched.status() == 0
    assert (await launched.told.to_the_end())[-1] == "True"


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


@pytest.mark.parametrize("event", ["worker_start", "start"])
@pytest.mark.parametrize("way", ["signal", "shutdown"])
async def test_it_stops_although_a_handler_of_the_start_does_not_end(
    run: Run, program: ProgramFile, event: str, way: str
) -> None:
    lines = f"""
    server = Server(port=0, workers=2, shutdown_timeout=0.1)

    @server.on("{event}")
    async def never_ends(server):
        {"server.shutdown()" if way == "shutdown" else ""}
        tell("begins", os.getpid())
        await asyncio.Event().wait()
    """
    program.write(lines)
    launched = await run(program.path)
    process = int((await launched.told.wait_for("begins")).split()[1])
    if way == "signal":
        launched.process.terminate()
    assert await launched.status() == 0
    await gone(process)
    told = await launched.told.to_the_end()
    assert [line for line in told if not line.startswith("begins")] == ["start() has returned"]
