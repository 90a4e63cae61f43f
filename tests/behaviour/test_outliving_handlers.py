"""Handlers that still run when their connection has ended: which resources they hold, and which not."""

from contextlib import AsyncExitStack

import pytest
from application import KINDS, Note, add
from running import Running, Serve
from websockets.asyncio.client import ClientConnection

from hubbub import ConnectionInfo, Frame, Server

TOO_MANY = b"too many handlers are still running for clients that have left\n"
# With `max_connections=1`: a worker may have that many connections beside handshakes, requests and answers of 503.
MOST = 1001


def closing_slowly(server: Server, note: Note) -> None:
    """Keep each `close` handler running until the test calls `Running.go_on`."""

    @server.on("close")
    async def on_close(server: Server, fd: int) -> None:
        note("close", fd)
        await note.goes_on.wait()


async def come_and_go(running: Running) -> None:
    """Open a WebSocket, and reset its connection once it is open."""
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
    assert (await running.noted())[0] == "close"


async def test_clients_that_come_back_find_their_places_free(serve: Serve) -> None:
    running = await serve(closing_slowly, max_connections=50)
    for _ in range(3):
        async with AsyncExitStack() as stack:
            clients: list[ClientConnection] = [await stack.enter_async_context(running.connect()) for _ in range(40)]
            for client in clients:
                await client.close()
        for _ in clients:
            assert (await running.noted())[0] == "close"
    await running.go_on()


async def test_handlers_that_run_on_take_no_room_from_new_connections(serve_here: Serve) -> None:
    running = await serve_here(closing_slowly, max_connections=1000)
    # Beside 1,000 WebSockets there is room for 1,100 other connections.
    for _ in range(3):
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(running.raw()) for _ in range(900)]
            for client in clients:
                assert (await client.upgrade()).status == 101
        for _ in clients:
            assert (await running.noted())[0] == "close"
    await running.go_on()


@pytest.mark.parametrize("serve", ["workers1"], indirect=True)
async def test_a_hub_passes_connections_to_a_worker_whose_handlers_run_on(serve: Serve) -> None:
    running = await serve(closing_slowly, max_connections=1)
    for _ in range(MOST - 1):
        await come_and_go(running)
    async with running.raw() as client, running.raw() as one, running.raw() as other:
        assert (await client.upgrade()).status == 101
        for each in (one, other):
            each.ask("/health")
            assert (await each.answer()).status == 200
    await running.go_on()


@pytest.mark.parametrize("kind", KINDS)
async def test_info_answers_in_close_though_another_connection_has_the_row(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note("open", request.fd, request.client))
        server.on("message", lambda server, frame: server.push(frame.fd, frame.data))

        def look(server: Server, fd: int) -> None:
            info = server.info(fd)
            assert info
            note(
                "close", fd, info.client, info.messages_in, info.bytes_out, server.exists(fd), fd in server.connections
            )

        add(server, "close", kind, look)

    running = await serve(application, max_connections=1)
    for number in range(8):
        async with running.connect() as client:
            _, fd, address = await running.noted()
            for _ in range(number):
                await client.send("hello")
                await client.recv()
        assert await running.noted() == ("close", fd, address, number, 5 * number, False, False)


async def test_a_connection_that_ends_leaves_the_one_that_has_its_row_alone(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note("open", request.fd))

        @server.on("close")
        async def on_close(server: Server, fd: int) -> None:
            note("close", fd)
            await note.goes_on.wait()
            info = server.info(fd)
            note("closed", fd, info and info.fd, server.push(fd, "x"), server.disconnect(fd))

    running = await serve(application, max_connections=1)
    ended = []
    # These are more connections than the registry has rows.
    for _ in range(4):
        async with running.connect():
            fd = (await running.noted())[1]
        assert await running.noted() == ("close", fd)
        ended.append(fd)
    async with running.connect() as client:
        fd = (await running.noted())[1]
        await running.go_on()
        told = {await running.noted() for _ in ended}
        assert told == {("closed", gone, gone, False, False) for gone in ended}
        assert await running.server.push(fd, "still here")
        assert await client.recv() == "still here"
        for gone in ended:
            while await running.server.info(gone):
                pass
        info = await running.server.info(fd)
        assert info.fd == fd
        assert info.messages_out == 1
        assert await running.server.exists(fd)


