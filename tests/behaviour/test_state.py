"""The state of a connection: one object for its handlers, from the handshake to the end of `close`."""

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from application import KINDS, Note, add
from running import Serve

from hubbub import Accept, Frame, NotRunning, Request, Server

PATIENCE = 20


def tells_open(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))


@pytest.mark.parametrize("kind", KINDS)
async def test_all_handlers_of_a_connection_find_the_same_object(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_handshake(server: Server, request: Request) -> None:
            request.state.seen = ["handshake"]

        def on_open(server: Server, request: Request) -> None:
            request.state.seen.append("open")
            note(server.state(request.fd) is request.state)

        def on_message(server: Server, frame: Frame) -> None:
            frame.state.seen.append(frame.data)
            note(server.state(frame.fd) is frame.state)

        def on_close(server: Server, fd: int) -> None:
            note(server.state(fd).seen)

        for handler in (on_handshake, on_open, on_message, on_close):
            add(server, handler.__name__.removeprefix("on_"), kind, handler)

    running = await serve(application)
    async with asyncio.timeout(PATIENCE):
        async with running.connect() as client:
            assert await running.noted() == (True,)
            for text in ("one", "two"):
                await client.send(text)
                assert await running.noted() == (True,)
        assert await running.noted() == (["handshake", "open", "one", "two"],)


async def test_what_was_assigned_to_the_requests_state_is_the_state(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("handshake")
        def on_handshake(server: Server, request: Request) -> Accept:
            request.state = {"from": "handshake"}
            return Accept()

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(server.state(request.fd), request.state)
            request.state = None

        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            note(frame.state, server.state(frame.fd))

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        assert await running.noted() == ({"from": "handshake"}, {"from": "handshake"})
        await client.send("hello")
        assert await running.noted() == (None, None)


@pytest.mark.parametrize("first", ["request", "server"])
async def test_whoever_asks_first_creates_the_object_for_all(serve: Serve, first: str) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            if first == "server":
                server.state(request.fd).name = "server"
            note(request.state is server.state(request.fd), type(request.state) is SimpleNamespace)

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.connect():
        assert await running.noted() == (True, True)


async def test_connections_have_states_of_their_own(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            frame.state.count = getattr(frame.state, "count", 0) + 1
            server.push(frame.fd, str(frame.state.count))

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.connect() as one, running.connect() as other:
        for client, answers in ((one, "123"), (other, "12"), (one, "4")):
            for answer in answers:
                await client.send("count")
                assert await client.recv() == answer


@pytest.mark.parametrize("kind", KINDS)
async def test_the_state_is_there_until_the_close_handler_has_ended_and_then_is_released(
    serve: Serve, kind: str
) -> None:
    def application(server: Server, note: Note) -> None:
        class Held:
            pass

        def on_open(server: Server, request: Request) -> None:
            request.state.held = Held()
            weakref.finalize(request.state.held, note, "released")
            note(request.fd)

        def on_close(server: Server, fd: int) -> None:
            note("closing", server.exists(fd), hasattr(server.state(fd), "held"))

        server.on("open", on_open)
        add(server, "close", kind, on_close)

    running = await serve(application)
    async with asyncio.timeout(PATIENCE):
        async with running.connect():
            fd = await running.opened()
            owner = await running.owner(fd)
        assert await running.noted() == ("closing", False, True)
        assert await running.noted() == ("released",)
        with pytest.raises(KeyError, match=f"there is no connection {fd}"):
            await owner.run(lambda server, note: server.state(fd).seen)


async def test_a_frame_or_a_request_that_is_kept_has_no_state_of_a_closed_connection(serve_here: Serve) -> None:
    kept: list[Any] = []

    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: kept.append(request))
        server.on("message", lambda server, frame: kept.append(frame))
        server.on("close", lambda server, fd: note("close"))

    running = await serve_here(application)
    async with asyncio.timeout(PATIENCE):
        async with running.connect() as client:
            await client.send("hello")
        assert await running.noted() == ("close",)
    request, frame = kept
    with pytest.raises(KeyError):
        _ = frame.state
    # The request now has a state of its own, like a request that never became a connection.
    request.state.name = "kept"
    assert request.state.name == "kept"
    request.state = "another"
    assert request.state == "another"
    with pytest.raises(KeyError):
        await running.server.state(request.fd)


async def test_the_state_of_another_workers_connection_is_a_key_error_that_names_the_worker(serve: Serve) -> None:
    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE), running.connect():
        fd = await running.opened()
        owner = await running.owner(fd)
        await owner.run(lambda server, note: setattr(server.state(fd), "name", "set"))
        for worker in running.workers:
            if worker is owner:
                assert (await worker.state(fd)).name == "set"
            else:
                with pytest.raises(KeyError, match=f"belongs to worker {owner.worker_id}"):
                    await worker.state(fd)


async def test_what_is_no_connection_is_a_key_error(serve: Serve) -> None:
    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE), running.connect():
        fd = await running.opened()
        for worker in running.workers:
            for other in (0, 1, -1, fd + 1, 2**53, 2**63, 2**64, -(2**70), True):
                with pytest.raises(KeyError, match="there is no connection"):
                    await worker.state(other)
            with pytest.raises(KeyError, match=r"there is no connection a number with thousands of digits"):
                await worker.run(lambda server, note: server.state(10**5000))
            for wrong in ("1", None, 1.0, [fd]):
                with pytest.raises(TypeError, match="fd must be an int"):
                    await worker.state(wrong)


async def test_without_a_server_there_is_no_state(serve_here: Serve) -> None:
    with pytest.raises(NotRunning):
        Server().state(1)
    running = await serve_here(tells_open)
    async with asyncio.timeout(PATIENCE), running.connect():
        fd = await running.opened()
        state = await running.server.state(fd)
        state.held = asyncio.Event()
        reference = weakref.ref(state.held)
        del state
        await running.stop()
        with pytest.raises(NotRunning):
            await running.server.state(fd)
        gc.collect()
        assert reference() is None


async def test_other_threads_find_the_same_state(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        def on_message(server: Server, frame: Frame) -> None:
            states = frame.state.states = [server.state(frame.fd), frame.state]
            note(all(state is states[0] for state in states))

        server.on("message", on_message, threaded=True)

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        await client.send("hello")
        assert await running.noted() == (True,)


async def test_the_state_of_a_plain_request_is_its_own(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        def on_request(server: Server, request: Request) -> str:
            before = dict(vars(request.state))
            request.state.path = request.path
            return f"{before} {request.state.path}"

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        for path in ("/one", "/two"):
            client.ask(path)
            assert (await client.answer()).body.decode() == f"{{}} {path}"


def test_a_frame_made_for_a_test_has_a_state_of_its_own() -> None:
    frame, other = Frame(1, "a"), Frame(1, "a")
    frame.state.name = "one"
    assert frame.state.name == "one"
    assert not hasattr(other.state, "name")
    assert frame == other
    with pytest.raises(AttributeError):
        frame.state = None  # type: ignore[misc]
