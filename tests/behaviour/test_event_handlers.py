"""Events: the arguments of handlers, and the effects of their exceptions."""

import asyncio
import copy
import pickle

import pytest
from application import KINDS, Note, add
from running import Running, Serve
from websockets.exceptions import ConnectionClosed

from hubbub import Frame, Opcode, Request, Server


def echo(server: Server, note: Note) -> None:
    @server.on("open")
    def on_open(server: Server, request: Request) -> None:
        note("open", request.fd > 0, request.path)

    @server.on("message")
    def on_message(server: Server, frame: Frame) -> None:
        note("message", frame.data, frame.opcode, frame.finish)
        server.push(frame.fd, frame.data)

    @server.on("close")
    def on_close(server: Server, fd: int) -> None:
        note("close")


async def test_open_messages_and_close_tell_of_one_connection(serve: Serve) -> None:
    running = await serve(echo)
    async with running.connect("/chat") as client:
        assert await running.noted() == ("open", True, "/chat")
        await client.send("text")
        assert await client.recv() == "text"
        assert await running.noted() == ("message", "text", Opcode.TEXT, True)
        await client.send(b"\x00\xff")
        assert await client.recv() == b"\x00\xff"
        assert await running.noted() == ("message", b"\x00\xff", Opcode.BINARY, True)
    assert await running.noted() == ("close",)


