"""SystemExit, in each of the places where a program may raise it."""

import contextlib

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


async def test_before_the_first_worker_serves_it_is_status_3(run: Run, program: ProgramFile) -> None:
    program.write('server.on("worker_start", lambda server: sys.exit(7))', workers=1)
    launched = await run(program.path)
    assert await launched.status() == 3
    assert await launched.told.to_the_end() == []


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
    # It has ended the worker, and there is another.
    await launched.told.wait_for("worker_start")
    await launched.stop()


@pytest.mark.parametrize(("event", "status"), [("worker_stop", 0), ("shutdown", 7)])
async def test_at_the_end_it_is_the_status_where_the_master_raises_it(launch: Launch, event: str, status: int) -> None:
    launched = await launch(f'server.on("{event}", lambda: sys.exit(7))', workers=1)
    launched.process.terminate()
    assert await launched.status() == status