async def test_other_workers_know_nothing_of_a_connection_that_has_ended(serve: Serve) -> None:
    running = await serve(closing_slowly)
    async with running.connect():
        pass
    _, fd = await running.noted()
    infos: list[ConnectionInfo | None] = [await worker.info(fd) for worker in running.workers]
    assert [info and info.fd for info in infos if info] == [fd]
    await running.go_on()
    for worker in running.workers:
        while await worker.info(fd):
            pass


async def test_messages_and_traffic_of_an_ended_connection_are_counted_once(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "first":
                note("first")
                await note.goes_on.wait()
            note("handled", frame.data, server.exists(frame.fd))

        server.on("close", lambda server: note("close"))

    running = await serve(application, max_connections=1)
    async with running.connect() as client:
        for text in ("first", "second", "third"):
            await client.send(text)
        assert await running.noted() == ("first",)
        while (await running.server.stats())["messages_in"] < 3:
            pass
    while (await running.server.stats())["connections"]:
        pass
    # The new connection gets the old one's place, while handlers of the old one still run or wait.
    async with running.connect() as client:
        await client.send("fourth")
        assert await running.noted() == ("handled", "fourth", True)
        await running.go_on()
        for text in ("first", "second", "third"):
            assert await running.noted() == ("handled", text, False)
        assert await running.noted() == ("close",)
        stats = await running.server.stats()
        assert (stats["messages_in"], stats["bytes_in"]) == (4, len("firstsecondthirdfourth"))


async def test_they_are_counted(serve: Serve) -> None:
    running = await serve(closing_slowly)
    for number in range(3):
        assert await outliving(running) == number
        await come_and_go(running)
        while await outliving(running) == number:
            pass
    await running.go_on()
    while await outliving(running):
        pass


async def outliving(running: Running) -> int:
    stats = await running.server.stats()
    assert sum(worker["outliving"] for worker in stats["workers"]) == stats["outliving"]
    number = stats["outliving"]
    assert isinstance(number, int)
    return number


async def test_above_their_bound_handshakes_are_503_until_some_have_ended(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        closing_slowly(server, note)
        server.on("request", lambda server, request: request.path)

    running = await serve_here(application, max_connections=1)
    for _ in range(MOST):
        await come_and_go(running)
    async with running.raw() as client:
        answer = await client.upgrade(path="/chat")
        assert (answer.status, answer.body) == (503, TOO_MANY)
        assert int(answer.headers["retry-after"]) > 0
        await running.log.tells(f"refused {client.address} GET /chat: 503 too many handlers are still running")
    await running.log.tells(
        f"{MOST} handlers are still running although their clients have left: new handshakes and requests are refused"
    )
    assert running.log.text.count("handlers are still running although their clients") == 1
    async with running.raw() as client:
        client.ask("/page")
        answer = await client.answer()
        assert (answer.status, answer.body) == (503, TOO_MANY)
        # That is no reason to restart the server.
        client.ask("/health")
        assert (await client.answer()).status == 200
    await running.go_on()
    while await outliving(running) == MOST:
        pass
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
    async with running.raw() as client:
        client.ask("/page")
        assert (await client.answer()).body == b"/page"


async def test_requests_whose_clients_have_left_count_too(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server) -> str:
            note("asked")
            await note.goes_on.wait()
            return "late"

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/")
        assert await running.noted() == ("asked",)
        assert await outliving(running) == 0
    while await outliving(running) != 1:
        pass
    await running.go_on()
    while await outliving(running):
        pass


@pytest.mark.parametrize("serve", ["workers3"], indirect=True)
async def test_a_worker_that_has_too_many_is_given_no_connection_while_another_has_not(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server: note("open", server.worker_id))

        @server.on("close")
        async def on_close(server: Server, fd: int) -> None:
            note("close", server.worker_id)
            if server.worker_id == 0:
                await note.goes_on.wait()

    running = await serve(application, max_connections=1)
    ended = 0
    while ended < MOST:
        async with running.raw() as client:
            assert (await client.upgrade()).status == 101
        assert (await running.noted())[0] == "open"
        ended += await running.noted() == ("close", 0)
    for _ in range(10):
        async with running.raw() as client:
            assert (await client.upgrade()).status == 101
        assert (await running.noted())[1] != 0
        await running.noted()
    await running.go_on()
