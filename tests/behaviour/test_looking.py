"""What the server reports about itself and its connections."""

import time
from typing import Any

import pytest
from application import KINDS, Note, add
from running import Running, Serve

from hubbub import ConnectionInfo, Frame, Opcode, Request, Server


async def connections(running: Running) -> set[int]:
    fds = await running.server.run(lambda server, note: list(server.connections))
    assert await running.server.run(lambda server, note: len(server.connections)) == len(fds)
    return set(fds)


def tells_fd(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))
    server.on("close", lambda server, fd: note("close"))


@pytest.mark.parametrize("kind", KINDS)
async def test_exists_and_info_in_each_moment_of_a_connection(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def look(moment: str, fd: int) -> None:
            info = server.info(fd)
            note(moment, server.exists(fd), fd in server.connections, info is not None and info.fd == fd)

        add(server, "open", kind, lambda server, request: look("open", request.fd))
        add(server, "message", kind, lambda server, frame: look("message", frame.fd))
        add(server, "close", kind, lambda server, fd: look("close", fd))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await running.noted() == ("open", True, True, True)
        assert await running.noted() == ("message", True, True, True)
    assert await running.noted() == ("close", False, False, True)


async def test_after_close_nothing_is_known(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        (fd,) = await running.noted()
    assert await running.noted() == ("close",)
    # Soon afterwards the server notices that the handler has ended.
    while await running.server.info(fd):
        pass
    assert not await running.server.exists(fd)


async def test_a_connection_does_not_exist_before_its_handshake_is_accepted(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("handshake", lambda server: note(len(server.connections)))

    running = await serve(application)
    async with running.connect():
        assert await running.noted() == (0,)
        assert len(await connections(running)) == 1


async def test_a_connection_does_not_exist_any_more_once_the_server_disconnects(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.raw() as client_that_does_not_answer:
        await client_that_does_not_answer.upgrade()
        fd = await running.opened()
        server = await running.owner(fd)
        await server.disconnect(fd)
        assert not await server.exists(fd)
        assert await server.info(fd) is not None
        assert await connections(running) == set()


async def test_connections_are_all_open_ids(serve: Serve) -> None:
    running = await serve(tells_fd)
    assert await connections(running) == set()
    async with running.connect():
        first = await running.opened()
        async with running.connect():
            second = await running.opened()
            assert await connections(running) == {first, second}
            things: list[Any] = [first, second, first + second, "first"]
            are_there = await running.server.run(lambda server, note: [thing in server.connections for thing in things])
            assert are_there == [True, True, False, False]
        await running.noted()
        assert await connections(running) == {first}


async def test_iterating_over_connections_takes_a_snapshot(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect(), running.connect():
        fds = {await running.opened(), await running.opened()}

        def disconnect_each(server: Server, note: Note) -> list[tuple[int, bool]]:
            return [(fd, server.disconnect(fd)) for fd in server.connections]

        assert set(await running.server.run(disconnect_each)) == {(fd, True) for fd in fds}


async def test_info_counts_messages_and_bytes(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        tells_fd(server, note)
        server.on("message", lambda server, frame: note(server.push(frame.fd, frame.data * 2)))

    before = time.time()
    running = await serve(application)
    async with running.connect() as client:
        (fd,) = await running.noted()
        opened = await running.server.info(fd)
        assert isinstance(opened, ConnectionInfo)
        assert (opened.fd, opened.client) == (fd, running.address_of(client))
        assert opened.worker_id in range(len(running.workers))
        assert before - 1 <= opened.opened_at <= time.time() + 1
        assert opened.opened_at <= opened.last_received_at <= time.time() + 1
        assert (opened.messages_in, opened.messages_out, opened.bytes_in, opened.bytes_out) == (0, 0, 0, 0)

        await client.send("é" * 10)
        await client.send(b"x" * 300)
        assert await client.recv() == "é" * 20
        assert await client.recv() == b"x" * 600
        # The client may have the messages before their worker has recorded that they are written.
        while (info := await running.server.info(fd)) and info.queued_bytes:
            pass
        assert info is not None
        assert (info.messages_in, info.messages_out) == (2, 2)
        assert (info.bytes_in, info.bytes_out) == (320, 640)
        assert info.last_received_at >= opened.last_received_at


async def test_info_has_the_path_and_the_number_of_topics(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note(request.fd))

    running = await serve(application)
    long = "/" + "é" * 40
    for path, shown in [
        ("/", "/"),
        ("/chat/a%20b?token=secret", "/chat/a b"),
        ("/" + "%C3%A9" * 40, long[:32]),
        ("/" + "x" * 200, "/" + "x" * 63),
        ("/not-utf-8/%FF", "/not-utf-8/\ufffd"),
    ]:
        async with running.connect(path):
            fd = await running.opened()
            info = await running.server.info(fd)
            assert (info.path, info.topics) == (shown, 0)
            owner = await running.owner(fd)
            for topic in ("one", "other", "one"):
                assert await owner.subscribe(fd, topic)
            await owner.unsubscribe(fd, "other")
            assert (await running.server.info(fd)).topics == 1


async def test_info_has_the_latency_of_the_last_ping(serve: Serve) -> None:
    running = await serve(tells_fd, ping_interval=0.1)
    async with running.connect():
        fd = await running.opened()
        while (info := await running.server.info(fd)).latency is None:
            pass
        assert 0 < info.latency < 20


async def test_fragments_count_as_one_message(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        (fd,) = await running.noted()
        await running.server.push(fd, "ab", finish=False)
        await running.server.push(fd, "cd", Opcode.CONTINUATION)
        assert await client.recv() == "abcd"
        info = await running.server.info(fd)
        assert info is not None
        assert (info.messages_out, info.bytes_out) == (1, 4)


async def test_queued_bytes_are_those_of_a_client_that_does_not_read(serve: Serve) -> None:
    limit = 1024 * 1024
    running = await serve(tells_fd, slow_consumer="drop", send_queue_size=limit)

    def fill(server: Server, note: Note) -> None:
        while server.push(fd, b"x" * 100_000):
            pass

    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        fd = await running.opened()
        await (await running.owner(fd)).run(fill)
        info = await running.server.info(fd)
        assert limit - 200_000 < info.queued_bytes <= limit + 1000
        assert (await running.server.stats())["queued_bytes"] == info.queued_bytes


async def test_stats_count_since_the_start(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("handshake", lambda server, request: request.path != "/no")
        server.on("message", lambda server, frame: note(server.push(frame.fd, frame.data)))
        server.on("close", lambda server, fd: note("close"))

    before = time.time()
    running = await serve(application)
    async with running.raw() as refused:
        assert (await refused.upgrade(path="/no")).status == 403
    async with running.connect() as client:
        await client.send("hello")
        await client.recv()
    while await running.noted() != ("close",):
        pass
    async with running.connect():
        stats = await running.nothing_queued()
    assert before - 1 <= stats["started_at"] <= time.time() + 1
    counts = {
        "connections": 1,
        "accepted": 2,
        "refused": 1,
        "closed": 1,
        "messages_in": 1,
        "messages_out": 1,
        "bytes_in": 5,
        "bytes_out": 5,
        "queued_bytes": 0,
        "slow_consumers_closed": 0,
        "memory_closed": 0,
        "restarts": 0,
    }
    assert {name: stats[name] for name in counts} == counts
    workers = stats["workers"]
    assert [worker["worker_id"] for worker in workers] == list(range(len(running.workers)))
    assert {name: sum(worker[name] for worker in workers) for name in counts} == counts
    assert all(before - 1 <= worker["started_at"] <= time.time() + 1 for worker in workers)


async def test_worker_id_port_and_settings() -> None:
    server = Server(port=0, max_message_size=1000)
    assert server.worker_id is None
    assert server.port == 0
    async with server:
        assert server.worker_id == 0
        assert 0 < server.port < 65536
        assert server.settings.port == 0
        assert server.settings.max_message_size == 1000
        with pytest.raises(AttributeError):
            server.settings.max_message_size = 2000  # type: ignore[misc]
    assert server.worker_id is None


async def test_handlers_may_look_from_a_thread(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        def on_message(server: Server, frame: Frame) -> None:
            info = server.info(frame.fd)
            note(server.exists(frame.fd), list(server.connections) == [frame.fd], info and info.messages_in)
            note(server.stats()["messages_in"], info and info.worker_id == server.worker_id)

        server.on("message", on_message, threaded=True)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await running.noted() == (True, True, 1)
        assert await running.noted() == (1, True)


async def test_frames_and_requests_can_be_printed(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(repr(request), repr(server))

        server.on("message", lambda server, frame: note(repr(frame)))

    running = await serve(application)
    async with running.connect("/chat") as client:
        request, server = await running.noted()
        assert "/chat" in request
        assert str(running.uds or running.port) in server
        await client.send("hello")
        assert "hello" in (await running.noted())[0]
