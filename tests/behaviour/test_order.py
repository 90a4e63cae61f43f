"""Order: open, the messages, close; each once, one after the other, for every kind of handler."""

import asyncio
import threading

import pytest
from application import KINDS, Note, add
from running import Serve

from hubbub import Frame, Opcode, Request, Server


def tells_all(server: Server, note: Note, kind: str) -> None:
    def on_open(server: Server, request: Request) -> None:
        note("open")
        if request.path == "/fail":
            raise LookupError("in open")

    add(server, "open", kind, on_open)
    add(server, "message", kind, lambda server, frame: note("message", frame.data))
    add(server, "close", kind, lambda server, fd, code: note("close", code))


@pytest.mark.parametrize("kind", KINDS)
async def test_open_then_the_messages_then_close(serve: Serve, kind: str) -> None:
    running = await serve(lambda server, note: tells_all(server, note, kind))
    async with running.connect() as client:
        for number in range(200):
            await client.send(str(number))
    while await running.noted() != ("close", 1000):
        pass
    await running.stop()
    messages = [("message", str(number)) for number in range(200)]
    assert running.notes.all == [("open",), *messages, ("close", 1000)]


@pytest.mark.parametrize("kind", KINDS)
async def test_close_runs_once_after_open_has_raised(serve: Serve, kind: str) -> None:
    running = await serve(lambda server, note: tells_all(server, note, kind))
    async with running.connect("/fail"):
        assert await running.noted() == ("open",)
        assert await running.noted() == ("close", 1011)
    await running.stop()
    assert running.notes.all == [("open",), ("close", 1011)]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_comes_in_one_piece_with_the_handshake_keeps_its_order(serve: Serve, kind: str) -> None:
    running = await serve(lambda server, note: tells_all(server, note, kind))
    async with running.raw() as client:
        client.ask_for_upgrade()
        client.send_frame(Opcode.TEXT, b"first")
        client.send_frame(Opcode.TEXT, b"second")
        client.send_close(1000)
        assert (await client.answer()).status == 101
        assert await client.close_frame() == (1000, "")
    told = [await running.noted() for _ in range(4)]
    assert told == [("open",), ("message", "first"), ("message", "second"), ("close", 1000)]


@pytest.mark.parametrize("kind", ["suspending", "threaded"])
async def test_handlers_of_one_connection_never_overlap(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def begin_and_end(what: str) -> None:
            note("begin", what)
            note("end", what)

        async def suspending(what: str) -> None:
            note("begin", what)
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: None)
            note("end", what)

        if kind == "threaded":
            server.on("open", lambda server: begin_and_end("open"), threaded=True)
            server.on("message", lambda server, frame: begin_and_end(frame.data), threaded=True)
            server.on("close", lambda server: begin_and_end("close"), threaded=True)
        else:
            server.on("open", lambda server: suspending("open"))
            server.on("message", lambda server, frame: suspending(frame.data))
            server.on("close", lambda server: suspending("close"))

    running = await serve(application)
    async with running.connect() as client:
        for number in range(50):
            await client.send(str(number))
    while await running.noted() != ("end", "close"):
        pass
    order = ["open", *map(str, range(50)), "close"]
    assert running.notes.all == [(moment, what) for what in order for moment in ("begin", "end")]


async def test_messages_wait_until_open_has_ended(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        async def on_open(server: Server, request: Request) -> None:
            note("open begins")
            await note.goes_on.wait()
            note("open ends")

        server.on("open", on_open)
        server.on("message", lambda server, frame: note("message", frame.data))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("early")
        # The server has read the message by the time it answers the ping after it.
        await (await client.ping())
        assert await running.noted() == ("open begins",)
        await running.go_on()
        assert await running.noted() == ("open ends",)
        assert await running.noted() == ("message", "early")


async def test_close_waits_for_the_handler_that_runs(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        async def on_message(server: Server, frame: Frame) -> None:
            note("message begins", frame.data)
            await note.goes_on.wait()
            note("message ends", frame.data)

        server.on("message", on_message)
        server.on("close", lambda server, fd, code: note("close", code))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("first")
        await client.send("second")
    # The closing handshake is complete, but handlers are still running.
    assert await running.noted() == ("message begins", "first")
    await running.go_on()
    assert await running.noted() == ("message ends", "first")
    assert await running.noted() == ("message begins", "second")
    assert await running.noted() == ("message ends", "second")
    assert await running.noted() == ("close", 1000)


# Two connections of one worker.


async def test_the_handlers_of_different_connections_interleave(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        set_by_the_other = asyncio.Event()

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "wait":
                note("waiting")
                await set_by_the_other.wait()
                server.push(frame.fd, "released")
            else:
                set_by_the_other.set()

    running = await serve_here(application)
    async with running.connect() as first, running.connect() as second:
        await first.send("wait")
        assert await running.noted() == ("waiting",)
        await second.send("release")
        assert await first.recv() == "released"


async def test_a_threaded_handler_that_blocks_blocks_no_other_connection(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        set_by_the_other = threading.Event()

        def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "wait":
                note("waiting")
                set_by_the_other.wait()
                server.push(frame.fd, "released")
            else:
                set_by_the_other.set()

        server.on("message", on_message, threaded=True)

    running = await serve_here(application)
    async with running.connect() as first, running.connect() as second:
        await first.send("wait")
        assert await running.noted() == ("waiting",)
        await second.send("release")
        assert await first.recv() == "released"


async def test_threaded_handlers_share_a_pool_of_so_many_threads(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        both_are_here = threading.Barrier(2)

        def on_message(server: Server, frame: Frame) -> None:
            both_are_here.wait()
            note(threading.current_thread().name)

        server.on("message", on_message, threaded=True)

    running = await serve_here(application, threads=2)
    async with running.connect() as first, running.connect() as second:
        names = set()
        for _ in range(10):
            await first.send("")
            await second.send("")
            names |= {await running.noted(), await running.noted()}
    assert len(names) == 2
