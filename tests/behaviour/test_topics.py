"""Topics and broadcast: one message for many connections."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import KINDS, Note, add
from running import Running, Serve
from websockets.asyncio.client import ClientConnection

from hubbub import Frame, Opcode, Request, Server


def tells_fd(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))


class Member:
    """A client, and the id of its connection."""

    def __init__(self, client: ClientConnection, fd: int) -> None:
        self.client = client
        self.fd = fd

    async def receives(self, *messages: str | bytes | bytearray) -> bool:
        return [await self.client.recv() for _ in messages] == list(messages)


async def members(stack: AsyncExitStack, running: Running, count: int) -> list[Member]:
    """Connect that many clients to an application that notes the ids."""
    joined = []
    for _ in range(count):
        client = await stack.enter_async_context(running.connect())
        joined.append(Member(client, (await running.noted())[0]))
    return joined


async def test_publish_reaches_the_subscribers_and_nobody_else(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        first, second, third = await members(stack, running, 3)
        assert await server.subscribe(first.fd, "news") is True
        assert await server.subscribe(second.fd, "news") is True
        assert await server.subscribe(third.fd, "sports") is True
        await server.publish("news", "text")
        await server.publish("news", b"bytes")
        await server.publish("nobody listens", "text")
        await server.broadcast("the end")
        assert await first.receives("text", b"bytes", "the end")
        assert await second.receives("text", b"bytes", "the end")
        assert await third.receives("the end")


async def test_unsubscribe_ends_it(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        first, second = await members(stack, running, 2)
        for member in (first, second):
            await server.subscribe(member.fd, "news")
        assert await server.unsubscribe(first.fd, "news") is True
        assert await server.unsubscribe(first.fd, "was never subscribed") is True
        await server.publish("news", "text")
        await server.broadcast("the end")
        assert await first.receives("the end")
        assert await second.receives("text", "the end")


async def test_subscribed_twice_is_subscribed_once(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        assert await server.subscribe(member.fd, "news") is True
        assert await server.subscribe(member.fd, "news") is True
        assert await server.subscribers("news") == 1
        await server.publish("news", "once")
        await server.publish("news", "and again")
        assert await member.receives("once", "and again")
        await server.unsubscribe(member.fd, "news")
        assert await server.subscribers("news") == 0


async def test_a_connection_may_have_many_topics(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        fd = member.fd
        topics = [f"topic {number}" for number in range(500)]

        def use_them_all(server: Server, note: Note) -> None:
            for topic in topics:
                server.subscribe(fd, topic)
            for topic in topics:
                server.publish(topic, topic)

        await server.run(use_them_all)
        assert await member.receives(*topics)


async def test_excluded_ids_get_nothing(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        first, second, third = await members(stack, running, 3)
        for member in (first, second, third):
            await server.subscribe(member.fd, "news")
        await server.publish("news", "published", exclude=[first.fd])
        excluded = [first.fd, second.fd, -1]
        await server.run(lambda server, note: server.broadcast("broadcast", exclude=(fd for fd in excluded)))
        await server.broadcast("the end")
        assert await first.receives("the end")
        assert await second.receives("published", "the end")
        assert await third.receives("published", "broadcast", "the end")


async def test_a_subscription_ends_with_its_connection(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        tells_fd(server, note)
        server.on("close", lambda server, fd: note("close"))

    running = await serve(application)
    server = running.server
    async with AsyncExitStack() as stack:
        (stays,) = await members(stack, running, 1)
        async with AsyncExitStack() as inner:
            (leaves,) = await members(inner, running, 1)
            for member in (stays, leaves):
                await server.subscribe(member.fd, "news")
            assert await server.subscribers("news") == 2
        assert await running.noted() == ("close",)
        assert await server.subscribers("news") == 1
        assert await server.subscribe(leaves.fd, "news") is False
        assert await server.unsubscribe(leaves.fd, "news") is False


async def test_a_subscription_ends_as_soon_as_the_server_disconnects(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        await server.subscribe(member.fd, "news")
        await server.disconnect(member.fd)
        assert await server.subscribers("news") == 0


def calls_of_all_kinds(server: Server, fd: int) -> None:
    for number in range(20):
        server.publish("news", f"{number} not subscribed yet")
        server.subscribe(fd, "news")
        server.push(fd, f"{number} pushed")
        server.publish("news", f"{number} published")
        server.broadcast(f"{number} broadcast")
        server.unsubscribe(fd, "news")
        server.publish("news", f"{number} not subscribed any more")
        server.push(fd, f"{number} pushed again")
    server.disconnect(fd)
    server.broadcast("too late")


@pytest.mark.parametrize("in_thread", [False, True])
async def test_calls_of_all_kinds_keep_their_order(serve: Serve, in_thread: bool) -> None:
    running = await serve(tells_fd)
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        fd = member.fd

        def job(server: Server, note: Note) -> Any:
            return asyncio.to_thread(calls_of_all_kinds, server, fd) if in_thread else calls_of_all_kinds(server, fd)

        await running.server.run(job)
        kinds = ("pushed", "published", "broadcast", "pushed again")
        expected = [f"{number} {kind}" for number in range(20) for kind in kinds]
        assert [message async for message in member.client] == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_a_chat_room(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_open(server: Server, request: Request) -> None:
            server.subscribe(request.fd, "room")
            server.push(request.fd, "welcome")

        def on_message(server: Server, frame: Frame) -> None:
            server.publish("room", frame.data, exclude=[frame.fd])

        add(server, "open", kind, on_open)
        add(server, "message", kind, on_message)

    running = await serve(application)
    async with running.connect() as ada, running.connect() as ben:
        assert await ada.recv() == await ben.recv() == "welcome"
        await ada.send("hello")
        assert await ben.recv() == "hello"
        await ben.send("hello yourself")
        assert await ada.recv() == "hello yourself"


async def test_subscribers_counts_the_calls_before_it(serve: Serve) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        joined = await members(stack, running, 3)
        assert await server.subscribers("news") == 0
        for member in joined:
            await server.subscribe(member.fd, "news")
        assert await server.subscribers("news") == 3
        await server.unsubscribe(joined[0].fd, "news")
        assert await server.subscribers("news") == 2


async def test_a_topic_has_1_to_255_bytes(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    server = running.server
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        for topic in ("", "x" * 256, "é" * 128):
            for call in (
                server.subscribe(member.fd, topic),
                server.unsubscribe(member.fd, topic),
                server.publish(topic, "x"),
                server.subscribers(topic),
            ):
                with subtests.test(topic=topic), pytest.raises(ValueError, match="255"):
                    await call


async def test_any_text_of_that_length_is_a_topic(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        for topic in ("x", "x" * 255, "é" * 127, " ", "a/b.*#"):
            await running.server.subscribe(member.fd, topic)
            await running.server.publish(topic, f"about {topic}")
            assert await member.receives(f"about {topic}")


async def test_what_can_be_pushed_can_be_published(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        await running.server.subscribe(member.fd, "news")
        for data in (bytearray(b"array"), b"", ""):
            await running.server.publish("news", data)
            await running.server.broadcast(data)
            assert await member.receives(data, data)


async def test_what_a_handler_sends_to_all_comes_before_the_end_that_follows_its_message(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            server.broadcast(frame.data)
            server.broadcast("and again")

    running = await serve(application)
    for last in (Opcode.CLOSE, Opcode.CONTINUATION):
        async with running.raw() as peer:
            await peer.upgrade()
            peer.send_frame(Opcode.TEXT, b"one")
            peer.send_frame(Opcode.TEXT, b"two")
            peer.send_frame(last)
            texts = [(await peer.frame()).payload for _ in range(4)]
            assert texts == [b"one", b"and again", b"two", b"and again"]
            assert (await peer.frame()).opcode == Opcode.CLOSE


async def test_who_comes_later_is_not_sent_what_was_for_all_before(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            server.broadcast(f"{request.path} is here")

    running = await serve_here(application)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(running.raw()) for _ in range(20)]
        for number, peer in enumerate(peers):
            peer.ask_for_upgrade(path=f"/{number}")
        for number, peer in enumerate(peers):
            await peer.answer()
            assert (await peer.frame()).payload.decode() == f"/{number} is here"


@pytest.mark.parametrize("compression", [False, True])
async def test_one_message_after_the_other_for_all_arrives_whole_and_in_order(serve: Serve, compression: bool) -> None:
    messages = [f"{number}" * (1 + 997 * number % 3000) for number in range(100)]

    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            for message in messages:
                server.broadcast(message)

    running = await serve(application, compression=True)
    async with running.connect(compression="deflate" if compression else None) as client:
        await client.send("go")
        assert [await client.recv() for _ in messages] == messages


async def test_what_cannot_be_pushed_cannot_be_published(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(tells_fd)
    for data in (None, 1, ("a",)):
        for call in (running.server.publish("news", data), running.server.broadcast(data)):
            with subtests.test(data=data), pytest.raises(TypeError):
                await call


async def test_broadcast_reaches_websockets_only(serve: Serve) -> None:
    running = await serve(tells_fd)
    async with AsyncExitStack() as stack:
        (member,) = await members(stack, running, 1)
        plain = await stack.enter_async_context(running.raw())
        plain.ask("/")
        assert (await plain.answer()).status == 426
        await running.server.broadcast("hello")
        assert await member.receives("hello")
        plain.ask("/")
        assert (await plain.answer()).status == 426
