"""What a subscriber that lags gets: `slow_consumer` and `ttl` of a topic."""

import itertools
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import Note
from raw_client import RawClient
from running import Running, Serve, time_passes
from topic_clients import connect_all, keeping

from hubbub import Opcode, Server

TOPIC = "price"
QUEUE = 1024 * 1024
CHUNK = "x" * 32_000


async def lagging(stack: AsyncExitStack, running: Running) -> tuple[RawClient, int]:
    """Connect a client that reads nothing, and is subscribed."""
    client = await stack.enter_async_context(running.raw(receive_buffer=4096))
    await client.upgrade()
    fd = await running.opened()
    await running.server.subscribe(fd, TOPIC)
    assert await running.server.members(TOPIC) == [fd]
    return client, fd


async def until_queued(running: Running, fd: int) -> None:
    """Push until neither the kernel nor the client takes any more, so that what comes next stays in the outbox."""

    def push(server: Server, note: Note) -> int:
        info = server.info(fd)
        assert info
        while info.queued_bytes < 4 * len(CHUNK):
            server.push(fd, "filling" + CHUNK)
            info = server.info(fd)
            assert info
        return info.queued_bytes

    owner = await running.owner(fd)
    before, unchanged = 0, 0
    while unchanged < 5:
        await time_passes(0.02)
        queued = await owner.run(push)
        unchanged = unchanged + 1 if queued == before else 0
        before = queued


async def received(client: RawClient, last: str) -> list[str]:
    """Read the messages up to the one that begins with `last`; return their beginnings, without those that fill."""
    beginnings: list[str] = []
    while not beginnings or beginnings[-1] != last:
        frame = await client.frame()
        assert frame.opcode == Opcode.TEXT
        beginning = frame.payload.decode().partition("x")[0]
        if beginning != "filling":
            beginnings.append(beginning)
    return beginnings


async def published(running: Running, *messages: str, key: str | None = None) -> None:
    """Publish messages, and wait until every worker has them."""
    for message in messages:
        await running.server.publish(TOPIC, message + CHUNK, key=key)
    await running.server.subscribers(TOPIC)


async def test_of_each_key_only_the_newest_message_waits(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, slow_consumer="latest"), send_queue_size=QUEUE)
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        await until_queued(running, fd)
        # More than the outbox could hold.
        for number in range(100):
            await published(running, f"tea {number} ", key="tea")
            await published(running, f"milk {number} ", key="milk")
        await running.server.push(fd, "end")
        assert await running.server.exists(fd)
        # They keep the places of the first ones.
        assert await received(client, "end") == ["tea 99 ", "milk 99 ", "end"]
        assert (await running.server.stats())["slow_consumers_closed"] == 0


async def test_messages_without_a_key_replace_each_other_too(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, slow_consumer="latest"), send_queue_size=QUEUE)
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        await until_queued(running, fd)
        await published(running, "first ", "second ")
        await published(running, "keyed ", key="")
        await published(running, "third ")
        await published(running, "keyed again ", key="")
        await running.server.push(fd, "end")
        assert await received(client, "end") == ["third ", "keyed again ", "end"]


async def test_whoever_keeps_up_gets_every_message(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, slow_consumer="latest"))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            await running.server.subscribe(client.fd, TOPIC)
        for number in range(50):
            await running.server.publish(TOPIC, str(number), key="tea")
            for client in clients:
                assert await client.gets(str(number))


