"""SystemExit, in each of the places where a program may raise it."""

import contextlib
from textwrap import dedent

import pytest
from launched import Launch, ProgramFile, Run
from websockets.exceptions import ConnectionClosed, WebSocketException


async def test_in_the_master_it_stops_the_workers_gracefully(run: Run, program: ProgramFile) -> None:
    for kind in ("def", "async def"):
        lines = f"""
        server = Server(port=0, workers=2)
        server.on("worker_stop", lambda server, worker_id: tell("worker_stop", worker_id))

        @server.on("start")
        {kind} on_start(server):
            sys.exit(7)
        """
        program.write(lines)
        launched = await run(program.path)
        assert await launched.status() == 7
        assert sorted(await launched.told.to_the_end()) == ["worker_stop 0", "worker_stop 1"]


IN_WORKER_START = {
    "def": "def on_worker_start(server): sys.exit(STATUS)",
    "threaded": "def on_worker_start(server): sys.exit(STATUS)",
    "async": "async def on_worker_start(server): sys.exit(STATUS)",
    "suspending": """
    async def on_worker_start(server):
        await asyncio.sleep(0)
        sys.exit(STATUS)
    """,
}


@pytest.mark.parametrize("in_one_process", [False, True], ids=["processes", "one process"])
@pytest.mark.parametrize("status", [0, 7])
@pytest.mark.parametrize("kind", IN_WORKER_START)
async def test_in_worker_start_it_is_a_failed_start(
    run: Run, program: ProgramFile, kind: str, status: int, in_one_process: bool
) -> None:
    lines = f"STATUS = {status}\n{dedent(IN_WORKER_START[kind])}\n"
    lines += f"server.on('worker_start', on_worker_start, threaded={kind == 'threaded'})"
    program.write(lines, workers=1)
    # A program from standard input cannot be run again, so it serves in one process.
    launched = await run("-") if in_one_process else await run(program.path)
    assert launched.process.stdin
    launched.process.stdin.write(program.path.read_bytes())
    launched.process.stdin.close()
    assert await launched.status() == 3
    assert await launched.told.to_the_end() == []
    log = await launched.log.to_the_end()
    assert sum("the worker_start handler failed" in line for line in log) == 1
    # There is only one traceback: asyncio does not add one of its own.
    assert sum("Traceback" in line for line in log) == 1
    assert log.count(f"  SystemExit: {status}") == 1
    assert not any("never" in line for line in log)


async def test_a_child_that_worker_start_has_forked_ends_by_it_and_the_worker_serves(launch: Launch) -> None:
    for kind in ("def", "async def"):
        lines = f"""
        @server.on("worker_start")
        {kind} on_worker_start(server):
            pid = os.fork()
            if not pid:
                sys.exit(7)
            os.waitpid(pid, 0)
            tell("the child has ended")
        """
        launched = await launch(lines, workers=1)
        assert launched.told.all[0] == "the child has ended"
        await launched.stop()
        assert not any("worker_start handler failed" in line for line in launched.log.all)


async def test_a_process_that_ends_in_worker_start_is_not_said_to_have_missed_it(
    run: Run, program: ProgramFile
) -> None:
    program.write('server.on("worker_start", lambda server: os._exit(0))', workers=1)
    launched = await run(program.path)
    assert await launched.status() == 3
    (line,) = (line for line in await launched.log.to_the_end() if "before it was ready" in line)
    assert "exit status 0" in line
    assert "while worker_start ran" in line


async def test_in_the_start_handler_of_a_single_process_it_is_the_status(run: Run, program: ProgramFile) -> None:
    for kind in ("def", "async def"):
        program.write(f"server = Server(port=0, workers=1)\n@server.on('start')\n{kind} on_start(): sys.exit(7)")
        launched = await run("-")
        assert launched.process.stdin
        launched.process.stdin.write(program.path.read_bytes())
        launched.process.stdin.close()
        assert await launched.status() == 7
        assert not any("worker_start" in line for line in await launched.log.to_the_end())


@pytest.mark.parametrize(
    "lines",
    [
        'server.on("handshake", lambda server: sys.exit(7))',
        'server.on("open", lambda server: sys.exit(7))',
        'server.on("open", lambda server: server.after(0, sys.exit, 7))',
        'server.on("open", lambda server, request: server.disconnect(request.fd))\n'
        'server.on("close", lambda server: sys.exit(7))',
    ],
)
async def test_it_ends_the_worker_wherever_it_is_raised_and_it_is_replaced(launch: Launch, lines: str) -> None:
    launched = await launch('server.on("worker_start", lambda: tell("worker_start"))\n' + lines, workers=1)
    with contextlib.suppress(WebSocketException, EOFError, OSError):
        async with launched.connect() as client:
            await client.wait_closed()
    await launched.told.wait_for("worker_start")
    await launched.stop()


@pytest.mark.parametrize("kind", ["sync", "async", "suspending", "threaded"])
async def test_it_lets_the_writes_of_the_turn_out(launch: Launch, kind: str) -> None:
    lines = f"""
    server = new_server(workers=1)
    server.on("worker_start", lambda: tell("worker_start"))

    @server.on("message", threaded={kind == "threaded"})
    {"async " if kind in ("async", "suspending") else ""}def on_message(server, frame):
        {"await asyncio.sleep(0)" if kind == "suspending" else ""}
        server.push(frame.fd, "last words")
        sys.exit(7)
    """
    launched = await launch(lines)
    async with launched.connect() as client:
        await client.send("hello")
        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosed):
            await client.recv()
    # The worker has ended, and another one replaces it.
    await launched.told.wait_for("worker_start")
    await launched.stop()


@pytest.mark.parametrize(("event", "status"), [("worker_stop", 0), ("shutdown", 7)])
async def test_at_the_end_it_is_the_status_where_the_master_raises_it(launch: Launch, event: str, status: int) -> None:
    launched = await launch(f'server.on("{event}", lambda: sys.exit(7))', workers=1)
    launched.process.terminate()
    assert await launched.status() == status
