"""What the server tells of itself and its connections."""

import time

import pytest
from running import KINDS, Note, Serve, add

from hubbub import ConnectionInfo, Frame, Opcode, Request, Server


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
    # The end of the handler has been seen by the time that another connection is served.
    async with running.connect():
        await running.noted()
        assert running.server.info(fd) is None
        assert not running.server.exists(fd)


async def test_a_connection_does_not_exist_before_its_handshake_is_accepted(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("handshake", lambda server: note(len(server.connections)))

    running = await serve(application)
    async with running.connect():
        assert await running.noted() == (0,)
        assert len(running.server.connections) == 1


async def test_a_connection_does_not_exist_any_more_once_the_server_disconnects(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        (fd,) = await running.noted()
        running.server.disconnect(fd)
        assert not running.server.exists(fd)
        assert running.server.info(fd) is not None
        assert len(running.server.connections) == 0


async def test_connections_are_all_open_ids(serve: Serve) -> None:
    running = await serve(tells_fd)
    connections = running.server.connections
    assert (len(connections), list(connections)) == (0, [])
    async with running.connect():
        (first,) = await running.noted()
        async with running.connect():
            (second,) = await running.noted()
            assert len(connections) == 2
            assert set(connections) == {first, second}
            assert first in connections
            assert second in connections
            assert first + second not in connections
            no_id: object = "first"
            assert no_id not in connections
            # A snapshot: what happens meanwhile does not disturb it.
            snapshot = iter(connections)
        await running.noted()
        assert set(snapshot) == {first, second}
        assert set(connections) == {first}


async def test_info_counts_messages_and_bytes(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        tells_fd(server, note)
        server.on("message", lambda server, frame: note(server.push(frame.fd, frame.data * 2)))

    before = time.time()
    running = await serve(application)
    async with running.connect() as client:
        (fd,) = await running.noted()
        opened = running.server.info(fd)
        assert isinstance(opened, ConnectionInfo)
        assert (opened.fd, opened.worker_id, opened.client) == (fd, 0, client.local_address)
        assert before - 1 <= opened.opened_at <= time.time() + 1
        assert opened.opened_at <= opened.last_received_at <= time.time() + 1
        assert (opened.messages_in, opened.messages_out, opened.bytes_in, opened.bytes_out) == (0, 0, 0, 0)

        await client.send("é" * 10)
        await client.send(b"x" * 300)
        assert await client.recv() == "é" * 20
        assert await client.recv() == b"x" * 600
        info = running.server.info(fd)
        assert info is not None
        assert (info.messages_in, info.messages_out) == (2, 2)
        assert (info.bytes_in, info.bytes_out) == (320, 640)
        assert info.queued_bytes == 0
        assert info.last_received_at >= opened.last_received_at


async def test_fragments_count_as_one_message(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        (fd,) = await running.noted()
        running.server.push(fd, "ab", finish=False)
        running.server.push(fd, "cd", Opcode.CONTINUATION)
        assert await client.recv() == "abcd"
        info = running.server.info(fd)
        assert info is not None
        assert (info.messages_out, info.bytes_out) == (1, 4)


async def test_queued_bytes_are_those_of_a_client_that_does_not_read(serve: Serve) -> None:
    running = await serve(tells_fd, slow_consumer="drop")
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        (fd,) = await running.noted()
        while running.server.push(fd, b"x" * 100_000):
            pass
        info = running.server.info(fd)
        assert info is not None
        limit = running.server.settings.send_queue_size
        assert limit - 200_000 < info.queued_bytes <= limit + 1000
        assert running.server.stats()["queued_bytes"] == info.queued_bytes


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
        stats = running.server.stats()
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
        "restarts": 0,
    }
    assert {name: stats[name] for name in counts} == counts
    (worker,) = stats["workers"]
    assert worker["worker_id"] == 0
    assert {name: worker[name] for name in counts} == counts
    assert worker["started_at"] == stats["started_at"]


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
            note(server.stats()["messages_in"], server.worker_id)

        server.on("message", on_message, threaded=True)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await running.noted() == (True, True, 1)
        assert await running.noted() == (1, 0)


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
        assert str(running.port) in server
        await client.send("hello")
        assert "hello" in (await running.noted())[0]
