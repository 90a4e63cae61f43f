"""`join`: what was missed, and from then on everything; nothing twice, nothing left out."""

import asyncio
import json
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import Note
from running import Running, Serve
from topic_clients import connect_all, keeping, padded, publish_all, texts

from hubbub import Frame, Joined, Position, Request, Server

TOPIC = "kept"
NOWHERE = Position("", 0)


async def position_of(running: Running, topic: str = TOPIC) -> Position:
    found = await running.server.history(topic, limit=1)
    position = found.position
    assert isinstance(position, Position)
    return position


async def test_the_last_messages_come_before_the_new_ones(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, TOPIC, texts(1, 5))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            joined = await running.server.join(client.fd, TOPIC, last=3)
            assert joined == Joined(False, 3, Position(joined.position.epoch, 5))
        await publish_all(running, TOPIC, texts(6, 7))
        for client in clients:
            assert await client.gets(*texts(3, 7))
            assert await client.gets_no_more(running)


async def test_more_than_there_are_is_all_of_them(serve: Serve) -> None:
    running = await serve(keeping(history=3))
    async with AsyncExitStack() as stack:
        (first, second) = await connect_all(stack, running, 2)
        joined = await running.server.join(first.fd, TOPIC, last=10)
        assert (joined.recovered, joined.count, joined.position.offset) == (False, 0, 0)
        await publish_all(running, TOPIC, texts(1, 5))
        assert (await running.server.join(second.fd, TOPIC, last=10**30)).count == 3
        assert await first.gets(*texts(1, 5))
        assert await second.gets(*texts(3, 5))


async def test_nothing_old_is_sent_unless_it_is_asked_for(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, TOPIC, texts(1, 5))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        joined = await running.server.join(client.fd, TOPIC)
        assert joined == Joined(False, 0, Position(joined.position.epoch, 5))
        await publish_all(running, TOPIC, texts(6, 6))
        assert await client.gets(*texts(6, 6))


@pytest.mark.parametrize("since", [0, 1, 4, 5])
async def test_what_was_missed_since_a_position_is_sent(serve: Serve, since: int) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, TOPIC, texts(1, 5))
    epoch, _ = await position_of(running)
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client, place in zip(clients, ([epoch, since], (epoch, since), Position(epoch, since)), strict=True):
            # What was missed is sent whatever `last` says.
            joined = await running.server.join(client.fd, TOPIC, since=place, last=2)
            assert joined == Joined(True, 5 - since, Position(epoch, 5))
        await publish_all(running, TOPIC, texts(6, 6))
        for client in clients:
            assert await client.gets(*texts(since + 1, 6))
            assert await client.gets_no_more(running)


async def test_either_all_that_was_missed_is_sent_or_nothing_of_it(serve: Serve) -> None:
    running = await serve(keeping(history=5))
    await publish_all(running, TOPIC, texts(1, 10))
    epoch, _ = await position_of(running)
    async with AsyncExitStack() as stack:
        late, exact, wants_last = await connect_all(stack, running, 3)
        assert await running.server.join(late.fd, TOPIC, since=[epoch, 4]) == Joined(False, 0, Position(epoch, 10))
        assert await running.server.join(exact.fd, TOPIC, since=[epoch, 5]) == Joined(True, 5, Position(epoch, 10))
        joined = await running.server.join(wants_last.fd, TOPIC, since=[epoch, 4], last=2)
        assert joined == Joined(False, 2, Position(epoch, 10))
        await publish_all(running, TOPIC, texts(11, 11))
        assert await late.gets(*texts(11, 11))
        assert await exact.gets(*texts(6, 11))
        assert await wants_last.gets(*texts(9, 11))


async def test_a_position_of_elsewhere_recovers_nothing(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    for topic in (TOPIC, "kept too"):
        await publish_all(running, topic, texts(1, 5))
    epoch, offset = await position_of(running)
    other, _ = await position_of(running, "kept too")
    wrong: list[Any] = [
        [other, 3],
        [epoch, offset + 1],
        [epoch, 2**53 - 1],
        [epoch, 2**53],
        [epoch, 10**100],
        [epoch, -1],
        [epoch, "3"],
        [epoch, 3.0],
        [epoch, None],
        [epoch, True],
        [epoch],
        [epoch, 3, 3],
        ["", 3],
        ["", 0],
        [epoch + "0", 3],
        ["\ud800", 3],
        [None, 3],
        [3, epoch],
        [[epoch], [3]],
        [],
        {},
        {"epoch": epoch, "offset": 3},
        "",
        epoch,
        0,
        5,
        True,
        1.5,
    ]
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, len(wrong))
        for client, since in zip(clients, wrong, strict=True):
            joined = await running.server.join(client.fd, TOPIC, since=since)
            assert joined == Joined(False, 0, Position(epoch, 5)), since
        await publish_all(running, TOPIC, texts(6, 6))
        for client in clients:
            assert await client.gets(*texts(6, 6))


