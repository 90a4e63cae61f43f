"""Topics with history: one order for all subscribers, and what is kept."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import Note
from running import Running, Serve
from topic_clients import connect_all, keeping, publish_all, texts, until

from hubbub import History, NotRunning, Position, Server

TOPIC = "kept"


async def offsets(running: Running, topic: str = TOPIC, **keywords: Any) -> list[int]:
    found: History = await running.server.history(topic, **keywords)
    return [message.offset for message in found.messages]


async def test_what_is_published_is_kept_up_to_a_number(serve: Serve) -> None:
    running = await serve(keeping(history=5))
    begin = time.time()
    await publish_all(running, TOPIC, texts(1, 8))
    for worker in running.workers:
        found = await worker.history(TOPIC)
        assert [message.data for message in found.messages] == texts(4, 8)
        assert [message.offset for message in found.messages] == [4, 5, 6, 7, 8]
        times = [message.time for message in found.messages]
        # A coarse clock may be a little late.
        assert begin - 0.1 <= times[0] <= times[-1] <= time.time() + 0.1
        assert found.position == Position(found.position.epoch, 8)
        assert found.position.epoch != ""


async def test_everything_that_can_be_published_is_kept(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.subscribe(client.fd, TOPIC)
        for data in ("text", "", b"bytes", b"", bytearray(b"array"), {"a": "é"}, [1, None]):
            await running.server.publish(TOPIC, data)
        expected: list[str | bytes] = ["text", "", b"bytes", b"", b"array", '{"a":"é"}', "[1,null]"]
        assert await client.gets(*expected)
    found = await running.server.history(TOPIC)
    assert [message.data for message in found.messages] == expected
    assert found.messages[5].json() == {"a": "é"}


async def test_a_part_of_a_history_can_be_read(serve: Serve) -> None:
    running = await serve(keeping(history=100))
    await publish_all(running, TOPIC, texts(1, 7))
    epoch = (await running.server.history(TOPIC)).position.epoch
    assert await offsets(running, limit=3) == [1, 2, 3]
    assert await offsets(running, limit=3, newest_first=True) == [7, 6, 5]
    assert await offsets(running, since=Position(epoch, 4)) == [5, 6, 7]
    assert await offsets(running, since=[epoch, 4], limit=2) == [5, 6]
    assert await offsets(running, since=[epoch, 4], limit=2, newest_first=True) == [7, 6]
    assert await offsets(running, since=[epoch, 7]) == []
    # What is no position of this topic is before everything.
    wrong: list[Any] = [[epoch + "x", 4], ["", 4], [epoch, -1], "nonsense", {}, [[], {}]]
    for since in wrong:
        assert await offsets(running, since=since) == [1, 2, 3, 4, 5, 6, 7]
    assert (await running.server.history(TOPIC, limit=1)).position == (epoch, 7)


async def test_ones_own_earlier_messages_are_in_it(serve: Serve) -> None:
    running = await serve(keeping(history=100))

    async def publish_and_look(server: Server, note: Note) -> list[int]:
        seen = []
        for number in range(20):
            server.publish(TOPIC, str(number))
            seen.append(len((await server.history(TOPIC)).messages))
        return seen

    assert await running.server.run(publish_and_look) == list(range(1, 21))


async def test_all_subscribers_get_the_messages_of_all_workers_in_one_order(serve: Serve) -> None:
    running = await serve(keeping(history=1000))
    each = 100

    async def publish(server: Server, note: Note) -> None:
        for number in range(each):
            server.publish(TOPIC, f"{server.worker_id} {number}")
            if number % 7 == 0:
                await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 6)
        for client in clients:
            await running.server.subscribe(client.fd, TOPIC)
        assert await running.server.subscribers(TOPIC) == 6
        await asyncio.gather(*(worker.run(publish) for worker in running.workers))
        total = each * len(running.workers)
        received = [[str(await client.client.recv()) for _ in range(total)] for client in clients]
    kept = await running.server.history(TOPIC, limit=total)
    order = [message.data for message in kept.messages]
    assert [message.offset for message in kept.messages] == list(range(1, total + 1))
    assert all(messages == order for messages in received)
    for worker in running.workers:
        own = [text for text in order if str(text).startswith(f"{worker.worker_id} ")]
        assert own == [f"{worker.worker_id} {number}" for number in range(each)]


async def test_topics_have_histories_of_their_own(serve: Serve) -> None:
    running = await serve(keeping(history=100))
    for topic in ("kept:a", "kept:b", "other"):
        await publish_all(running, topic, texts(1, 2))
    assert await offsets(running, "kept:a") == await offsets(running, "kept:b") == [1, 2]
    a, b = [await running.server.history(topic) for topic in ("kept:a", "kept:b")]
    assert a.position.epoch != b.position.epoch
    # A topic without options keeps nothing.
    other = await running.server.history("other")
    assert (other.messages, other.position) == ((), Position("", 0))


async def test_the_first_pattern_that_matches_counts(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.topic_options("room:1", history=1)
        server.topic_options("room:*", history=2)
        server.topic_options("*", history=3)

    running = await serve(application)
    for topic, expected in (("room:1", 1), ("room:12", 2), ("room:", 2), ("room", 3), ("x", 3)):
        await publish_all(running, topic, texts(1, 5))
        assert len(await offsets(running, topic)) == expected, topic


async def test_whoever_is_excluded_gets_the_next_one(serve: Serve) -> None:
    running = await serve(keeping(history=100))
    async with AsyncExitStack() as stack:
        one, other = await connect_all(stack, running, 2)
        for client in (one, other):
            await running.server.subscribe(client.fd, TOPIC)
        await running.server.publish(TOPIC, "for one", exclude=[other.fd])
        await running.server.publish(TOPIC, "for both")
        assert await one.gets("for one", "for both")
        assert await other.gets("for both")
    assert len(await offsets(running)) == 2


async def test_a_history_that_is_removed_begins_anew(serve: Serve) -> None:
    running = await serve(keeping(history=100))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.subscribe(client.fd, TOPIC)
        await publish_all(running, TOPIC, texts(1, 3))
        before = (await running.server.history(TOPIC)).position
        assert await running.server.forget(TOPIC) is None
        after = await running.server.history(TOPIC)
        assert (after.messages, after.position.offset) == ((), 0)
        assert after.position.epoch != before.epoch
        await publish_all(running, TOPIC, texts(4, 5))
        assert await offsets(running) == [1, 2]
        # A position of before is none of now.
        assert await offsets(running, since=before) == [1, 2]
        # Its subscribers have noticed nothing.
        assert await client.gets(*texts(1, 5))
    await running.server.forget("kept and never used")
    await running.server.forget("never kept")


async def test_messages_expire(serve: Serve) -> None:
    running = await serve(keeping(history=100, seconds=0.2))
    await publish_all(running, TOPIC, texts(1, 3))

    async def are_gone() -> bool:
        return not await offsets(running)

    await until(are_gone)
    await publish_all(running, TOPIC, texts(4, 4))
    found = await running.server.history(TOPIC)
    assert [message.data for message in found.messages] in ([], texts(4, 4))


async def test_memory_is_bounded(serve: Serve) -> None:
    running = await serve(keeping(history=10_000), history_memory=1024 * 1024)
    await publish_all(running, "kept:old", texts(1, 50), padding=10_000)
    await publish_all(running, "kept:new", texts(1, 300), padding=10_000)

    # The messages are too long for one answer to the test.
    async def look(server: Server, note: Note) -> tuple[list[int], int, int]:
        found = await server.history("kept:new", limit=1000)
        old = await server.history("kept:old", limit=1000)
        return [message.offset for message in found.messages], found.position.offset, len(old.messages)

    kept, top, old = await running.server.run(look)
    assert 50 <= len(kept) <= 104
    assert kept == list(range(301 - len(kept), 301))
    assert (top, old) == (300, 0)


async def test_without_memory_nothing_is_kept_and_the_order_stays(serve: Serve) -> None:
    running = await serve(keeping(history=100), history_memory=0)
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            await running.server.subscribe(client.fd, TOPIC)
        await publish_all(running, TOPIC, texts(1, 50))
        for client in clients:
            assert await client.gets(*texts(1, 50))
    assert await offsets(running) == []


async def test_a_history_longer_than_an_answer_is_read_in_parts(serve: Serve) -> None:
    running = await serve(keeping(history=10_000))
    await publish_all(running, TOPIC, texts(1, 9000), padding=500)

    # The server looks, because the messages are too long for one answer to the test.
    async def look(server: Server, note: Note) -> tuple[bool, bool]:
        everything = await server.history(TOPIC, limit=100_000)
        newest = await server.history(TOPIC, limit=8999, newest_first=True)
        expected = [f"message {number}".ljust(500, "x") for number in range(1, 9001)]
        is_complete = [message.data for message in everything.messages] == expected
        return is_complete, newest.messages == everything.messages[:0:-1]

    assert await running.server.run(look) == (True, True)


async def test_an_envelope_tells_topic_and_position(serve: Serve) -> None:
    running = await serve(keeping(history=100, envelope=True))
    topic = 'kept "é"\n\\'
    published: list[Any] = ["text", 'quotes " and \\ and \n é \u2028', "", {"a": [1, {"b": None}]}, [], ["é"]]
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            await running.server.subscribe(client.fd, topic)
        for data in published:
            await running.server.publish(topic, data)
        found = await running.server.history(topic)
        for client in clients:
            for offset, data in enumerate(published, 1):
                text = await client.client.recv()
                assert isinstance(text, str)
                envelope = {"topic": topic, "epoch": found.position.epoch, "offset": offset, "data": data}
                assert json.loads(text) == envelope
                assert list(json.loads(text)) == ["topic", "epoch", "offset", "data"]
        # The position is what Python takes.
        position = [found.position.epoch, 4]
        assert await offsets(running, topic, since=position) == [5, 6]
    # The history is without envelopes.
    assert [message.data for message in found.messages[:2]] == published[:2]
    assert [message.json() for message in found.messages[3:]] == published[3:]


@pytest.mark.parametrize("data", [b"bytes", b"", bytearray(b"x"), memoryview(b"x")])
async def test_an_envelope_cannot_hold_bytes(serve: Serve, data: bytes) -> None:
    running = await serve(keeping(envelope=True))
    wrong = bytes(data)

    async def publish(server: Server, note: Note) -> None:
        server.publish(TOPIC, wrong)

    with pytest.raises(TypeError, match='because the topic "kept" has envelopes'):
        await running.server.run(publish)
    await running.server.publish("other", wrong)


async def test_an_envelope_without_history_numbers_messages_and_keeps_none(serve: Serve) -> None:
    running = await serve(keeping(envelope=True))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.subscribe(client.fd, TOPIC)
        await publish_all(running, TOPIC, texts(1, 3))
        received = [json.loads(await client.client.recv()) for _ in range(3)]
    assert [(message["offset"], message["data"]) for message in received] == list(enumerate(texts(1, 3), 1))
    assert len({message["epoch"] for message in received}) == 1
    assert await offsets(running) == []


async def test_what_comes_of_another_json_library_is_decoded_by_it(serve_here: Serve) -> None:
    class Library:
        """Writes and reads JSON with every value doubled."""

        @staticmethod
        def dumps(value: object) -> str:
            return json.dumps([value, value])

        @staticmethod
        def loads(data: str | bytes) -> Any:
            return {"was": json.loads(data)}

    running = await serve_here(keeping(history=10), json=Library)
    await running.server.publish(TOPIC, {"a": 1})
    (message,) = (await running.server.history(TOPIC)).messages
    assert message.data == '[{"a": 1}, {"a": 1}]'
    assert message.json() == {"was": [{"a": 1}, {"a": 1}]}


async def test_another_event_loop_may_ask(serve: Serve) -> None:
    running = await serve(keeping(history=10, presence=True))
    await publish_all(running, TOPIC, texts(1, 3))

    async def look(server: Server, note: Note) -> tuple[Any, ...]:
        async def ask() -> tuple[Any, ...]:
            found = await server.history(TOPIC)
            joined = await server.join(1, TOPIC)
            present = await server.presence(TOPIC)
            await server.forget(TOPIC)
            return len(found.messages), joined.recovered, present, (await server.history(TOPIC)).messages

        return await asyncio.to_thread(lambda: asyncio.run(ask()))

    assert await running.server.run(look) == (3, False, {}, ())


async def test_a_thread_may_publish(serve: Serve) -> None:
    running = await serve(keeping(history=1000))

    async def publish(server: Server, note: Note) -> None:
        def publish_all() -> None:
            for number in range(500):
                server.publish(TOPIC, str(number))

        await asyncio.to_thread(publish_all)

    await running.server.run(publish)

    async def are_there() -> bool:
        found: History = await running.server.history(TOPIC, limit=1)
        return found.position.offset == 500

    await until(are_there)
    found = await running.server.history(TOPIC, limit=1000)
    assert [message.data for message in found.messages] == [str(number) for number in range(500)]


@pytest.mark.parametrize(
    ("call", "keywords", "error", "says"),
    [
        ("history", {"topic": ""}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 0"),
        ("history", {"topic": "é" * 128}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 256"),
        ("history", {"topic": TOPIC, "limit": 0}, ValueError, "limit must be 1 or above, not 0"),
        ("history", {"topic": TOPIC, "limit": True}, TypeError, "limit must be an int, not bool"),
        ("history", {"topic": TOPIC, "newest_first": 1}, TypeError, "newest_first must be a bool, not int"),
        ("forget", {"topic": ""}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 0"),
        ("forget", {"topic": None}, TypeError, "topic must be a str, not NoneType"),
    ],
)
async def test_what_cannot_be_read_is_an_error(
    serve_here: Serve, call: str, keywords: dict[str, Any], error: type[Exception], says: str
) -> None:
    running = await serve_here(keeping(history=10))
    with pytest.raises(error, match=says):
        await getattr(running.server, call)(**keywords)


async def test_a_server_that_does_not_run_has_no_history() -> None:
    server = Server()
    for call in (server.history("x"), server.forget("x"), server.join(1, "x"), server.presence("x")):
        with pytest.raises(NotRunning):
            await call