async def test_a_key_belongs_to_its_topic(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.topic_options("*", slow_consumer="latest")
        server.on("open", lambda server, request: note(request.fd))

    running = await serve(application, send_queue_size=QUEUE)
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        await running.server.subscribe(fd, "other")
        await until_queued(running, fd)
        await published(running, "one ", key="key")
        await running.server.publish("other", "other ", key="key")
        await running.server.subscribers("other")
        await published(running, "two ", key="key")
        await running.server.push(fd, "end")
        assert await received(client, "end") == ["two ", "other ", "end"]


@pytest.mark.parametrize("policy", ["drop", "latest"])
async def test_a_full_outbox_drops_messages_of_that_topic_only(serve: Serve, policy: str) -> None:
    running = await serve(keeping(TOPIC, slow_consumer=policy), send_queue_size=QUEUE)
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        await until_queued(running, fd)
        numbers = itertools.count()

        async def dropped() -> int:
            count = (await running.server.stats())["messages_dropped"]
            assert isinstance(count, int)
            return count

        while await dropped() == 0:
            number = next(numbers)
            await published(running, f"{number} ", key=str(number))
        assert await running.server.exists(fd)
        # The server's own policy is to close.
        owner = await running.owner(fd)
        while await owner.push(fd, CHUNK):
            pass
        assert not await running.server.exists(fd)
        assert (await client.close_frame())[0] == 1013


async def test_a_topic_may_close_where_the_server_drops(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, slow_consumer="close"), send_queue_size=QUEUE, slow_consumer="drop")
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        owner = await running.owner(fd)
        while await owner.push(fd, CHUNK):
            pass
        assert await running.server.exists(fd)
        while await running.server.exists(fd):
            await published(running, "x")
        assert (await client.close_frame())[0] == 1013


async def test_a_message_that_waits_too_long_is_left_out(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, ttl=0.2), send_queue_size=QUEUE)
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        await until_queued(running, fd)
        await published(running, "stale ", "stale too ")
        await running.server.push(fd, "between")
        await time_passes(0.5)
        await published(running, "fresh ")
        await running.server.push(fd, "end")
        # What is pushed has no limit.
        beginnings = await received(client, "end")
        assert "between" in beginnings
        assert not {"stale ", "stale too "} & set(beginnings)


async def test_a_message_that_does_not_wait_is_in_time(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, ttl=60))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            await running.server.subscribe(client.fd, TOPIC)
        for number in range(50):
            await running.server.publish(TOPIC, str(number))
        for client in clients:
            assert await client.gets(*map(str, range(50)))


@pytest.mark.parametrize("options", [{}, {"history": 10}, {"slow_consumer": "drop"}])
async def test_other_topics_ignore_the_key(serve: Serve, options: dict[str, Any]) -> None:
    running = await serve(keeping(TOPIC, **options))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.subscribe(client.fd, TOPIC)
        for number in range(20):
            await running.server.publish(TOPIC, str(number), key="same")
        assert await client.gets(*map(str, range(20)))


async def test_the_newest_waits_in_order_of_the_history_too(serve: Serve) -> None:
    running = await serve(keeping(TOPIC, slow_consumer="latest", history=10), send_queue_size=QUEUE)
    async with AsyncExitStack() as stack:
        client, fd = await lagging(stack, running)
        await until_queued(running, fd)
        for number in range(20):
            await published(running, f"tea {number} ", key="tea")

        # The messages are too long for one answer to the test.
        async def look(server: Server, note: Note) -> list[str]:
            found = await server.history(TOPIC)
            return [str(message.data).partition("x")[0] for message in found.messages]

        assert await running.server.run(look) == [f"tea {number} " for number in range(10, 20)]
        await running.server.push(fd, "end")
        # The kernel may have taken some of them meanwhile.
        *others, newest, end = await received(client, "end")
        assert (newest, end) == ("tea 19 ", "end")
        assert len(others) < 15
        assert others == sorted(others, key=lambda beginning: int(beginning.split()[1]))
        # Who joins gets all of them: old messages do not replace each other.
        (late,) = await connect_all(stack, running, 1)
        assert (await running.server.join(late.fd, TOPIC, last=5)).count == 5
        texts = [str(await late.client.recv()).partition("x")[0] for _ in range(5)]
        assert texts == [f"tea {number} " for number in range(15, 20)]


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (5, TypeError, "key must be a str, not int"),
        (b"x", TypeError, "key must be a str, not bytes"),
        ("x" * 256, ValueError, "key must have at most 255 bytes of UTF-8, not 256"),
        ("\ud800", ValueError, "key must be text that UTF-8 can express"),
    ],
)
async def test_what_is_no_key_is_an_error(serve_here: Serve, key: Any, error: type[Exception], says: str) -> None:
    running = await serve_here(keeping(TOPIC, slow_consumer="latest"))

    async def publish(server: Server, note: Note) -> None:
        server.publish(TOPIC, "x", key=key)

    with pytest.raises(error, match=says):
        await running.server.run(publish)