@pytest.mark.parametrize("kind", KINDS)
async def test_frames_that_a_handler_keeps_stay_what_they_were(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        kept: list[Frame] = []

        def keep_some(server: Server, frame: Frame) -> None:
            if frame.data == "tell":
                note([(kept_one.fd == frame.fd, kept_one.data, kept_one.opcode) for kept_one in kept])
            elif len(frame.data) % 3:
                kept.append(frame)

        add(server, "message", kind, keep_some)

    running = await serve(application)
    messages = [letter * length for length, letter in enumerate("abcdefghij", 1)]
    async with running.connect() as client, running.connect() as other:
        for message in messages:
            await client.send(message if len(message) % 2 else message.encode())
        await other.send("mine")
        await client.send("tell")
        expected = [
            (True, message, Opcode.TEXT) if len(message) % 2 else (True, message.encode(), Opcode.BINARY)
            for message in messages
            if len(message) % 3
        ]
        (told,) = await running.noted()
        assert [one for one in told if one[1] != "mine"] == expected


async def test_fragments_arrive_as_one_message(serve: Serve) -> None:
    running = await serve(echo)
    async with running.connect() as client:
        await running.noted()
        await client.send(["a", "b", "c"])
        assert await running.noted() == ("message", "abc", Opcode.TEXT, True)


async def test_empty_messages_are_messages(serve: Serve) -> None:
    running = await serve(echo)
    async with running.connect() as client:
        await client.send("")
        await client.send(b"")
        assert [await client.recv(), await client.recv()] == ["", b""]


async def test_every_event_has_its_moment(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("start", lambda server: note("start"))
        server.on("worker_start", lambda server, worker_id: note("worker_start", worker_id))
        server.on("worker_stop", lambda server, worker_id: note("worker_stop", worker_id))
        server.on("shutdown", lambda server: note("shutdown"))
        server.on("handshake", lambda server, request: note("handshake", request.fd))
        server.on("open", lambda server, request: note("open"))
        server.on("message", lambda server, frame: note("message"))
        server.on("close", lambda server, fd: note("close"))

    running = await serve(application)
    await noted(running, "start")
    async with running.connect() as client:
        await client.send("hello")
    await noted(running, "close")
    await running.stop()
    await noted(running, "shutdown")
    workers = range(len(running.workers))
    told = running.notes.all
    assert sorted(told[: len(workers)]) == [("worker_start", worker_id) for worker_id in workers]
    assert sorted(told[-len(workers) - 1 : -1]) == [("worker_stop", worker_id) for worker_id in workers]
    assert told[len(workers) : -len(workers) - 1] == [("start",), ("handshake", 0), ("open",), ("message",), ("close",)]
    assert told[-1] == ("shutdown",)


async def noted(running: Running, what: str) -> None:
    """Wait until the application has noted this; skip everything that it notes before."""
    while (await running.noted())[0] != what:
        pass


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_handler_serves_each_event(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        add(server, "worker_start", kind, lambda server, worker_id: note("worker_start"))
        add(server, "start", kind, lambda server: note("start"))
        add(server, "open", kind, lambda server, request: note("open"))
        add(server, "message", kind, lambda server, frame: note("message", frame.data))
        add(server, "close", kind, lambda server, fd, code, reason: note("close", code))
        add(server, "worker_stop", kind, lambda server, worker_id: note("worker_stop"))
        add(server, "shutdown", kind, lambda server: note("shutdown"))

    running = await serve(application)
    await noted(running, "start")
    async with running.connect() as client:
        await client.send("hello")
    await noted(running, "close")
    await running.stop()
    await noted(running, "shutdown")
    workers = len(running.workers)
    names = [name for name, *_ in running.notes.all]
    begin, end = ["worker_start"] * workers, ["worker_stop"] * workers
    assert names == [*begin, "start", "open", "message", "close", *end, "shutdown"]


async def test_a_handler_is_given_as_many_arguments_as_it_declares(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda: note("open"))
        server.on("message", lambda server: note("message", server is not None))
        server.on("close", lambda server, fd, code: note("close", code))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        await client.close(4321)
    assert [await running.noted() for _ in range(3)] == [("open",), ("message", True), ("close", 4321)]


async def test_handlers_may_be_methods_and_callable_objects(serve: Serve) -> None:
    class Room:
        def __init__(self, note: Note) -> None:
            self.note = note

        def on_open(self, server: Server, request: Request) -> None:
            self.note("open")

        async def __call__(self, server: Server, frame: Frame) -> None:
            self.note("message", frame.data)

    def application(server: Server, note: Note) -> None:
        room = Room(note)
        server.on("open", room.on_open)
        server.on("message", room)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await running.noted() == ("open",)
        assert await running.noted() == ("message", "hello")


async def test_without_handlers_messages_are_taken_and_dropped(serve: Serve) -> None:
    running = await serve(lambda server, note: None)
    async with running.connect() as client:
        await client.send("hello")
        await (await client.ping())
    assert client.close_code == 1000


def fails_on_demand(server: Server, note: Note, kind: str) -> None:
    def on_open(server: Server, request: Request) -> None:
        if request.path == "/fail":
            raise LookupError("in open")

    def on_message(server: Server, frame: Frame) -> None:
        if frame.data == "fail":
            raise LookupError("in message")
        server.push(frame.fd, frame.data)

    def on_close(server: Server, fd: int, code: int, reason: str) -> None:
        note("close", code, reason)
        raise LookupError("in close")

    add(server, "open", kind, on_open)
    add(server, "message", kind, on_message)
    add(server, "close", kind, on_close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ["open", "message"])
async def test_an_exception_in_open_or_message_closes_that_connection_with_1011(
    serve: Serve, event: str, kind: str
) -> None:
    running = await serve(lambda server, note: fails_on_demand(server, note, kind))
    async with running.connect() as other:
        async with running.connect("/fail" if event == "open" else "/") as client:
            if event == "message":
                await client.send("fail")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1011
        assert (await running.noted())[0] == "close"
        await running.log.tells(f"LookupError: in {event}")
        await running.log.tells(f"the {event} handler failed")

        await other.send("still here")
        assert await other.recv() == "still here"
    # The close handler has failed twice by now; the server continues nevertheless.
    await running.noted()
    async with running.connect() as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    await running.log.tells("LookupError: in close")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", ["start", "worker_stop", "shutdown"])
async def test_an_exception_in_another_handler_is_logged(serve: Serve, event: str, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def fail(server: Server) -> None:
            raise LookupError("there is nothing")

        add(server, event, kind, fail)
        echo(server, note)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    await running.stop()
    await running.log.tells(f"the {event} handler failed")
    await running.log.tells("LookupError: there is nothing")


async def test_a_handler_that_is_cancelled_closes_its_connection_with_1011(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        async def on_message(server: Server, frame: Frame) -> None:
            task = asyncio.current_task()
            if task:
                asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.Event().wait()

        server.on("message", on_message)
        server.on("close", lambda server, fd: note("close"))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1011
    assert await running.noted() == ("close",)
    await running.log.tells("was cancelled")


async def test_a_threaded_handler_that_returns_a_coroutine_has_failed(serve: Serve) -> None:
    async def answer(server: Server, frame: Frame) -> None:
        server.push(frame.fd, "never")

    running = await serve(
        lambda server, note: server.on("message", lambda server, frame: answer(server, frame), threaded=True)
    )
    async with running.connect() as client:
        await client.send("hello")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1011
    await running.log.tells("the message handler failed")
    await running.log.tells("coroutine")


async def test_a_handler_that_is_registered_while_the_server_runs_comes_too_late(serve: Serve) -> None:
    running = await serve(echo)
    for worker in running.workers:
        with pytest.raises(RuntimeError, match="'drain' handler must be registered before"):
            await worker.on("drain", lambda: None)


async def test_a_handler_may_be_registered_after_the_server_ran() -> None:
    async with Server(port=0) as server:
        pass
    server.on("drain", lambda: None)


@pytest.mark.parametrize("frame", [Frame(1, "text"), Frame(2**53 - 1, b"\x00", Opcode.CONTINUATION, False)])
def test_a_frame_can_be_copied_and_pickled(frame: Frame) -> None:
    for same in (copy.copy(frame), copy.deepcopy(frame), pickle.loads(pickle.dumps(frame))):
        assert same == frame
        assert (same.fd, same.data, same.opcode, same.finish) == (frame.fd, frame.data, frame.opcode, frame.finish)


@pytest.mark.parametrize("opcode", [3, 300, -1])
def test_a_frame_has_one_of_the_opcodes(opcode: int) -> None:
    with pytest.raises(ValueError, match=str(opcode)):
        Frame(1, "x", opcode)
