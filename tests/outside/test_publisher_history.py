"""Other programs publish to topics with history, read it, and see who is there."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from outside_server import OutsideServer, run_program

from hubbub import AsyncPublisher, Message, Position, Publisher

Ask = Callable[..., Any]
NUMBERS = itertools.count()


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


@pytest.fixture
def topic() -> str:
    """Return the name of an unused topic with history and presence."""
    return f"kept:{next(NUMBERS)}"


def test_what_is_published_is_kept_in_its_order(ask: Ask, topic: str) -> None:
    for data in ("text", b"bytes", {"a": "é"}, [1], ""):
        ask("publish", topic, data)
    found = ask("history", topic)
    assert [message.data for message in found.messages] == ["text", b"bytes", '{"a":"é"}', "[1]", ""]
    assert [message.offset for message in found.messages] == [1, 2, 3, 4, 5]
    assert found.messages[2].json() == {"a": "é"}
    assert found.position == Position(found.position.epoch, 5)
    assert ask("history", topic, since=Position(found.position.epoch, 3)).messages == found.messages[3:]
    assert ask("history", topic, since=[found.position.epoch, 5]).messages == ()
    assert ask("history", topic, since=["another", 3]).messages == found.messages
    assert ask("history", topic, limit=2).messages == found.messages[:2]
    assert ask("history", topic, limit=2, newest_first=True).messages == found.messages[:2:-1]


def test_subscribers_get_the_same(server: OutsideServer, ask: Ask, topic: str) -> None:
    with server.client(topic) as one, server.client(topic) as other:
        for number in range(20):
            ask("publish", topic, str(number))
        kept = [message.data for message in ask("history", topic).messages]
        assert one.texts(20) == other.texts(20) == kept


def test_an_envelope_tells_the_position(server: OutsideServer, ask: Ask) -> None:
    topic = f"wrapped:{next(NUMBERS)}"
    with server.client(topic) as client:
        published: list[Any] = ["text", {"a": 1}, ["é"]]
        for data in published:
            ask("publish", topic, data)
        found = ask("history", topic)
        for offset, data in enumerate(published, 1):
            envelope = {"topic": topic, "epoch": found.position.epoch, "offset": offset, "data": data}
            assert json.loads(client.next()) == envelope
    assert [message.data for message in found.messages] == ["text", '{"a":1}', '["é"]']
    for binary in (b"x", bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(TypeError, match=f'data must be str, a dict or a list, because the topic "{topic}" has'):
            ask("publish", topic, binary)


def test_a_long_history_is_read_in_several_questions(server: OutsideServer, ask: Ask, topic: str) -> None:
    texts = [f"{number}" + "x" * 1000 for number in range(9000)]
    with Publisher(server.control) as hub:
        for text in texts:
            hub.publish(topic, text)
    found = ask("history", topic, limit=100_000)
    assert [message.data for message in found.messages] == texts
    newest = ask("history", topic, limit=8500, newest_first=True)
    assert newest.messages == found.messages[:-8501:-1]


def test_a_topic_without_history_has_none(ask: Ask) -> None:
    ask("publish", "news", "text")
    assert ask("history", "news").messages == ()
    assert ask("presence", "news") == {}


def test_presence_tells_who_is_there(server: OutsideServer, ask: Ask, topic: str) -> None:
    assert ask("presence", topic) == {}
    with server.client(topic) as one, server.client(topic) as other:
        present = ask("presence", topic)
        assert present == {one.fd: "1", other.fd: "1"}
        assert list(present) == sorted(present)
        assert ask("presence", topic, limit=1) == {min(one.fd, other.fd): "1"}


@pytest.mark.parametrize(
    ("method", "arguments", "error", "says"),
    [
        ("history", {"topic": ""}, ValueError, "topic must have 1 to 255 bytes"),
        ("history", {"topic": "x", "limit": 0}, ValueError, "limit must be 1 or above"),
        ("history", {"topic": "x", "limit": True}, TypeError, "limit must be an int, not bool"),
        ("history", {"topic": "x", "newest_first": 1}, TypeError, "newest_first must be a bool, not int"),
        ("presence", {"topic": ""}, ValueError, "topic must have 1 to 255 bytes"),
        ("presence", {"topic": "x", "limit": 0}, ValueError, "limit must be 1 or above"),
        ("publish", {"topic": "x", "data": "x", "key": 5}, TypeError, "key must be a str, not int"),
        ("publish", {"topic": "x", "data": "x", "key": "x" * 256}, ValueError, "key must have at most 255 bytes"),
    ],
)
def test_mistakes_are_told(ask: Ask, method: str, arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ask(method, **arguments)


def test_messages_can_be_pickled(ask: Ask, topic: str) -> None:
    ask("publish", topic, "text")
    (message,) = ask("history", topic).messages
    assert message == Message(1, "text", message.time)


def test_a_program_resumes_where_another_one_stopped(server: OutsideServer, topic: str) -> None:
    program = """
    import json, sys
    from hubbub import Publisher

    control, topic, since = sys.argv[1:]
    with Publisher(control) as hub:
        hub.publish(topic, "more")
        found = hub.history(topic, since=json.loads(since))
        print(json.dumps({"position": found.position, "data": [message.data for message in found.messages]}))
    """
    first = json.loads(run_program(program, server.control, topic, "null"))
    second = json.loads(run_program(program, server.control, topic, json.dumps(first["position"])))
    assert (first["data"], second["data"]) == (["more"], ["more"])
    assert second["position"] == [first["position"][0], 2]
