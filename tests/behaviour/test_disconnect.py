"""The end of a connection, and the arguments that `close` gets (RFC 6455 §7)."""

import pytest
from application import KINDS, Note, add
from running import Serve, all_from

from hubbub import CloseCode, Frame, Opcode, Request, Server


def tells_close(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))
    server.on("close", lambda server, fd, code, reason: note("close", code, reason))


# We begin.


async def test_the_client_is_told_code_and_reason(serve: Serve) -> None:
    running = await serve(tells_close)
    for code, reason in (
        (1000, ""),
        (1001, "away"),
        (CloseCode.TRY_AGAIN_LATER, "später"),
        (3000, "x" * 123),
        (4999, "é" * 61),
    ):
        async with running.connect() as client:
            assert await running.server.disconnect(await running.opened(), code, reason) is True
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (code, reason)
        # The client has echoed it (RFC 6455 §5.5.1).
        assert await running.noted() == ("close", code, reason)


async def test_the_code_is_1000_unless_told(serve: Serve) -> None:
    running = await serve(tells_close)
    async with running.connect() as client:
        await running.server.disconnect(await running.opened())
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1000, "")


async def test_a_code_that_may_not_be_sent_is_a_value_error(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_close)
    async with running.connect():
        fd = await running.opened()
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, 70000):
            with subtests.test(code=code), pytest.raises(ValueError, match=str(code)):
                await running.server.disconnect(fd, code)
        for code in (2**70, -(2**70)):
            with subtests.test(code=code), pytest.raises(ValueError, match="close code"):
                await running.server.disconnect(fd, code)
        assert await running.server.exists(fd)


async def test_a_reason_of_more_than_123_bytes_is_a_value_error(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_close)
    async with running.connect():
        fd = await running.opened()
        for reason in ("x" * 124, "é" * 62):
            with subtests.test(reason=reason), pytest.raises(ValueError, match="123"):
                await running.server.disconnect(fd, 1000, reason)


async def test_what_was_pushed_before_is_sent_and_nothing_afterwards(serve: Serve) -> None:
    running = await serve(tells_close)
    async with running.connect() as client:
        fd = await running.opened()
        server = await running.owner(fd)
        assert await server.push(fd, "last words")
        assert await server.disconnect(fd)
        assert await server.push(fd, "one more") is False
        assert await server.ping(fd) is False
        assert await server.disconnect(fd, 4000) is False
        assert not await server.exists(fd)
        assert await all_from(client) == ["last words"]
        assert client.close_code == 1000


