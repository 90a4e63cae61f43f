"""ASGI applications in worker processes: each is told when its worker starts and stops."""

import signal

import pytest
from launched import Launched, ProgramFile, Run

# The application prints its events. `server` is the one that is started.
APPLICATION = """
import hubbub

async def app(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    begin()
    tell("startup", hubbub.current_server() is server)
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    tell("shutdown of the application")
    await send({"type": "lifespan.shutdown.complete"})

def begin():
    pass

server = new_server(app=app, workers=1, lifespan="auto")
server.on("worker_start", lambda server, worker_id: tell("worker_start"))
server.on("worker_stop", lambda server, worker_id: tell("worker_stop"))
server.on("shutdown", lambda server: tell("shutdown"))
"""


async def served(run: Run, program: ProgramFile) -> Launched:
    launched = await run(program.path)
    await launched.serves()
    return launched


async def test_each_worker_has_its_own_life(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    program.change("workers=1", "workers=2")
    launched = await served(run, program)
    await launched.stop()
    told = await launched.told.to_the_end()
    assert told[:4] == ["startup True", "worker_start"] * 2
    assert told[4].startswith("port ")
    assert sorted(told[5:9]) == ["shutdown of the application"] * 2 + ["worker_stop"] * 2
    assert told[9:] == ["shutdown", "start() has returned"]


async def test_it_ends_after_worker_stop(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    launched = await served(run, program)
    await launched.stop()
    told = await launched.told.to_the_end()
    assert told[3:5] == ["worker_stop", "shutdown of the application"]


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("raise LookupError('no database')", "LookupError: no database"),
        ("sys.exit('no configuration')", "SystemExit: no configuration"),
    ],
)
async def test_an_exception_of_its_startup_is_a_failed_start(
    run: Run, program: ProgramFile, failure: str, says: str
) -> None:
    program.write(APPLICATION)
    program.change("    pass", f"    {failure}")
    program.change('lifespan="auto"', 'lifespan="on"')
    launched = await run(program.path)
    assert await launched.status() == 3
    log = "\n".join(await launched.log.to_the_end())
    assert "the application failed to start\n" in log
    assert "in begin" in log
    assert says in log
    assert launched.told.all == []


async def test_a_reported_failure_of_its_startup_is_a_failed_start(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    program.change("startup.complete", "startup.failed")
    launched = await run(program.path)
    assert await launched.status() == 3
    log = "\n".join(await launched.log.to_the_end())
    assert "the application cannot start: it gives no reason" in log
    assert "Traceback" not in log


async def test_without_an_answer_it_is_served_all_the_same(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    program.change("    pass", "    raise LookupError('only http')")
    launched = await served(run, program)
    await launched.stop()
    log = "\n".join(await launched.log.to_the_end())
    assert "does not support lifespan (it raises LookupError('only http'))" in log
    assert "Traceback" not in log


async def test_with_lifespan_off_it_is_not_told(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    program.change('lifespan="auto"', 'lifespan="off"')
    launched = await served(run, program)
    await launched.stop()
    assert not any("startup" in line for line in await launched.told.to_the_end())


async def test_a_reload_whose_application_cannot_start_leaves_the_old_workers(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    launched = await served(run, program)
    before = launched.workers()
    program.change("startup.complete", "startup.failed")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("the application cannot start")
    await launched.log.wait_for("the reload failed")
    assert launched.workers() == before
    program.change("startup.failed", "startup.complete")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("reloaded")
    assert launched.workers() != before
    await launched.stop()


async def test_an_application_that_does_not_end_is_cancelled(run: Run, program: ProgramFile) -> None:
    program.write(APPLICATION)
    program.change('tell("shutdown of the application")', "await asyncio.Event().wait()")
    program.change('lifespan="auto"', "shutdown_timeout=0.1")
    launched = await served(run, program)
    await launched.stop()
    assert any("lifespan shutdown took too long" in line for line in await launched.log.to_the_end())


async def test_no_worker_is_a_current_server_before_it_serves_nor_is_the_master(run: Run, program: ProgramFile) -> None:
    lines = """
    import hubbub

    def error_of_current_server():
        try:
            return hubbub.current_server()
        except NotRunning as error:
            return error

    tell("before", error_of_current_server())
    server.on("shutdown", lambda: tell("master", error_of_current_server()))
    """
    program.write(lines, workers=1)
    launched = await served(run, program)
    async with launched.connect() as client:
        await client.send("hubbub.current_server() is server")
        assert await client.recv() == "True"
    await launched.stop()
    told = await launched.told.to_the_end()
    refused = [line for line in told if "there is no current server" in line]
    assert [line.split()[0] for line in refused] == ["before", "before", "master"]
