"""The calls of one caller, anywhere, reach a connection in the order in which they were made, in any mix."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hub_client import HubClient
from hub_server import StartHub

from hubbub import Publisher

TURNS = 40
CALLS = 150
TOPIC = "topic"
RACES = 700

Call = list[Any]


def mix(fd: int, names: list[str], generator: random.Random) -> tuple[list[Call], list[str]]:
    """Return a random mix of calls, and the messages that the connection, subscribed to TOPIC, has to receive."""
    calls: list[Call] = []
    expected = []
    is_subscribed = True
    for number in range(CALLS):
        name, text = generator.choice(names), str(number)
        match name:
            case "push":
                calls.append([name, fd, text])
            case "broadcast":
                calls.append([name, text])
            case "publish":
                calls.append([name, TOPIC, text])
            case "subscribe" | "unsubscribe":
                calls.append([name, fd, TOPIC])
                is_subscribed = name == "subscribe"
        if name in ("push", "broadcast") or (name == "publish" and is_subscribed):
            expected.append(text)
    calls.append(["disconnect", fd, 4000, "bye"])
    return calls, expected


async def from_loop(client: HubClient, hub: Publisher, calls: list[Call]) -> None:
    await client.ask(f"call({calls})")


async def from_thread(client: HubClient, hub: Publisher, calls: list[Call]) -> None:
    await client.ask(f"in_thread(lambda: call({calls}))")


async def from_publisher(client: HubClient, hub: Publisher, calls: list[Call]) -> None:
    def call() -> None:
        for name, *arguments in calls:
            getattr(hub, name)(*arguments)

    await asyncio.to_thread(call)


SENDING = ["push", "broadcast", "publish"]
ALL = [*SENDING, "publish", "subscribe", "unsubscribe"]


@pytest.mark.parametrize(
    ("place", "names"),
    [(from_loop, ALL), (from_thread, ALL), (from_publisher, SENDING)],
    ids=["loop", "thread", "publisher"],
)
@pytest.mark.parametrize("owner", [0, 1])
async def test_any_mix_of_calls_arrives_in_their_order(
    start_hub: StartHub, place: Callable[..., Any], names: list[str], owner: int
) -> None:
    server = start_hub()
    generator = random.Random(7)
    async with server.client_of(0) as caller:
        with server.publisher() as hub:
            for _ in range(TURNS):
                async with server.client_of(owner, topics=TOPIC) as receiver:
                    calls, expected = mix(receiver.fd, names, generator)
                    await place(caller, hub, calls)
                    await receiver.ends()
                    assert [receiver.received() for _ in expected] == expected
                    assert receiver.received() is None
                    assert receiver.close_code == 4000


async def told_and_published(subscriber: HubClient, publisher: HubClient, pair: int) -> None:
    """Once a client knows that it is subscribed, it misses no message, whichever worker publishes it."""
    for number in range(RACES):
        topic, text = f"{pair} {number}", str(number)
        assert await subscriber.ask(f"server.subscribe({subscriber.fd}, '{topic}')")
        await publisher.ask(f"server.publish('{topic}', '{text}')")
        assert await subscriber.receive() == text
        assert await subscriber.ask(f"server.unsubscribe({subscriber.fd}, '{topic}')")


async def subscribed_and_published(subscriber: HubClient, publisher: HubClient, pair: int) -> None:
    """If a caller subscribes another worker's connection and publishes at once, the connection gets the message."""
    for number in range(RACES):
        topic, text = f"{pair} {number}", str(number)
        calls = [["subscribe", subscriber.fd, topic], ["publish", topic, text], ["unsubscribe", subscriber.fd, topic]]
        await publisher.ask(f"call({calls})")
        assert await subscriber.receive() == text


@pytest.mark.parametrize("race", [told_and_published, subscribed_and_published])
async def test_a_publish_after_a_subscribe_is_never_missed(start_hub: StartHub, race: Callable[..., Any]) -> None:
    server = start_hub()
    async with server.clients() as (first, second, third), asyncio.TaskGroup() as pairs:
        for pair, (subscriber, publisher) in enumerate([(first, second), (second, third), (third, first)]):
            pairs.create_task(race(subscriber, publisher, pair))
