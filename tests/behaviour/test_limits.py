"""Limits on sizes, queues and times."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable
from contextlib import AsyncExitStack, ExitStack

import pytest
from application import Note
from running import Running, Serve, all_from
from websockets.exceptions import InvalidStatus

from hubbub import ConnectionInfo, Frame, Opcode, Server

CHUNK = b"x" * 64 * 1024


def tells_all(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))
    server.on("message", lambda server, frame: note("message", len(frame.data)))
    server.on("close", lambda server, fd, code, reason: note("close", code, reason))
    server.on("drain", lambda server, fd: note("drain", fd))


# Sizes.


async def test_a_message_of_max_message_size_is_taken_and_a_longer_one_is_1009(serve: Serve) -> None:
    running = await serve(tells_all, max_message_size=70_000)
    async with running.connect() as client:
        await running.opened()
        await client.send(b"x" * 70_000)
        assert await running.noted() == ("message", 70_000)
        await client.send([b"x" * 35_000, b"x" * 35_000])
        assert await running.noted() == ("message", 70_000)
        await client.send(b"x" * 70_001)
        await client.wait_closed()
        assert client.close_code == 1009
    assert await running.noted() == ("close", 1006, "1009")


async def test_fragments_that_are_too_long_together_are_1009(serve: Serve) -> None:
    running = await serve(tells_all, max_message_size=1000)
    async with running.connect() as client:
        await running.opened()
        await client.send([b"x" * 600, b"x" * 401])
        await client.wait_closed()
        assert client.close_code == 1009


async def test_the_header_of_a_frame_that_is_too_long_is_enough_for_1009(serve: Serve) -> None:
    running = await serve(tells_all, max_message_size=1000)
    async with running.raw() as client:
        await client.upgrade()
        client.send(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00")
        assert (await client.close_frame())[0] == 1009


async def test_max_message_size_counts_bytes_of_utf8(serve: Serve) -> None:
    running = await serve(tells_all, max_message_size=1000)
    async with running.connect() as client:
        await running.opened()
        await client.send("é" * 500)
        assert await running.noted() == ("message", 500)
        await client.send("é" * 501)
        await client.wait_closed()
        assert client.close_code == 1009


@pytest.mark.parametrize("is_upgrade", [False, True])
async def test_a_request_head_of_max_header_size_is_taken_and_a_longer_one_is_431(
    serve: Serve, is_upgrade: bool
) -> None:
    running = await serve(tells_all, max_header_size=2000)
    begin = "GET / HTTP/1.1\r\nHost: h\r\n"
    if is_upgrade:
        begin += (
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
    padding = 2000 - len(begin) - len("X: \r\n\r\n")
    async with running.raw() as client:
        client.send(f"{begin}X: {'x' * padding}\r\n\r\n")
        assert (await client.answer()).status == (101 if is_upgrade else 426)
    async with running.raw() as client:
        client.send(f"{begin}X: {'x' * padding}x\r\n\r\n")
        assert (await client.answer()).status == 431
        assert await client.rest() == b""


async def test_a_request_head_without_end_is_431(serve: Serve) -> None:
    running = await serve(tells_all, max_header_size=2000)
    async with running.raw() as client:
        client.send("GET / HTTP/1.1\r\nHost: h\r\nX: " + "x" * 2000)
        assert (await client.answer()).status == 431


# Incoming messages.


async def test_a_connection_whose_handler_lags_is_not_read(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note(request.fd))

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            if frame.data == b"wait":
                note("waiting")
                await note.goes_on.wait()
            elif frame.data == b"last":
                note("last")

        @server.on("request")
        def on_request(server: Server) -> str:
            return "alive"

    running = await serve(application, receive_queue=4)
    async with running.raw() as client, running.raw() as other:
        await client.upgrade()
        fd = await running.opened()
        client.send_frame(Opcode.BINARY, b"wait")
        assert await running.noted() == ("waiting",)
        # This is more than all buffers between client and server can hold.
        for _ in range(100):
            client.send_frame(Opcode.BINARY, b"x" * 500_000)
        client.send_frame(Opcode.BINARY, b"last")
        while await messages_in(running, fd) < 3:
            other.ask("/")
            assert (await other.answer()).body == b"alive"
        # One message is being handled, and four wait (at most 1 MiB after the first). No other connection has to wait.
        for _ in range(20):
            other.ask("/")
            assert (await other.answer()).body == b"alive"
        info = await running.server.info(fd)
        assert info is not None
        assert info.messages_in <= 1 + 4
        assert info.bytes_in < 2_500_000
        # Now the server reads and handles the rest.
        await running.go_on()
        assert await running.noted() == ("last",)
        assert await messages_in(running, fd) == 102


@pytest.mark.parametrize("receive_queue", [1, 3])
async def test_receive_queue_is_how_many_messages_wait(serve: Serve, receive_queue: int) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note(request.fd))

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note("begins")
            await note.goes_on.wait()

    running = await serve(application, receive_queue=receive_queue)
    async with running.raw() as client, running.raw() as other:
        await client.upgrade()
        fd = await running.opened()
        for number in range(20):
            client.send_frame(Opcode.TEXT, str(number).encode())
        assert await running.noted() == ("begins",)
        while await messages_in(running, fd) < 1 + receive_queue:
            other.ask("/health")
            await other.answer()
        for _ in range(20):
            other.ask("/health")
            await other.answer()
        assert await messages_in(running, fd) == 1 + receive_queue
        await running.go_on()
        assert [await running.noted() for _ in range(19)] == [("begins",)] * 19


async def messages_in(running: Running, fd: int) -> int:
    info = await running.server.info(fd)
    assert isinstance(info, ConnectionInfo)
    return info.messages_in


@pytest.mark.parametrize("threads", [1, 2])
async def test_threads_is_how_many_threaded_handlers_run_at_a_time(serve_here: Serve, threads: int) -> None:
    def application(server: Server, note: Note) -> None:
        # The barrier opens when this many handlers run at the same time.
        barrier = threading.Barrier(threads)
        at_work: set[int] = set()

        def on_message(server: Server, frame: Frame) -> None:
            at_work.add(frame.fd)
            barrier.wait()
            note(len(at_work))
            barrier.wait()
            at_work.discard(frame.fd)

        server.on("message", on_message, threaded=True)

    running = await serve_here(application, threads=threads)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            client = await stack.enter_async_context(running.connect())
            await client.send("work")
        assert [await running.noted() for _ in range(4)] == [(threads,)] * 4


# Outgoing messages.


async def fill(running: Running, fd: int) -> int:
    """Push to a client that does not read until it is refused; return how many messages were queued."""

    def push_on(server: Server, note: Note) -> int:
        count = 0
        while server.push(fd, CHUNK):
            count += 1
        return count

    count = await (await running.owner(fd)).run(push_on)
    assert isinstance(count, int)
    return count


async def test_a_slow_consumer_is_closed_with_1013(serve: Serve) -> None:
    running = await serve(tells_all, send_queue_size=1024 * 1024)
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        fd = await running.opened()
        await fill(running, fd)
        assert await running.server.exists(fd) is False
        assert await running.server.push(fd, b"more") is False
        assert (await running.server.stats())["slow_consumers_closed"] == 1
        # The frame being sent is whole, and the Close follows it.
        assert (await client.frame()).payload == CHUNK
        assert (await client.close_frame())[0] == 1013
        client.send_close(1013)
        assert await client.rest() == b""
    assert await running.noted() == ("close", 1013, "")
    await running.nothing_queued()


async def test_a_slow_consumer_that_never_reads_is_reset_after_close_timeout(serve: Serve) -> None:
    running = await serve(tells_all, send_queue_size=1024 * 1024, close_timeout=0.05)
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        fd = await running.opened()
        await fill(running, fd)
        code, reason = (await running.noted())[1:]
        assert code == 1006
        assert "1013" in reason
        assert (await running.nothing_queued())["connections"] == 0


async def test_beyond_max_memory_the_largest_slow_consumer_is_closed(serve: Serve) -> None:
    running = await serve(tells_all, max_memory=4 * 1024 * 1024, send_queue_size=8 * 1024 * 1024)
    async with running.connect() as other, running.raw(receive_buffer=4096) as client:
        await running.opened()
        await client.upgrade()
        fd = await running.opened()
        await fill(running, fd)
        assert await running.server.exists(fd) is False
        stats = await running.server.stats()
        assert (stats["memory_closed"], stats["slow_consumers_closed"]) == (1, 0)
        assert stats["held_bytes"] < 4 * 1024 * 1024
        assert (await client.close_frame())[0] == 1013
        client.send_close(1013)
        assert await client.rest() == b""
        await running.server.broadcast("still here")
        assert await other.recv() == "still here"


@pytest.mark.parametrize("policy", ["close", "drop"])
async def test_a_full_outbox_refuses_pushes_from_elsewhere_too(serve: Serve, policy: str) -> None:
    running = await serve(tells_all, send_queue_size=1024 * 1024, slow_consumer=policy)
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        fd = await running.opened()

        def push_on(server: Server) -> int:
            # A push may be refused only because others are still on their way to the outbox. So go on until the server
            # has applied its policy.
            while server.stats()["slow_consumers_closed"] + server.stats()["messages_dropped"] == 0:
                server.push(fd, CHUNK)
            taken = 0
            while server.push(fd, CHUNK):
                taken += 1
            return taken

        taken = await running.server.run(lambda server, note: asyncio.to_thread(push_on, server))
        # The kernel and the client's transport may still take some messages, so there may be room again.
        assert taken == 0 or policy == "drop"
        assert await running.server.exists(fd) is (policy == "drop")


async def test_messages_for_a_slow_consumer_are_dropped_and_counted(serve: Serve) -> None:
    running = await serve(tells_all, send_queue_size=1024 * 1024, slow_consumer="drop")
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        fd = await running.opened()
        # The kernel and the client's transport may still take some messages, so there may be room again.
        queued, refused = await fill(running, fd), 1
        server = await running.owner(fd)
        assert await server.exists(fd)
        for _ in range(10):
            if await server.push(fd, CHUNK):
                queued += 1
            else:
                refused += 1
        assert (await server.stats())["messages_dropped"] == refused
        await server.broadcast(CHUNK)
        refused_more = (await server.stats())["messages_dropped"] - refused
        assert refused_more in (0, 1)
        queued += 1 - refused_more
        assert (await server.stats())["slow_consumers_closed"] == 0
        for _ in range(queued):
            assert (await client.frame()).payload == CHUNK
        # There is room again, and no dropped message arrives.
        assert await running.noted() == ("drain", fd)
        assert await running.server.push(fd, b"the end")
        assert (await client.frame()).payload == b"the end"


async def test_a_publish_closes_the_slow_one_and_reaches_the_others(serve: Serve) -> None:
    running = await serve(tells_all, send_queue_size=1024 * 1024)
    async with running.raw(receive_buffer=4096) as slow, running.connect(max_size=None) as quick:
        await slow.upgrade()
        fds = {await running.opened(), await running.opened()}
        for fd in fds:
            await running.server.subscribe(fd, "news")
        published = 0
        while (await running.server.stats())["connections"] == 2:
            await running.server.publish("news", CHUNK)
            published += 1
            assert await quick.recv() == CHUNK
            assert published < 1000
        await running.server.publish("news", "the end")
        assert await quick.recv() == "the end"
        assert (await running.server.stats())["slow_consumers_closed"] == 1


async def test_drain_tells_that_an_outbox_past_its_half_is_empty_again(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        drained: dict[int, asyncio.Event] = {}

        @server.on("open")
        async def on_open(server: Server, request: object) -> None:
            note("open")

        @server.on("drain")
        async def on_drain(server: Server, fd: int) -> None:
            drained[fd].set()

        # This handler waits for `drain`, which therefore must not wait for the handler.
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            event = drained.setdefault(frame.fd, asyncio.Event())
            sent = 0
            while sent < 30:
                event.clear()
                if server.push(frame.fd, CHUNK):
                    sent += 1
                else:
                    note("full")
                    await event.wait()
            server.push(frame.fd, "that is all")

    running = await serve(application, send_queue_size=128 * 1024, slow_consumer="drop")
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"go")
        assert await running.noted() == ("open",)
        for _ in range(30):
            assert (await client.frame()).payload == CHUNK
        assert (await client.frame()).payload == b"that is all"


@pytest.mark.parametrize("end", ["the client goes", "the server disconnects", "the handler disconnects"])
async def test_a_handler_that_waits_for_drain_waits_no_longer_than_its_connection_is_there(
    serve: Serve, end: str
) -> None:
    def application(server: Server, note: Note) -> None:
        drained = asyncio.Event()
        server.on("drain", lambda server, fd: drained.set())
        server.on("close", lambda server, fd: note("close"))

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            while server.push(frame.fd, CHUNK):
                pass
            if end == "the handler disconnects":
                server.disconnect(frame.fd)
            note("full", frame.fd)
            await drained.wait()
            note("goes on", server.push(frame.fd, CHUNK))

    running = await serve(application, send_queue_size=128 * 1024, slow_consumer="drop", close_timeout=1)
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"go")
        _, fd = await running.noted()
        if end == "the client goes":
            client.reset()
        elif end == "the server disconnects":
            assert await running.server.disconnect(fd)
        assert await running.noted() == ("goes on", False)
        assert await running.noted() == ("close",)


async def test_drain_comes_once_and_finds_the_outbox_empty(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            queued = 0
            # A full outbox is flushed at once, so fill it repeatedly until the client stops reading.
            while server.push(frame.fd, CHUNK):
                queued += 1
            note(queued)

        @server.on("drain")
        def on_drain(server: Server, fd: int) -> None:
            info = server.info(fd)
            note("drain", info and info.queued_bytes)

        server.on("close", lambda: note("close"))

    running = await serve(application, send_queue_size=128 * 1024, slow_consumer="drop")
    async with running.raw(receive_buffer=4096) as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"go")
        (queued,) = await running.noted()
        for _ in range(queued):
            assert (await client.frame()).payload == CHUNK
    assert [await running.noted(), await running.noted()] == [("drain", 0), ("close",)]


async def test_an_outbox_that_stays_below_its_half_has_no_drain(serve: Serve) -> None:
    running = await serve(tells_all, send_queue_size=1024 * 1024)
    async with running.connect() as client:
        fd = await running.opened()
        for _ in range(4):
            await running.server.push(fd, CHUNK)
        for _ in range(4):
            await client.recv()
    assert await running.noted() == ("close", 1000, "")


@pytest.mark.parametrize("kind", ["sync", "async", "threaded"])
async def test_a_drain_handler_that_fails_is_logged(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note(request.fd))

        def fail(server: Server, fd: int) -> None:
            note("drain")
            raise LookupError("in drain")

        async def fail_later(server: Server, fd: int) -> None:
            fail(server, fd)

        server.on("drain", fail_later if kind == "async" else fail, threaded=kind == "threaded")

    # More than the chunk: for another worker, the answer to the handshake may still take some of it.
    running = await serve(application, send_queue_size=96 * 1024)
    async with running.connect() as client:
        fd = await running.opened()
        assert await running.server.push(fd, CHUNK)
        assert await client.recv() == CHUNK
        assert await running.noted() == ("drain",)
        assert await running.server.push(fd, "still here")
        assert await client.recv() == "still here"
    await running.stop()
    await running.log.tells("LookupError: in drain")


# Time.


async def test_pings_are_sent_and_pongs_keep_the_connection(serve: Serve) -> None:
    running = await serve(tells_all, ping_interval=0.01, ping_timeout=10.0)
    async with running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        for _ in range(5):
            frame = await client.frame()
            assert frame.opcode == Opcode.PING
            client.send_frame(Opcode.PONG, frame.payload)
        assert await running.server.exists(fd)


async def test_no_pong_in_time_is_1011_and_then_the_socket_is_closed(serve: Serve) -> None:
    running = await serve(tells_all, ping_interval=0.01, ping_timeout=0.02, close_timeout=0.02)
    async with running.raw() as client:
        await client.upgrade()
        await running.opened()
        assert (await client.frame()).opcode == Opcode.PING
        assert (await client.close_frame())[0] == 1011
        assert await client.rest() == b""
    code, reason = (await running.noted())[1:]
    assert code == 1006
    assert "1011" in reason


async def test_without_ping_timeout_a_pong_may_take_for_ever(serve: Serve) -> None:
    running = await serve(tells_all, ping_interval=0.01, ping_timeout=None)
    async with running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        for _ in range(20):
            assert (await client.frame()).opcode == Opcode.PING
        assert await running.server.exists(fd)


async def test_the_pong_clock_stands_still_while_the_socket_is_not_read(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("close", lambda server, fd, code: note("close", code))

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note("message", frame.data)
            await note.goes_on.wait()

    running = await serve(application, receive_queue=1, ping_interval=0.05, ping_timeout=0.4)
    async with running.connect() as client:
        for number in range(5):
            await client.send(str(number))
        assert await running.noted() == ("message", "0")
        # The client's pong comes after messages that the server does not read for several times `ping_timeout`.
        assert await quiet(running, 1.0)
        await running.go_on()
        assert [await running.noted() for _ in range(4)] == [("message", str(number)) for number in range(1, 5)]
        await client.send("still here")
        assert await running.noted() == ("message", "still here")


async def quiet(running: Running, seconds: float) -> bool:
    """Return whether nothing is noted for this long."""
    try:
        await asyncio.wait_for(running.noted(), seconds)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("sent", ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\n"])
async def test_a_request_must_be_there_within_handshake_timeout(serve: Serve, sent: str) -> None:
    running = await serve(tells_all, handshake_timeout=0.2)
    async with running.raw() as client:
        client.send(sent)
        if sent:
            assert (await client.answer()).status == 408
        assert await client.rest() == b""


async def test_bytes_that_trickle_in_do_not_prolong_handshake_timeout(serve: Serve) -> None:
    running = await serve(tells_all, handshake_timeout=0.2)

    async def trickle() -> None:
        while True:
            client.send("x")
            await asyncio.sleep(0.005)

    async with running.raw() as client:
        client.send("GET /")
        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).status == 408
        trickling.cancel()


async def test_a_handler_may_take_longer_than_handshake_timeout(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("handshake")
        async def on_handshake(server: Server) -> None:
            await asyncio.sleep(0.3)

    running = await serve(application, handshake_timeout=0.2)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101


async def test_an_idle_http_connection_is_closed_after_keep_alive_timeout(serve: Serve) -> None:
    running = await serve(tells_all, keep_alive_timeout=0.03)
    async with running.raw() as client:
        client.ask("/health")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_who_has_hung_up_takes_no_place_while_the_handler_goes_on(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server) -> None:
            note()
            await note.goes_on.wait()

    running = await serve_here(application, max_connections=1)
    # This many connections are allowed besides WebSockets.
    for _ in range(1001):
        async with running.raw() as client:
            client.ask("/")
            assert await running.noted() == ()
    async with running.raw() as client:
        client.ask("/health")
        assert (await client.answer()).status == 200
    await running.go_on()


async def test_a_websocket_has_no_such_timeouts(serve: Serve) -> None:
    running = await serve(tells_all, keep_alive_timeout=0.2, handshake_timeout=0.2, ping_interval=None)
    async with running.raw() as client:
        await client.upgrade()
        await running.opened()
        assert await quiet(running, 0.3)
        client.send_frame(Opcode.TEXT, b"hello")
        assert await running.noted() == ("message", 5)


async def test_another_client_gets_in_after_one_was_refused(serve: Serve) -> None:
    running = await serve(tells_all, max_connections=1)
    async with running.connect() as first:
        fd = await running.opened()
        with pytest.raises(InvalidStatus):
            await running.connect()
        await running.server.disconnect(fd)
        assert await all_from(first) == []
    assert await running.noted() == ("close", 1000, "")
    async with running.connect():
        await running.opened()


async def test_backlog_is_how_many_wait_to_be_accepted(serve_here: Serve) -> None:
    running = await serve_here(tells_all, backlog=2)
    with ExitStack() as stack:
        # This keeps the event loop of the server from running, so that no connection is accepted.
        connected = 0
        with contextlib.suppress(TimeoutError):
            while connected < 10:
                stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=0.2))
                connected += 1
        # Linux queues one more than `backlog`.
        assert 2 <= connected <= 3
    async with running.connect():
        await running.opened()


# ---- topics ----------------------------------------------------------------------------------------------


async def test_a_connection_has_max_topics_at_most(serve: Serve) -> None:
    running = await serve(tells_all, max_topics=3)
    async with running.connect() as client, running.connect():
        fd, other = await running.opened(), await running.opened()
        server = running.server

        def subscribe_to_too_many(server: Server, note: Note) -> None:
            for topic in ("a", "b", "c", "d", "e"):
                server.subscribe(fd, topic)

        await server.run(subscribe_to_too_many)
        # This asks the connection's worker, which has carried out all of these calls before it answers.
        assert [await server.subscribers(topic) for topic in "abcde"] == [1, 1, 1, 0, 0]
        owner = await running.owner(fd)
        assert await owner.subscribe(fd, "f") is False
        assert await server.subscribe(fd, "f") is False
        assert await server.run(lambda server, note: asyncio.to_thread(server.subscribe, fd, "f")) is False
        # The connection's own worker counts refusals, and has counted these before it answers.
        assert await server.subscribers("f") == 0
        assert (await server.stats())["subscriptions_refused"] == 5
        await running.log.tells("max_topics (3)")
        # Topics it already has do not count again, other connections are not affected, and unsubscribing frees a place.
        assert await owner.subscribe(fd, "c") is True
        assert await server.subscribe(other, "d") is True
        assert await owner.unsubscribe(fd, "a") is True
        assert await owner.subscribe(fd, "f") is True
        for topic in "abcdef":
            await owner.publish(topic, topic)
        assert [await client.recv() for _ in range(3)] == ["b", "c", "f"]


async def test_a_topic_can_be_exchanged_at_max_topics_from_anywhere(serve: Serve) -> None:
    running = await serve(tells_all, max_topics=2)
    async with running.connect():
        fd = await running.opened()
        owner = await running.owner(fd)

        def exchange(server: Server, note: Note) -> list[bool]:
            return [server.unsubscribe(fd, old) and server.subscribe(fd, new) for old, new in ("ac", "bd", "ca", "db")]

        def in_thread(server: Server, note: Note) -> Awaitable[list[bool]]:
            return asyncio.to_thread(exchange, server, note)

        assert [await owner.subscribe(fd, topic) for topic in "ab"] == [True, True]
        for anywhere in (owner, running.server):
            for how in (exchange, in_thread):
                assert await anywhere.run(how) == [True] * 4
                assert [await anywhere.subscribers(topic) for topic in "abcd"] == [1, 1, 0, 0]
        assert (await owner.stats())["subscriptions_refused"] == 0
