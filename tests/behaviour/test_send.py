"""`send`: messages go out as fast as their receiver takes them, and never apply `slow_consumer`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from application import Note
from raw_client import RawClient
from running import Remote, Running, Serve

from hubbub import Frame, NotRunning, Opcode, Server

PATIENCE = 30
RECEIVE_BUFFER = 16 * 1024
SIZE = 32 * 1024
LIMIT = 8 * SIZE
# Far more than the kernel's buffers and the outbox hold.
COUNT = 200


def tells_open(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))
    server.on("close", lambda server, fd, code: note("close", code))


@contextlib.asynccontextmanager
async def slow_reader(running: Running) -> AsyncIterator[tuple[RawClient, int]]:
    """A client that reads only what it is made to read, and its id."""
    async with asyncio.timeout(PATIENCE), running.raw(RECEIVE_BUFFER) as client:
        await client.upgrade()
        yield client, await running.opened()


def flood(worker: Remote, fd: int, count: int = COUNT, size: int = SIZE) -> "asyncio.Task[Any]":
    """Have a worker send numbered messages to a connection, one after the other."""

    async def send_all(server: Server, note: Note) -> list[bool]:
        note("begun")
        return [await server.send(fd, number.to_bytes(4) + bytes(size - 4)) for number in range(count)]

    return asyncio.ensure_future(worker.run(send_all))


async def waits(running: Running, fd: int) -> None:
    """Wait until more than half of the outbox is in use and nothing changes any more."""
    owner = await running.owner(fd)
    before = -1
    while (queued := (await owner.info(fd)).queued_bytes) <= LIMIT // 2 or queued != before:
        before = queued
        await asyncio.sleep(0.02)


async def numbers(client: RawClient, count: int = COUNT) -> list[int]:
    return [int.from_bytes((await client.frame()).payload[:4]) for _ in range(count)]


async def test_a_slow_reader_gets_everything_in_order_and_its_outbox_is_never_full(serve: Serve) -> None:
    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        sending = flood(running.server, fd)
        await waits(running, fd)
        assert not sending.done()
        assert (await running.server.info(fd)).queued_bytes <= LIMIT // 2 + SIZE + 16
        assert await numbers(client) == list(range(COUNT))
        assert await sending == [True] * COUNT
        assert (await running.server.stats())["slow_consumers_closed"] == 0


async def test_all_workers_may_send_to_one_connection_at_the_same_time(serve: Serve) -> None:
    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        sending = [flood(worker, fd, 60) for worker in running.workers for _ in range(2)]
        await waits(running, fd)
        assert sorted(await numbers(client, 60 * len(sending))) == sorted([*range(60)] * len(sending))
        assert await asyncio.gather(*sending) == [[True] * 60] * len(sending)


async def test_those_that_wait_for_one_connection_are_served_in_the_order_of_their_calls(serve: Serve) -> None:
    count = 500

    async def send_at_once(server: Server, note: Note) -> bool:
        sends = (server.send(fd, number.to_bytes(4) + bytes(4096)) for number in range(count))
        return all(await asyncio.gather(*sends))

    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        sending = asyncio.ensure_future(running.server.run(send_at_once))
        assert await numbers(client, count) == list(range(count))
        assert await sending


@pytest.mark.parametrize("end", ["reset", "close", "disconnect"])
async def test_false_once_the_connection_has_ended_however_many_wait(serve: Serve, end: str) -> None:
    running = await serve(tells_open, send_queue_size=LIMIT, close_timeout=0.3)
    async with slow_reader(running) as (client, fd):
        sending = [flood(worker, fd) for worker in running.workers for _ in range(3)]
        await waits(running, fd)
        assert not any(each.done() for each in sending)
        match end:
            case "reset":
                client.reset()
            case "close":
                client.send_close(1000)
            case "disconnect":
                await running.server.disconnect(fd, 4000)
        for outcome in await asyncio.gather(*sending):
            # Once it has ended, all further messages are refused.
            assert outcome == sorted(outcome, reverse=True)
            assert outcome[-1] is False
        for worker in running.workers:
            assert await worker.send(fd, "too late") is False


async def test_who_is_cancelled_while_waiting_has_sent_nothing_and_holds_nobody_up(serve: Serve) -> None:
    async def try_to_send(server: Server, note: Note) -> list[bool]:
        first = [asyncio.ensure_future(server.send(fd, b"cancelled")) for _ in range(3)]
        last = asyncio.ensure_future(server.send(fd, b"last"))
        await asyncio.sleep(0)
        for each in first:
            each.cancel()
        await asyncio.wait(first)
        note("cancelled", [each.cancelled() for each in first])
        return [await last]

    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        # In the worker that floods, others wait before these; in the others, they are the first.
        flooding = flood(running.server, fd)
        await waits(running, fd)
        sending = [asyncio.ensure_future(worker.run(try_to_send)) for worker in running.workers]
        for _ in running.workers:
            while (noted := await running.noted()) == ("begun",):
                pass
            assert noted == ("cancelled", [True] * 3)
        payloads = [(await client.frame()).payload for _ in range(COUNT + len(sending))]
        assert payloads.count(b"last") == len(sending)
        assert b"cancelled" not in payloads
        assert await asyncio.gather(*sending) == [[True]] * len(sending)
        assert all(await flooding)


async def test_a_message_that_fits_only_into_an_empty_outbox_waits_for_that(serve: Serve) -> None:
    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        sending = flood(running.server, fd, 40, LIMIT)
        assert await numbers(client, 40) == list(range(40))
        assert await sending == [True] * 40


async def test_what_is_sent_is_what_it_was_at_the_call(serve: Serve) -> None:
    async def send_and_change(server: Server, note: Note) -> bool:
        data = bytearray(b"before")
        sending = asyncio.ensure_future(server.send(fd, data))
        await asyncio.sleep(0)
        data[:] = b"after!"
        note("changed")
        return await sending

    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        flooding = flood(running.server, fd)
        assert await running.noted() == ("begun",)
        await waits(running, fd)
        sending = asyncio.ensure_future(running.server.run(send_and_change))
        assert await running.noted() == ("changed",)
        payloads = [(await client.frame()).payload for _ in range(COUNT + 1)]
        assert payloads.count(b"before") == 1
        assert all((await flooding, await sending))


async def test_a_handler_may_send_to_its_own_connection(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        tells_open(server, note)

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            for number in range(COUNT):
                if not await server.send(frame.fd, number.to_bytes(4) + bytes(SIZE)):
                    note("left", number < COUNT)
                    return

    running = await serve(application, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        client.send_frame(Opcode.TEXT, b"go")
        assert await numbers(client) == list(range(COUNT))
        client.send_frame(Opcode.TEXT, b"go")
        await waits(running, fd)
        client.reset()
        assert await running.noted() == ("left", True)
        assert await running.noted() == ("close", 1006)


async def test_text_binary_and_other_opcodes_are_sent_as_push_does(serve: Serve) -> None:
    running = await serve(tells_open)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        fd = await running.opened()
        for data, opcode, received in (
            ("text", None, "text"),
            (b"bytes", None, b"bytes"),
            (bytearray(b"array"), None, b"array"),
            (b"as text", Opcode.TEXT, "as text"),
            ("as bytes", Opcode.BINARY, b"as bytes"),
            ("", None, ""),
        ):
            assert await running.server.send(fd, data, opcode) is True
            assert await client.recv() == received
        owner = await running.owner(fd)
        assert await owner.run(lambda server, note: server.push(fd, "one, ", finish=False))
        assert await owner.send(fd, "two", Opcode.CONTINUATION)
        assert await client.recv() == "one, two"


async def refuses_wrong_messages(worker: Remote, fd: int) -> None:
    for data in (5, None, 1.5):
        with pytest.raises(TypeError, match="data must be"):
            await worker.send(fd, data)
    with pytest.raises(ValueError, match="larger than send_queue_size"):
        await worker.run(lambda server, note: server.send(fd, bytes(LIMIT + 1)))
    with pytest.raises(ValueError, match="UTF-8"):
        await worker.send(fd, b"\xff", Opcode.TEXT)
    with pytest.raises(ValueError, match="opcode"):
        await worker.send(fd, "hello", Opcode.PING)


async def test_wrong_arguments_are_refused_as_by_push(serve: Serve) -> None:
    running = await serve(tells_open, send_queue_size=LIMIT)
    async with asyncio.timeout(PATIENCE), running.connect():
        fd = await running.opened()
        for worker in running.workers:
            for other in (0, -1, fd + 1, 2**53, 2**64, -(2**70)):
                assert await worker.send(other, "nobody") is False
            for wrong in ("1", None, [fd]):
                with pytest.raises(TypeError, match="fd must be an int"):
                    await worker.send(wrong, "hello")
            await refuses_wrong_messages(worker, fd)


async def test_wrong_arguments_are_refused_while_others_wait_too(serve: Serve) -> None:
    running = await serve(tells_open, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, fd):
        sending = [flood(worker, fd, 60) for worker in running.workers]
        await waits(running, fd)
        for worker in running.workers:
            await refuses_wrong_messages(worker, fd)
        await numbers(client, 60 * len(sending))
        await asyncio.gather(*sending)


async def test_the_end_of_a_message_does_not_wait_for_those_that_it_holds_back(serve: Serve) -> None:
    """More than half of the outbox is full of them, and of each worker more wait."""

    async def fill(server: Server, note: Note) -> list[bool]:
        server.push(fd, "begin, ", finish=False)
        for _ in range(5):
            server.push(fd, bytes(SIZE))
        sending = [asyncio.ensure_future(server.send(fd, bytes(SIZE))) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in sending)
        note("filled")
        return await asyncio.gather(*sending)

    running = await serve(tells_open, send_queue_size=LIMIT)
    for ending in running.workers:
        async with asyncio.timeout(PATIENCE), running.connect() as client:
            fd = await running.opened()
            filling = asyncio.ensure_future((await running.owner(fd)).run(fill))
            assert await running.noted() == ("filled",)
            assert await ending.send(fd, "end", Opcode.CONTINUATION)
            assert await client.recv() == "begin, end"
            assert [len(await client.recv()) for _ in range(9)] == [SIZE] * 9
            assert await filling == [True] * 4
            await client.close()
            assert (await running.noted())[0] == "close"


@pytest.mark.parametrize("end", ["sent", "cancel"])
async def test_another_threads_event_loop_may_send(serve: Serve, end: str) -> None:
    def application(server: Server, note: Note) -> None:
        tells_open(server, note)

        def on_message(server: Server, frame: Frame) -> None:
            async def send_all() -> None:
                sending = asyncio.ensure_future(send_one_by_one())
                if end == "cancel":
                    await asyncio.wait([sending], timeout=0.1)
                    sending.cancel()
                    await asyncio.wait([sending])
                    note("cancelled", sending.cancelled())
                else:
                    note("sent", await sending)

            async def send_one_by_one() -> bool:
                return all([await server.send(frame.fd, number.to_bytes(4) + bytes(SIZE)) for number in range(COUNT)])

            asyncio.run(send_all())

        server.on("message", on_message, threaded=True)

    running = await serve(application, send_queue_size=LIMIT)
    async with slow_reader(running) as (client, _):
        client.send_frame(Opcode.TEXT, b"go")
        if end == "cancel":
            assert await running.noted() == ("cancelled", True)
        else:
            assert await numbers(client) == list(range(COUNT))
            assert await running.noted() == ("sent", True)


async def test_a_stop_of_the_server_ends_the_wait(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        tells_open(server, note)

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            try:
                while await server.send(frame.fd, bytes(SIZE)):
                    pass
            finally:
                note("ends")

    running = await serve(application, send_queue_size=LIMIT, shutdown_timeout=0.5)
    async with slow_reader(running) as (client, fd):
        client.send_frame(Opcode.TEXT, b"go")
        await waits(running, fd)
        await running.stop()
        assert await running.noted() == ("ends",)


async def test_a_client_that_sends_much_and_reads_nothing_is_detected_by_the_pings(serve: Serve) -> None:
    """Its handler waits for it to read, and its other messages wait for the handler."""

    def application(server: Server, note: Note) -> None:
        tells_open(server, note)

        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            while await server.send(frame.fd, bytes(SIZE)):
                pass
            note("ends")

    settings = {"send_queue_size": LIMIT, "ping_interval": 0.3, "ping_timeout": 0.3, "close_timeout": 0.3}
    running = await serve(application, **settings)
    async with slow_reader(running) as (client, _):
        for _ in range(200):
            client.send_frame(Opcode.TEXT, b"go")
        assert await running.noted() == ("ends",)


async def test_a_call_outside_of_handlers_fails_once_the_server_has_stopped(serve_here: Serve) -> None:
    with pytest.raises(NotRunning):
        await Server().send(1, "hello")
    running = await serve_here(tells_open, send_queue_size=LIMIT, shutdown_timeout=0.1, close_timeout=0.1)
    async with slow_reader(running) as (_, fd):
        sending = flood(running.server, fd)
        await waits(running, fd)
        await running.stop()
        assert (await sending)[-1] is False