async def test_a_position_before_the_history_was_removed_recovers_nothing(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, TOPIC, texts(1, 5))
    before = await position_of(running)
    await running.server.forget(TOPIC)
    await publish_all(running, TOPIC, texts(6, 12))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        joined = await running.server.join(client.fd, TOPIC, since=before)
        assert (joined.recovered, joined.count, joined.position.offset) == (False, 0, 7)


async def test_a_position_outlives_the_messages(serve: Serve) -> None:
    """If nothing was published since, nothing is missing, even if the messages before it have expired."""
    running = await serve(keeping(history=2))
    await publish_all(running, TOPIC, texts(1, 5))
    position = await position_of(running)
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        assert await running.server.join(client.fd, TOPIC, since=position) == Joined(True, 0, position)


async def test_an_empty_topic_can_be_resumed(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    async with AsyncExitStack() as stack:
        first, second = await connect_all(stack, running, 2)
        joined = await running.server.join(first.fd, TOPIC)
        assert (joined.position.offset, joined.position.epoch != "") == (0, True)
        await publish_all(running, TOPIC, texts(1, 2))
        again = await running.server.join(second.fd, TOPIC, since=joined.position)
        assert (again.recovered, again.count) == (True, 2)
        assert await second.gets(*texts(1, 2))


@pytest.mark.parametrize("topic", [TOPIC, "other"])
async def test_a_connection_that_is_not_there_joins_nothing(serve: Serve, topic: str) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, topic, texts(1, 5))
    async with running.connect():
        gone = await running.opened()
    await running.server.wait_closed(gone)
    for fd in (gone, 0, -1, 12345, 2**53, 10**30):
        assert await running.server.join(fd, topic, last=5, since=["x", 1]) == Joined(False, 0, NOWHERE)
    assert await running.server.subscribers(topic) == 0