@pytest.mark.parametrize("kind", KINDS)
async def test_from_inside_open(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_open(server: Server, request: Request) -> None:
            server.push(request.fd, "no")
            server.disconnect(request.fd, 4003)

        add(server, "open", kind, on_open)
        server.on("message", lambda server: note("message"))
        server.on("close", lambda server, fd, code: note("close", code))

    running = await serve(application)
    async with running.connect() as client:
        assert await all_from(client) == ["no"]
        assert client.close_code == 4003
    assert await running.noted() == ("close", 4003)


async def test_no_message_is_handled_after_a_disconnect(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            note("message", frame.data)
            server.disconnect(frame.fd, 4000)

        server.on("close", lambda server, fd, code: note("close", code))

    running = await serve(application)
    async with running.raw() as client:
        client.ask_for_upgrade()
        for data in (b"first", b"second", b"third"):
            client.send_frame(Opcode.TEXT, data)
        await client.answer()
        assert await client.close_frame() == (4000, "")
        client.send_close(4000)
        assert await client.rest() == b""
    assert await running.noted() == ("message", "first")
    assert await running.noted() == ("close", 4000)


async def test_a_peer_that_never_answers_is_1006_with_our_code_as_the_reason(serve: Serve) -> None:
    running = await serve(tells_close, close_timeout=0.05)
    async with running.raw() as client:
        await client.upgrade()
        await running.server.disconnect(await running.opened(), 4000, "bye")
        assert await client.close_frame() == (4000, "bye")
        # After `close_timeout` the server cuts it off.
        assert await client.rest() == b""
        code, reason = (await running.noted())[1:]
    assert code == 1006
    assert "4000" in reason


async def test_a_peer_that_breaks_off_instead_of_an_answer_is_1006_with_our_code(serve: Serve) -> None:
    running = await serve(tells_close)
    async with running.raw() as client:
        await client.upgrade()
        await running.server.disconnect(await running.opened(), 4000, "bye")
        await client.close_frame()
    code, reason = (await running.noted())[1:]
    assert code == 1006
    assert "4000" in reason


async def test_a_peer_that_answers_with_another_code(serve: Serve) -> None:
    running = await serve(tells_close)
    async with running.raw() as client:
        await client.upgrade()
        await running.server.disconnect(await running.opened(), 4000, "bye")
        await client.close_frame()
        client.send_close(4001, "you too")
        assert await client.rest() == b""
    assert await running.noted() == ("close", 4001, "you too")


# The peer begins.


async def test_the_code_and_reason_that_the_peer_sends(serve: Serve) -> None:
    running = await serve(tells_close)
    for code, reason in ((1000, ""), (1001, "away"), (4999, "é" * 61)):
        async with running.raw() as client:
            await client.upgrade()
            await running.noted()
            client.send_close(code, reason)
            # RFC 6455 §5.5.1: the status code is echoed. §7.1.1: the server closes the connection first.
            assert (await client.close_frame())[0] == code
            assert await client.rest() == b""
        assert await running.noted() == ("close", code, reason)


async def test_a_close_without_a_code_is_1005(serve: Serve) -> None:
    running = await serve(tells_close)
    async with running.raw() as client:
        await client.upgrade()
        await running.noted()
        client.send_frame(Opcode.CLOSE)
        assert await client.frame() == (Opcode.CLOSE, b"", True, False)
    assert await running.noted() == ("close", 1005, "")


@pytest.mark.parametrize("in_the_middle_of_a_frame", [False, True])
@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_connection_that_breaks_is_1006(serve: Serve, by_reset: bool, in_the_middle_of_a_frame: bool) -> None:
    running = await serve(tells_close)
    async with running.raw() as client:
        await client.upgrade()
        await running.noted()
        if in_the_middle_of_a_frame:
            client.send(b"\x81\xfe\x01")
            await client.sent()
        if by_reset:
            client.reset()
        else:
            client.end()
            assert await client.rest() == b""
    assert await running.noted() == ("close", 1006, "")


async def test_a_peer_that_breaks_the_protocol_is_told_so_and_is_1006_with_our_code(serve: Serve) -> None:
    running = await serve(tells_close)
    for broken, code in (
        (b"\x81\x01x", CloseCode.PROTOCOL_ERROR),  # not masked
        (b"\x83\x80\x00\x00\x00\x00", CloseCode.PROTOCOL_ERROR),  # a reserved opcode
        (b"\xc1\x80\x00\x00\x00\x00", CloseCode.PROTOCOL_ERROR),  # a reserved bit
        (b"\x80\x80\x00\x00\x00\x00", CloseCode.PROTOCOL_ERROR),  # a continuation of nothing
        (b"\x81\x81\x00\x00\x00\x00\xff", CloseCode.INVALID_FRAME_PAYLOAD_DATA),  # not UTF-8
    ):
        async with running.raw() as client:
            await client.upgrade()
            await running.noted()
            client.send(broken)
            assert (await client.close_frame())[0] == code
            assert await client.rest() == b""
        assert await running.noted() == ("close", 1006, str(int(code)))


async def test_both_sides_close_at_the_same_time(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("message", lambda server, frame: server.disconnect(frame.fd, 4002, "yours"))
        server.on("close", lambda server, fd, code, reason: note("close", code, reason))

    running = await serve(application)
    async with running.raw() as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"hello")
        client.send_close(4001, "mine")
        assert await client.close_frame() == (4002, "yours")
        assert await client.rest() == b""
    assert await running.noted() == ("close", 4001, "mine")


async def test_messages_before_the_peers_close_are_still_handled(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            await note.goes_on.wait()
            note("message", frame.data, server.exists(frame.fd), server.push(frame.fd, "answer"))

        server.on("close", lambda server, fd, code: note("close", code))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("first")
        await client.send("second")
    await running.go_on()
    assert await running.noted() == ("message", "first", False, False)
    assert await running.noted() == ("message", "second", False, False)
    assert await running.noted() == ("close", 1000)
