"""Other programs look at topics, and send messages to workers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from outside_server import OutsideServer

from hubbub import AsyncPublisher, Publisher

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, server: OutsideServer) -> Ask:
    """Call a method of either publisher."""

    def ask(method: str, *arguments: Any, **keywords: Any) -> Any:
        if request.param == "sync":
            with Publisher(server.control) as hub:
                return getattr(hub, method)(*arguments, **keywords)

        async def ask_async() -> Any:
            async with AsyncPublisher(server.control) as hub:
                answer: Awaitable[Any] = getattr(hub, method)(*arguments, **keywords)
                return await answer

        return asyncio.run(ask_async())

    return ask


def test_topics_and_members_are_those_of_all_workers(server: OutsideServer, ask: Ask) -> None:
    with server.client("news", "room:1") as one, server.client("news", "room:2") as other:
        assert ask("topics") == {"news": 2, "room:1": 1, "room:2": 1}
        assert ask("topics", prefix="room:", limit=1) == {"room:1": 1}
        assert ask("members", "news") == sorted([one.fd, other.fd])
        assert ask("members", "news", limit=1) == [min(one.fd, other.fd)]
        assert ask("members", "weather") == []


@pytest.mark.parametrize(
    ("method", "arguments", "error", "says"),
    [
        ("topics", {"limit": 0}, ValueError, "limit must be 1 or above"),
        ("topics", {"limit": True}, TypeError, "limit must be an int, not bool"),
        ("topics", {"prefix": 5}, TypeError, "prefix must be a str"),
        ("members", {"topic": ""}, ValueError, "topic must have 1 to 255 bytes"),
        ("members", {"topic": "x", "limit": "1"}, TypeError, "limit must be an int, not str"),
        ("send_message", {"data": 5, "worker_id": 0}, TypeError, "data must be str or bytes-like"),
        ("send_message", {"data": "x", "worker_id": "0"}, TypeError, "worker_id must be an int, not str"),
        ("send_message", {"data": "x", "worker_id": True}, TypeError, "worker_id must be an int, not bool"),
        ("send_message", {"data": "x", "worker_id": 2}, ValueError, "there is no worker 2; the workers are 0 to 1"),
        ("send_message", {"data": "x", "worker_id": -1}, ValueError, "there is no worker -1; the workers are 0 to 1"),
        ("send_message", {"data": "x", "worker_id": 10**30}, ValueError, "there is no worker 10000"),
        ("send_message", {"data": bytes(2**25 + 1), "worker_id": 0}, ValueError, "larger than the maximum, 33554432"),
    ],
)
def test_mistakes_are_told(ask: Ask, method: str, arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ask(method, **arguments)


def test_messages_reach_the_worker_they_are_for_in_order(server: OutsideServer, ask: Ask) -> None:
    with server.client("piped") as client:
        for worker_id in (0, 1):
            for data in ("text", b"bytes", "", "é"):
                ask("send_message", data, worker_id)
            assert client.texts(4) == [f"{worker_id} None {data!r}" for data in ("text", b"bytes", "", "é")]


def test_a_thousand_messages_arrive_in_the_order_of_the_calls(server: OutsideServer) -> None:
    with server.client("piped") as client, Publisher(server.control) as hub:
        for number in range(1000):
            hub.send_message(str(number), worker_id=1)
        assert client.texts(1000) == [f"1 None {str(number)!r}" for number in range(1000)]
