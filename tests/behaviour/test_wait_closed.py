"""`wait_closed`: how a handler, a task or a thread learns that a connection has ended."""

import asyncio
import threading

import pytest
from application import KINDS, Note
from running import Running, Serve

from hubbub import Frame, NotRunning, Opcode, Request, Server

PATIENCE = 20


def tells_open(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))


async def begun(running: Running, wait: "asyncio.Task[None]") -> None:
    """Wait until all workers have handled the calls so far; `wait` must not have ended."""
    for worker in running.workers:
        await worker.stats()
    assert not wait.done()


@pytest.mark.parametrize("how", ["close", "break off"])
async def test_a_handler_of_the_connection_itself_learns_that_its_client_has_left(serve: Serve, how: str) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note("waits")
            await server.wait_closed(frame.fd)
            note("left", server.exists(frame.fd), server.push(frame.fd, "too late"))

        server.on("close", lambda server, fd, code: note("close", code))

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"hello")
        assert await running.noted() == ("waits",)
        if how == "close":
            client.send_close(4001)
            await client.close_frame()
        else:
            client.reset()
        assert await running.noted() == ("left", False, False)
        # `close` runs only after that handler has ended.
        assert await running.noted() == ("close", 4001 if how == "close" else 1006)


async def test_any_worker_may_wait_for_any_connection(serve: Serve) -> None:
    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE):
        clients = [await running.connect() for _ in range(4)]
        fds = [await running.opened() for _ in clients]
        waits = [asyncio.ensure_future(worker.wait_closed(fd)) for fd in fds for worker in running.workers]
        await begun(running, waits[-1])
        assert not any(wait.done() for wait in waits)
        for client in clients[1:]:
            await client.close()
        await asyncio.gather(*waits[len(running.workers) :])
        assert not any(wait.done() for wait in waits[: len(running.workers)])
        await clients[0].close()
        await asyncio.gather(*waits)


async def test_what_is_not_open_is_not_waited_for(serve: Serve) -> None:
    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE):
        async with running.connect():
            fd = await running.opened()
        for worker in running.workers:
            await worker.wait_closed(fd)
            for other in (0, -1, fd + 1, 2**70):
                await worker.wait_closed(other)


async def test_what_the_server_closes_is_closed_at_once_though_the_client_does_not_answer(serve: Serve) -> None:
    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        waits = [asyncio.ensure_future(worker.wait_closed(fd)) for worker in running.workers]
        await begun(running, waits[0])
        await running.server.disconnect(fd, 4000)
        await asyncio.gather(*waits)
        assert not await running.server.exists(fd)
        assert await client.close_frame() == (4000, "")


async def test_a_wait_that_is_cancelled_is_forgotten_and_may_be_begun_again(serve: Serve) -> None:
    async def try_to_wait(server: Server, fd: int) -> bool:
        try:
            async with asyncio.timeout(0.001):
                await server.wait_closed(fd)
        except TimeoutError:
            return False
        return True

    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE):
        async with running.connect():
            fd = await running.opened()
            for worker in running.workers:
                assert not any([await worker.run(lambda server, note: try_to_wait(server, fd)) for _ in range(3)])
            wait = asyncio.ensure_future(running.server.wait_closed(fd))
            await begun(running, wait)
        await wait


@pytest.mark.parametrize("end", ["close", "cancel"])
async def test_another_threads_event_loop_may_wait(serve: Serve, end: str) -> None:
    def application(server: Server, note: Note) -> None:
        def wait(server: Server, frame: Frame) -> None:
            async def until_closed() -> None:
                wait = asyncio.ensure_future(server.wait_closed(frame.fd))
                note("waits")
                if end == "cancel":
                    await asyncio.sleep(0.01)
                    wait.cancel()
                    await asyncio.wait([wait])
                    note("cancelled", wait.cancelled())
                else:
                    await wait
                    note("closed", server.exists(frame.fd))

            asyncio.run(until_closed())

        server.on("message", wait, threaded=True)

    running = await serve(application)
    async with asyncio.timeout(PATIENCE):
        async with running.connect() as client:
            await client.send("wait")
            assert await running.noted() == ("waits",)
            if end == "cancel":
                assert await running.noted() == ("cancelled", True)
        if end == "close":
            assert await running.noted() == ("closed", False)


async def test_no_connection_is_left_when_the_server_has_stopped(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            server.after(0, wait, request.fd)

        async def wait(fd: int) -> None:
            note("waits")
            try:
                await server.wait_closed(fd)
            finally:
                note("ends")

    running = await serve(application, shutdown_timeout=0.5)
    async with asyncio.timeout(PATIENCE), running.connect():
        assert await running.noted() == ("waits",)
        await running.stop()
        assert await running.noted() == ("ends",)


async def test_what_is_no_id_is_a_type_error_and_without_a_server_nothing_can_be_waited_for(serve_here: Serve) -> None:
    with pytest.raises(NotRunning):
        await Server().wait_closed(1)
    running = await serve_here(tells_open)
    with pytest.raises(TypeError):
        await running.server.wait_closed("1")


@pytest.mark.parametrize("kind", KINDS[2:])
async def test_drain_runs_for_a_connection_that_ends_while_its_handler_runs(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        drained, drained_for_threads = asyncio.Event(), threading.Event()

        @server.on("drain")
        def on_drain(server: Server, fd: int) -> None:
            drained.set()
            drained_for_threads.set()

        async def suspending(server: Server, frame: Frame) -> None:
            note("waits")
            await drained.wait()
            note("drained")

        def threaded(server: Server, frame: Frame) -> None:
            note("waits")
            drained_for_threads.wait()
            note("drained")

        handler = threaded if kind == "threaded" else suspending
        server.on("message", handler, threaded=kind == "threaded")

    running = await serve(application)
    async with asyncio.timeout(PATIENCE):
        async with running.connect() as client:
            await client.send("wait")
            assert await running.noted() == ("waits",)
        assert await running.noted() == ("drained",)
