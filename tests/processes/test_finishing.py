"""Work that is unfinished when the server stops: handlers, threads, answers, closing handshakes."""

import os
import signal
import socket
from textwrap import dedent

from launched import LIFE, Launch, ask

from ports import refuses_connections


async def test_handlers_that_run_may_end(launch: Launch) -> None:
    lines = """
    server = new_server(workers=1)

    @server.on("message")
    async def on_message(server, frame):
        goes_on = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, goes_on.set)
        tell("begins", os.getpid())
        await goes_on.wait()
        tell("exists", server.exists(frame.fd), server.push(frame.fd, "the answer"))
    """
    launched = await launch(dedent(lines) + LIFE)
    async with launched.connect() as client:
        await client.send("hello")
        worker = int((await launched.told.wait_for("begins")).split()[1])
        launched.process.terminate()
        await refuses_connections(launched.port)
        os.kill(worker, signal.SIGUSR1)
        assert [message async for message in client] == ["the answer"]
        assert client.close_code == 1001
    assert await launched.status() == 0
    assert (await launched.told.to_the_end())[3:] == [
        "exists True True",
        "close 1001",
        "worker_stop 0",
        "shutdown",
        "start() has returned",
    ]


async def test_a_handler_that_does_not_end_is_cancelled_after_shutdown_timeout(launch: Launch) -> None:
    lines = """
    server = new_server(workers=1, shutdown_timeout=0.1)

    @server.on("message")
    async def on_message(server, frame):
        tell("begins")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            tell("cancelled")
            raise
    """
    launched = await launch(dedent(lines) + LIFE)
    async with launched.connect() as client:
        await client.send("hello")
        await launched.told.wait_for("begins")
        launched.process.terminate()
        await client.wait_closed()
        assert client.close_code == 1001
    assert await launched.status() == 0
    cancelled, close, *rest = (await launched.told.to_the_end())[3:]
    assert cancelled == "cancelled"
    assert close.startswith("close ")
    assert rest == ["worker_stop 0", "shutdown", "start() has returned"]


async def test_a_thread_that_does_not_end_is_left_behind(launch: Launch) -> None:
    lines = """
    server = new_server(workers=1, shutdown_timeout=0.1)

    def on_message(server):
        tell("blocks")
        threading.Event().wait()

    server.on("message", on_message, threaded=True)
    server.on("worker_stop", lambda server: tell("worker_stop"))
    """
    launched = await launch(lines)
    async with launched.connect() as client:
        await client.send("hello")
        await launched.told.wait_for("blocks")
        launched.process.terminate()
        await client.wait_closed()
    assert await launched.status() == 0
    assert (await launched.told.to_the_end())[2:] == ["worker_stop", "start() has returned"]


async def test_a_client_that_does_not_answer_the_close_is_cut_off(launch: Launch) -> None:
    launched = await launch(LIFE, workers=1, shutdown_timeout=0.1)
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"
        client.transport.pause_reading()
        launched.process.terminate()
        assert await launched.status() == 0
        assert "close 1006" in await launched.told.to_the_end()
        # Now the client reads what the server sent: a Close frame, and the end of the stream.
        client.transport.resume_reading()
        await client.wait_closed()
        assert client.close_code == 1001


async def test_async_close_handlers_may_take_their_time(launch: Launch) -> None:
    lines = """
    @server.on("close")
    async def on_close(server, fd, code):
        await asyncio.sleep(0.05)
        tell("closed", code, server.info(fd) is not None)

    server.on("worker_stop", lambda server: tell("worker_stop"))
    """
    launched = await launch(lines, workers=1)
    async with launched.connect() as client, launched.connect() as other:
        for each in (client, other):
            assert await ask(each, "1 + 1") == "2"
        launched.process.terminate()
        await client.wait_closed()
        await other.wait_closed()
    assert await launched.status() == 0
    assert (await launched.told.to_the_end())[1:] == [
        "closed 1001 True",
        "closed 1001 True",
        "worker_stop",
        "start() has returned",
    ]


async def test_a_large_answer_still_goes_out(launch: Launch) -> None:
    launched = await launch(workers=1)
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", launched.port))
        async with launched.connect(sock=narrow, max_size=None) as client:
            client.transport.pause_reading()
            await client.send("server.push(frame.fd, bytes(3_000_000)) and tell('pushed')")
            await launched.told.wait_for("pushed")
            launched.process.terminate()
            await refuses_connections(launched.port)
            client.transport.resume_reading()
            # The second message is the value of the expression.
            assert [len(message) async for message in client] == [3_000_000, len("None")]
            assert client.close_code == 1001
    assert await launched.status() == 0
