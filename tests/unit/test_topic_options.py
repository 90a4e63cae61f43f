"""The options of topics: what `Server.topic_options` takes and refuses."""

from typing import Any

import pytest

from hubbub import Server
from hubbub.topic_options import TopicOptions


def options_of(*patterns: str, **options: Any) -> list[TopicOptions]:
    """Return the options that a server keeps for these patterns."""
    server = Server()
    for pattern in patterns:
        server.topic_options(pattern, **options)
    return server._topics


def test_without_options_nothing_is_kept() -> None:
    assert options_of("news") == [TopicOptions("news", 0, 300.0, False, False, None, None)]


def test_options_are_kept_in_their_order() -> None:
    server = Server()
    server.topic_options("room:1", history=5)
    server.topic_options("room:*", history=100, seconds=3600, presence=True, envelope=True)
    server.topic_options("price:*", slow_consumer="latest", ttl=0.5)
    assert [options.values for options in server._topics] == [
        ("room:1", 5, 300.0, False, False, None, None),
        ("room:*", 100, 3600.0, True, True, None, None),
        ("price:*", 0, 300.0, False, False, "latest", 0.5),
    ]


@pytest.mark.parametrize("pattern", ["x", "*", "x*", "é" * 127, "x" * 254 + "*", " ", "a/b.#"])
def test_names_and_beginnings_of_names_are_patterns(pattern: str) -> None:
    assert options_of(pattern)[0].pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "error", "says"),
    [
        (None, TypeError, "pattern must be a str, not NoneType"),
        (b"news", TypeError, "pattern must be a str, not bytes"),
        ("", ValueError, "pattern must have 1 to 255 bytes of UTF-8, not 0"),
        ("x" * 256, ValueError, "pattern must have 1 to 255 bytes of UTF-8, not 256"),
        ("é" * 128, ValueError, "pattern must have 1 to 255 bytes of UTF-8, not 256"),
        ("\ud800", ValueError, "pattern must be text that UTF-8 can express"),
        ("*x", ValueError, r"pattern must have no \* except at its end, unlike '\*x'"),
        ("x*y", ValueError, r"except at its end, unlike 'x\*y'"),
        ("**", ValueError, r"except at its end, unlike '\*\*'"),
    ],
)
def test_a_malformed_pattern_is_refused(pattern: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        options_of(pattern)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"history": -1}, ValueError, "history must be 0 to 2,147,483,647 messages, not -1"),
        ({"history": 2**53}, ValueError, "history must be .*, not 9007199254740992"),
        ({"history": 10**5000}, ValueError, "history must be .*, not a number with thousands of digits"),
        ({"history": True}, TypeError, "history must be an int, not bool"),
        ({"history": 1.0}, TypeError, "history must be an int, not float"),
        ({"history": None}, TypeError, "history must be an int, not NoneType"),
        ({"seconds": 0}, ValueError, "seconds must be 0.001 to 31,536,000 seconds, not 0"),
        ({"seconds": -1}, ValueError, "seconds must be .*, not -1"),
        ({"seconds": float("nan")}, ValueError, "seconds must be .*, not nan"),
        ({"seconds": float("inf")}, ValueError, "seconds must be .*, not inf"),
        ({"seconds": 10**400}, ValueError, "seconds must be a number that fits into a float"),
        ({"seconds": True}, TypeError, "seconds must be a number of seconds, not bool"),
        ({"seconds": None}, TypeError, "seconds must be a number of seconds, not NoneType"),
        ({"seconds": "60"}, TypeError, "seconds must be a number of seconds, not str"),
        ({"presence": 1}, TypeError, "presence must be a bool, not int"),
        ({"envelope": None}, TypeError, "envelope must be a bool, not NoneType"),
        ({"slow_consumer": "wait"}, ValueError, "must be one of 'close', 'drop', 'latest', or None, not 'wait'"),
        ({"slow_consumer": True}, TypeError, "slow_consumer must be a str or None, not bool"),
        ({"ttl": 0}, ValueError, "ttl must be 0.001 to 31,536,000 seconds or None, not 0"),
        ({"ttl": float("nan")}, ValueError, "ttl must be .*, not nan"),
        ({"ttl": True}, TypeError, "ttl must be a number of seconds or None, not bool"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        options_of("news", **options)


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (["news", "news"], "pattern 'news' has options already"),
        (["room:*", "room:*"], r"pattern 'room:\*' has options already"),
        (["room:*", "room:1"], r"pattern 'room:1' would never count: 'room:\*', whose options were given before"),
        (["room:*", "room:vip:*"], r"pattern 'room:vip:\*' would never count: 'room:\*'"),
        (["room:*", "room:"], r"pattern 'room:' would never count: 'room:\*'"),
        (["x", "*", "y"], r"pattern 'y' would never count: '\*'"),
    ],
)
def test_a_pattern_that_would_never_count_is_refused(patterns: list[str], says: str) -> None:
    *earlier, last = patterns
    server = Server()
    for pattern in earlier:
        server.topic_options(pattern)
    with pytest.raises(ValueError, match=says):
        server.topic_options(last)
    assert [options.pattern for options in server._topics] == earlier


@pytest.mark.parametrize("patterns", [["room:1", "room:*"], ["room:vip:*", "room:*"], ["room:*", "room"], ["a*", "b*"]])
def test_a_pattern_may_match_more_than_an_earlier_one(patterns: list[str]) -> None:
    assert [options.pattern for options in options_of(*patterns)] == patterns


async def test_options_are_set_before_the_start() -> None:
    async with (server := Server(port=0)):
        with pytest.raises(RuntimeError, match="the options of topics must be set before the server starts"):
            server.topic_options("news", history=1)
    server.topic_options("news", history=1)
