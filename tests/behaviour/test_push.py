"""Sending to one connection."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from application import KINDS, Note, add
from running import Serve, all_from

from hubbub import Frame, NotRunning, Opcode, Request, Server


def tells_fd(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))
    server.on("close", lambda server, fd, code: note("close", code))


async def test_str_goes_as_text_and_bytes_like_as_binary(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        for data in ("text", "", "é\0😀", b"bytes", b"", bytearray(b"array")):
            assert await running.server.push(fd, data) is True
        assert await running.server.run(lambda server, note: server.push(fd, memoryview(b"xviewx")[1:5])) is True
        received = [await client.recv() for _ in range(7)]
        assert received == ["text", "", "é\0😀", b"bytes", b"", b"array", b"view"]


async def test_views_that_are_not_contiguous_are_sent_as_bytes(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        assert await running.server.run(lambda server, note: server.push(fd, memoryview(b"a-b-c-")[::2]))
        assert await client.recv() == b"abc"


async def test_opcode_overrides_the_type(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        assert await running.server.push(fd, b"text", Opcode.TEXT)
        assert await running.server.push(fd, "bytes", opcode=Opcode.BINARY)
        assert [await client.recv(), await client.recv()] == ["text", b"bytes"]


async def test_other_opcodes_are_value_errors(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        fd = await running.opened()
        for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG, 3, 11, -1, 256, 2**70):
            with subtests.test(opcode=opcode), pytest.raises(ValueError, match="opcode"):
                await running.server.push(fd, "x", opcode)


async def test_other_types_are_type_errors(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        fd = await running.opened()
        for data in (None, 1, 1.5, ("a",), object()):
            with subtests.test(data=data), pytest.raises(TypeError):
                await running.server.push(fd, data)


async def test_to_an_id_that_never_was_it_is_false(serve: Serve, subtests: pytest.Subtests) -> None:
    server = (await serve(tells_fd)).server
    for fd in (0, -1, 1, 2**53, 2**64, -(2**70)):
        with subtests.test(fd=fd):
            assert await server.push(fd, "x") is False
            assert await server.ping(fd) is False
            assert await server.disconnect(fd) is False
            assert await server.subscribe(fd, "topic") is False
            assert await server.unsubscribe(fd, "topic") is False
            assert await server.exists(fd) is False
            assert await server.info(fd) is None
            await server.broadcast("x", exclude=[fd])


async def test_an_id_that_is_no_int_is_a_type_error(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    for fd in ("1", None, 1.0):
        with subtests.test(fd=fd), pytest.raises(TypeError):
            await running.server.push(fd, "x")


async def test_to_an_id_that_is_gone_it_is_false(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        fd = await running.opened()
    assert await running.noted() == ("close", 1000)
    assert await running.server.push(fd, "x") is False
    assert await running.server.disconnect(fd) is False


async def test_ids_are_not_used_again_and_fit_into_53_bits(serve: Serve) -> None:
    running = await serve(tells_fd)
    seen = set()
    for _ in range(20):
        async with running.connect():
            seen.add(await running.opened())
        await running.noted()
    assert len(seen) == 20
    assert all(0 < fd < 2**53 for fd in seen)


async def test_text_given_as_bytes_must_be_utf8(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        fd = await running.opened()
        for data in (b"\xff", b"\xc3", b"\xed\xa0\x80"):
            with subtests.test(data=data), pytest.raises(ValueError, match="UTF-8"):
                await running.server.push(fd, data, Opcode.TEXT)


async def test_a_str_that_utf8_cannot_express_is_a_value_error(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    async with running.connect():
        fd = await running.opened()
        says = "^data must be text that UTF-8 can express, without lone surrogates$"
        text = "\ud800"
        for call, arguments in (
            ("push", (fd, text)),
            ("send", (fd, text)),
            ("ping", (fd, text)),
            ("publish", ("topic", text)),
            ("broadcast", (text,)),
            ("send_message", (text, 0)),
        ):
            with subtests.test(call=call), pytest.raises(ValueError, match=says):
                await getattr(running.server, call)(*arguments)


async def test_a_message_above_send_queue_size_is_a_value_error(serve: Serve) -> None:
    running = await serve(tells_fd, send_queue_size=2000)
    async with running.connect() as client:
        fd = await running.opened()
        for method, arguments in (("push", [fd]), ("publish", ["topic"]), ("broadcast", [])):
            with pytest.raises(ValueError, match="send_queue_size"):
                await getattr(running.server, method)(*arguments, "x" * 2001)
        assert await running.server.push(fd, "x" * 2000)
        assert await client.recv() == "x" * 2000


# Fragments.


async def test_fragments_are_sent_as_they_are_given(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        assert await running.server.push(fd, "one ", finish=False)
        assert await client.frame() == (Opcode.TEXT, b"one ", False, False)
        assert await running.server.push(fd, "two ", Opcode.CONTINUATION, finish=False)
        assert await client.frame() == (Opcode.CONTINUATION, b"two ", False, False)
        assert await running.server.push(fd, "three", Opcode.CONTINUATION)
        assert await client.frame() == (Opcode.CONTINUATION, b"three", True, False)


async def test_anything_else_waits_for_the_end_of_a_fragmented_message(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        server = running.server
        await server.subscribe(fd, "topic")
        assert await server.push(fd, "a", finish=False)
        assert await server.push(fd, "pushed")
        await server.publish("topic", "published")
        await server.broadcast("broadcast")
        assert await server.push(fd, b"another ", finish=False)
        assert await server.push(fd, "last")
        assert await server.push(fd, "b", Opcode.CONTINUATION)
        assert await server.push(fd, b"one", Opcode.CONTINUATION)
        received = [await client.recv() for _ in range(6)]
        assert received == ["ab", "pushed", "published", "broadcast", b"another one", "last"]


async def test_a_disconnect_lets_the_fragmented_message_end_first(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        server = await running.owner(fd)
        await server.subscribe(fd, "topic")
        assert await server.push(fd, "a", finish=False)
        assert await server.push(fd, "pushed")
        await server.publish("topic", "published")
        await server.broadcast("broadcast")
        assert await server.disconnect(fd, 4000, "bye")
        assert await server.push(fd, "too late") is False
        assert await server.push(fd, "b", Opcode.CONTINUATION)
        received = await all_from(client)
        assert received == ["ab", "pushed", "published", "broadcast"]
        assert (client.close_code, client.close_reason) == (4000, "bye")


async def test_a_ping_may_stand_between_fragments(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        await running.server.push(fd, b"a", finish=False)
        assert await running.server.ping(fd, b"now")
        await running.server.push(fd, b"b", Opcode.CONTINUATION)
        opcodes = [(await client.frame()).opcode for _ in range(3)]
        assert opcodes == [Opcode.BINARY, Opcode.PING, Opcode.CONTINUATION]


async def test_characters_may_be_split_over_fragments_but_must_be_whole_at_the_end(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        push = (await running.owner(fd)).push
        assert await push(fd, "é".encode()[:1], Opcode.TEXT, finish=False)
        with pytest.raises(ValueError, match="UTF-8"):
            await push(fd, b"", Opcode.CONTINUATION)
        assert await push(fd, "é".encode()[1:], Opcode.CONTINUATION)
        assert await client.recv() == "é"


async def test_a_continuation_of_nothing_is_not_sent(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.connect() as client:
        fd = await running.opened()
        server = await running.owner(fd)
        assert await server.push(fd, "b", Opcode.CONTINUATION) is False
        assert await server.push(fd, "whole")
        assert await client.recv() == "whole"


# Pings.


async def test_ping_carries_at_most_125_bytes(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        assert await running.server.ping(fd)
        assert await client.frame() == (Opcode.PING, b"", True, False)
        assert await running.server.ping(fd, b"x" * 125)
        assert await client.frame() == (Opcode.PING, b"x" * 125, True, False)
        with pytest.raises(ValueError, match="125"):
            await running.server.ping(fd, b"x" * 126)


async def test_a_ping_of_the_client_is_answered(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with running.raw() as client:
        await client.upgrade()
        client.send_frame(Opcode.PING, b"there?")
        assert await client.frame() == (Opcode.PONG, b"there?", True, False)


# Places to send from.


@pytest.mark.parametrize("kind", KINDS)
async def test_from_inside_open_and_message(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_open(server: Server, request: Request) -> None:
            note(server.push(request.fd, "welcome"))

        def on_message(server: Server, frame: Frame) -> None:
            note(server.push(frame.fd, frame.data))

        add(server, "open", kind, on_open)
        add(server, "message", kind, on_message)

    running = await serve(application)
    async with running.connect() as client:
        assert await client.recv() == "welcome"
        await client.send("hello")
        assert await client.recv() == "hello"
    assert [await running.noted(), await running.noted()] == [(True,), (True,)]


@pytest.mark.parametrize("kind", KINDS)
async def test_from_inside_close_to_others(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_close(server: Server, fd: int) -> None:
            note(server.push(fd, "to itself"))
            server.broadcast("somebody left")

        add(server, "close", kind, on_close)

    running = await serve(application)
    async with running.connect() as other:
        async with running.connect():
            pass
        assert await other.recv() == "somebody left"
        assert await running.noted() == (False,)


def from_task(server: Server, send: Callable[[], None]) -> None:
    async def task() -> None:
        await asyncio.sleep(0)
        send()

    server.__dict__["kept_task"] = asyncio.get_running_loop().create_task(task())


def from_thread(server: Server, send: Callable[[], None]) -> None:
    threading.Thread(target=send).start()


def from_timer(server: Server, send: Callable[[], None]) -> None:
    server.after(0.001, send)


@pytest.mark.parametrize("place", [from_task, from_thread, from_timer])
async def test_from_elsewhere_in_the_order_of_the_calls(
    serve: Serve, place: Callable[[Server, Callable[[], None]], None]
) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            def send() -> None:
                note(*(server.push(request.fd, str(number)) for number in range(50)))
                note(server.disconnect(request.fd, 4000, "that is all"))

            place(server, send)

    running = await serve(application)
    async with running.connect() as client:
        received = await all_from(client)
    assert received == [str(number) for number in range(50)]
    assert (client.close_code, client.close_reason) == (4000, "that is all")
    assert await running.noted() == (True,) * 50
    assert await running.noted() == (True,)


async def test_several_threads_each_keep_their_order(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            def send(name: str) -> None:
                for number in range(100):
                    assert server.push(request.fd, f"{name} {number}")

            for name in "abcd":
                threading.Thread(target=send, args=(name,)).start()

    running = await serve(application)
    async with running.connect() as client:
        received = [str(await client.recv()) for _ in range(400)]
    for name in "abcd":
        own = [message for message in received if message.startswith(name)]
        assert own == [f"{name} {number}" for number in range(100)]


# Not running.


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.push(1, "x"),
        lambda server: server.ping(1),
        lambda server: server.disconnect(1),
        lambda server: server.broadcast("x"),
        lambda server: server.subscribe(1, "topic"),
        lambda server: server.unsubscribe(1, "topic"),
        lambda server: server.publish("topic", "x"),
        lambda server: server.exists(1),
        lambda server: server.info(1),
        lambda server: server.stats(),
        lambda server: len(server.connections),
        lambda server: list(server.connections),
        lambda server: 1 in server.connections,
        lambda server: server.tick(1, print),
        lambda server: server.after(1, print),
        lambda server: server.shutdown(),
    ],
)
async def test_before_and_after_it_runs_calls_raise_not_running(call: Callable[[Server], object]) -> None:
    server = Server(port=0)
    with pytest.raises(NotRunning):
        call(server)
    async with server:
        pass
    with pytest.raises(NotRunning):
        call(server)


async def test_subscribers_raises_not_running() -> None:
    with pytest.raises(NotRunning):
        await Server(port=0).subscribers("topic")