async def test_a_topic_without_history_is_just_subscribed(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            assert await running.server.join(client.fd, "other", last=5, since=["x", 1]) == Joined(False, 0, NOWHERE)
        assert await running.server.subscribers("other") == 3
        await running.server.publish("other", "hello")
        for client in clients:
            assert await client.gets("hello")


async def test_who_is_subscribed_already_gets_nothing_twice(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 3)
        for client in clients:
            await running.server.subscribe(client.fd, TOPIC)
        await publish_all(running, TOPIC, texts(1, 3))
        position = await position_of(running)
        for client in clients:
            joined = await running.server.join(client.fd, TOPIC, last=3, since=[position.epoch, 1])
            assert joined == Joined(False, 0, position)
        await publish_all(running, TOPIC, texts(4, 4))
        for client in clients:
            assert await client.gets(*texts(1, 4))
            assert await client.gets_no_more(running)


async def test_who_joins_twice_at_once_gets_everything_once(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, TOPIC, texts(1, 5))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        fd = client.fd

        async def join_twice(server: Server, note: Note) -> list[int]:
            joined = await asyncio.gather(*(server.join(fd, TOPIC, last=4) for _ in range(3)))
            return sorted(each.count for each in joined)

        assert await running.server.run(join_twice) == [0, 0, 4]
        await publish_all(running, TOPIC, texts(6, 6))
        assert await client.gets(*texts(2, 6))
        assert await client.gets_no_more(running)
    assert await running.server.subscribers(TOPIC) == 0


async def test_unsubscribing_ends_it_and_joining_again_resumes(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.join(client.fd, TOPIC)
        await publish_all(running, TOPIC, texts(1, 2))
        position = await position_of(running)
        await running.server.unsubscribe(client.fd, TOPIC)
        await publish_all(running, TOPIC, texts(3, 4))
        joined = await running.server.join(client.fd, TOPIC, since=position)
        assert joined == Joined(True, 2, Position(position.epoch, 4))
        assert await client.gets(*texts(1, 4))
        assert await client.gets_no_more(running)


async def test_what_is_pushed_around_a_join_keeps_its_place(serve: Serve) -> None:
    """As in a handler that welcomes somebody, sends the history, and says that this was all."""

    def application(server: Server, note: Note) -> None:
        server.topic_options(TOPIC, history=10)

        @server.on("open")
        async def on_open(server: Server, request: Request) -> None:
            server.push(request.fd, "welcome")
            joined = await server.join(request.fd, TOPIC, last=10)
            server.push(request.fd, f"that was {joined.count}")

    running = await serve(application)
    await publish_all(running, TOPIC, texts(1, 3))
    for _ in range(4):
        async with running.connect() as client:
            received = [await client.recv() for _ in range(5)]
            assert received == ["welcome", *texts(1, 3), "that was 3"]


async def test_a_join_that_is_cancelled_does_no_harm(serve: Serve) -> None:
    running = await serve(keeping(history=10))
    await publish_all(running, TOPIC, texts(1, 3))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        fd = client.fd

        async def join_and_give_up(server: Server, note: Note) -> bool:
            joining = asyncio.ensure_future(server.join(fd, TOPIC, last=3))
            await asyncio.sleep(0)
            joining.cancel()
            await asyncio.wait([joining])
            return joining.cancelled()

        assert await running.server.run(join_and_give_up)
        # Whether it has joined is open; what it gets is in order.
        await running.server.join(client.fd, TOPIC, last=3)
        await publish_all(running, TOPIC, texts(4, 4))
        assert await client.gets(*texts(1, 4))
        assert await client.gets_no_more(running)


async def test_a_connection_may_end_while_it_joins(serve: Serve) -> None:
    running = await serve(keeping(history=1000), send_queue_size=16 * 1024 * 1024)
    await publish_all(running, TOPIC, texts(1, 500), padding=5000)
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 6)
        fds = [client.fd for client in clients]

        async def join_and_end(server: Server, note: Note) -> list[Joined]:
            joining = [asyncio.ensure_future(server.join(fd, TOPIC, last=500)) for fd in fds]
            await asyncio.sleep(0)
            for fd in fds:
                server.disconnect(fd)
            return await asyncio.gather(*joining)

        for joined in await running.server.run(join_and_end):
            assert joined.count in (0, 500)
            assert joined.recovered is False
        for client in clients:
            received = [message async for message in client.client]
            assert received in ([], padded(texts(1, 500), 5000))
    assert await running.server.subscribers(TOPIC) == 0


async def test_a_history_that_the_outbox_cannot_hold_is_not_recovered(serve: Serve) -> None:
    running = await serve(keeping(history=1000), send_queue_size=100_000)
    await publish_all(running, TOPIC, [f"{number:03}" for number in range(500)], padding=1000)
    epoch, _ = await position_of(running)
    async with AsyncExitStack() as stack:
        lost, last, fits = await connect_all(stack, running, 3)
        assert await running.server.join(lost.fd, TOPIC, since=[epoch, 0]) == Joined(False, 0, Position(epoch, 500))
        joined = await running.server.join(last.fd, TOPIC, last=500)
        assert 50 < joined.count <= 100
        assert (await running.server.join(fits.fd, TOPIC, since=[epoch, 450])).recovered is True
        for client, count in ((last, joined.count), (fits, 50)):
            received = [str(await client.client.recv())[:3] for _ in range(count)]
            assert received == [f"{number:03}" for number in range(500 - count, 500)]
        # All are still connected, and get what is new.
        await publish_all(running, TOPIC, ["new"])
        for client in (lost, last, fits):
            assert await client.gets("new")


async def test_a_connection_with_max_topics_joins_no_other(serve: Serve) -> None:
    running = await serve(keeping(history=10), max_topics=1)
    await publish_all(running, TOPIC, texts(1, 3))
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        owner = await running.owner(client.fd)
        await owner.subscribe(client.fd, "other")
        assert await owner.join(client.fd, TOPIC, last=3) == Joined(False, 0, NOWHERE)
        assert await client.gets_no_more(running)


def follows(server: Server, note: Note) -> None:
    """Have a client join with the position that it sends, and tell it the result."""
    server.topic_options(TOPIC, history=HISTORY, envelope=True)

    @server.on("message")
    async def on_message(server: Server, frame: Frame) -> None:
        joined = await server.join(frame.fd, TOPIC, since=frame.json())
        server.push(frame.fd, {"joined": [joined.recovered, joined.count, joined.position]})


HISTORY = 40


class Follower:
    """A client that connects, resumes, and leaves again, until it has seen the last message; checks every message."""

    def __init__(self, running: Running, total: int, seed: int) -> None:
        self.seen: dict[int, str] = {}
        self.resumed = self.lost = 0
        self._running = running
        self._total = total
        self._random = random.Random(seed)
        self._position: list[Any] | None = None

    async def run(self) -> None:
        while self._position is None or self._position[1] < self._total:
            async with self._running.connect() as client:
                await client.send(json.dumps(self._position))
                await self._follow(client)
                client.transport.abort()

    async def _follow(self, client: Any) -> None:
        since, self._position = self._position, None
        budget = self._random.randint(0, 60)
        first: int | None = None
        is_joined = False
        while not is_joined or (budget > 0 and self._position and self._position[1] < self._total):
            message = json.loads(await client.recv())
            if "joined" in message:
                is_joined = True
                self._check_joined(since, first, *message["joined"])
                continue
            offset = message["offset"]
            first = first or offset
            if self._position:
                assert offset == self._position[1] + 1
            assert offset not in self.seen
            self.seen[offset] = message["data"]
            self._position = [message["epoch"], offset]
            budget -= 1

    def _check_joined(
        self, since: list[Any] | None, first: int | None, recovered: bool, count: int, position: list[Any]
    ) -> None:
        top = position[1]
        if recovered:
            assert since is not None
            assert count == top - since[1]
            assert first in (None, since[1] + 1)
            self.resumed += 1
        else:
            assert count == 0
            assert first in (None, top + 1)
            if since is not None:
                # It says so only if it is true. What was published while it joined has come by now, as new messages.
                newest = max(top, self._position[1] if self._position else 0)
                assert newest - since[1] > HISTORY
                self.lost += 1
        if self._position is None:
            self._position = position


async def test_whoever_flaps_gets_every_message_once_or_is_told_of_the_gap(serve: Serve) -> None:
    running = await serve(follows)
    each = 1200 // len(running.workers)
    total = each * len(running.workers)

    async def publish(server: Server, note: Note) -> None:
        for number in range(each):
            server.publish(TOPIC, f"{server.worker_id} {number}")
            await asyncio.sleep(0.001 * (number % 3))

    followers = [Follower(running, total, seed) for seed in range(12)]
    async with asyncio.TaskGroup() as group:
        for worker in running.workers:
            group.create_task(worker.run(publish))
        for follower in followers:
            group.create_task(follower.run())
    order: dict[int, str] = {}
    for follower in followers:
        for offset, data in follower.seen.items():
            assert order.setdefault(offset, data) == data
    for worker in running.workers:
        numbers = [
            int(order[offset].split()[1])
            for offset in sorted(order)
            if order[offset].startswith(f"{worker.worker_id} ")
        ]
        assert numbers == sorted(set(numbers))
    assert sum(follower.resumed for follower in followers) > 0


async def test_many_join_at_once_while_somebody_publishes_at_full_speed(serve: Serve) -> None:
    running = await serve(keeping(history=50))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 60)
        fds = [client.fd for client in clients]

        async def join_all(server: Server, note: Note) -> list[int]:
            async def publish() -> None:
                for number in range(1, 1001):
                    server.publish(TOPIC, f"message {number}")
                    if number % 20 == 0:
                        await asyncio.sleep(0)

            publishing = asyncio.ensure_future(publish())
            await asyncio.sleep(0)
            joined = await asyncio.gather(*(server.join(fd, TOPIC, last=10) for fd in fds))
            await publishing
            return [each.position.offset - each.count for each in joined]

        befores = await running.server.run(join_all)
        for client, before in zip(clients, befores, strict=True):
            assert await client.gets(*texts(before + 1, 1000))
            assert await client.gets_no_more(running)


@pytest.mark.parametrize(
    ("keywords", "error", "says"),
    [
        ({"last": -1}, ValueError, "last must be 0 or above, not -1"),
        ({"last": True}, TypeError, "last must be an int, not bool"),
        ({"last": None}, TypeError, "last must be an int, not NoneType"),
        ({"topic": ""}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 0"),
        ({"topic": "x" * 256}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 256"),
        ({"topic": 5}, TypeError, "topic must be a str, not int"),
        ({"fd": "5"}, TypeError, "fd must be an int, not str"),
        ({"info": {1, 2}}, TypeError, "info must be encodable as JSON"),
        ({"info": float("nan")}, TypeError, "info must be encodable as JSON"),
        ({"info": "x" * 1023}, ValueError, "info must have at most 1,024 bytes as JSON, not 1,025"),
    ],
)
async def test_what_cannot_join_is_an_error(
    serve_here: Serve, keywords: dict[str, Any], error: type[Exception], says: str
) -> None:
    running = await serve_here(keeping(history=10))
    with pytest.raises(error, match=says):
        await running.server.join(**({"fd": 1, "topic": TOPIC} | keywords))
