"""Positions, messages, and how a history is read page by page."""

import json
import pickle
from typing import Any

import pytest

from hubbub import History, Joined, Message, Position
from hubbub.history import MAX_OFFSET, HistoryPage, Reading, as_after, as_last

NOWHERE = ("", 0)


def test_a_position_is_a_list_in_json() -> None:
    position = Position("abc", 5)
    assert json.dumps({"since": position}) == '{"since": ["abc", 5]}'
    assert as_after(json.loads(json.dumps(position))) == as_after(position) == ("abc", 5)


@pytest.mark.parametrize("offset", [0, 1, MAX_OFFSET])
def test_what_is_a_position_is_taken(offset: int) -> None:
    for since in (["abc", offset], ("abc", offset), Position("abc", offset)):
        assert as_after(since) == ("abc", offset)


@pytest.mark.parametrize(
    "since",
    [
        "",
        "abc",
        "ab",
        b"ab",
        5,
        True,
        [],
        ["abc"],
        ["abc", 1, 2],
        [1, "abc"],
        ["", 1],
        ["é", 1],
        ["\ud800", 1],
        ["x" * 65, 1],
        ["abc", -1],
        ["abc", MAX_OFFSET + 1],
        ["abc", 10**400],
        ["abc", 1.0],
        ["abc", True],
        ["abc", "1"],
        ["abc", None],
        [None, None],
        [["abc"], [1]],
        {},
        {"epoch": "abc", "offset": 1},
        {0: "abc", 1: 1},
        object(),
    ],
)
def test_what_is_no_position_is_one_that_no_topic_has(since: object) -> None:
    assert as_after(since) == NOWHERE


def test_no_position_is_none() -> None:
    assert as_after(None) is None


@pytest.mark.parametrize(
    ("last", "error", "says"),
    [
        (-1, ValueError, "last must be 0 or above, not -1"),
        pytest.param(-(10**5000), ValueError, "thousands of digits", id="huge"),
        (True, TypeError, "last must be an int, not bool"),
        (None, TypeError, "last must be an int, not NoneType"),
        (1.0, TypeError, "last must be an int, not float"),
    ],
)
def test_a_number_of_old_messages_that_is_none_is_refused(last: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        as_last(last)


def test_a_huge_number_of_old_messages_is_all_of_them() -> None:
    assert (as_last(0), as_last(7)) == (0, 7)
    assert as_last(10**30) == as_last(10**31) >= 2**31 - 1


def test_values_cannot_be_changed_and_can_be_pickled() -> None:
    message = Message(1, '{"a": 1}', 0.5)
    history = History((message,), Position("abc", 1))
    joined = Joined(True, 1, Position("abc", 1))
    for value, name in ((message, "data"), (history, "messages"), (joined, "count")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)
        assert pickle.loads(pickle.dumps(value)) == value
    assert message.json() == {"a": 1}
    assert repr(message) == "Message(offset=1, data='{\"a\": 1}', time=0.5)"
    with pytest.raises(ValueError, match="not JSON"):
        Message(1, b"\xff", 0.5).json()


class Broker:
    """A history from which pages of at most two messages are read."""

    def __init__(self, count: int, epoch: str = "one") -> None:
        self.begin(count, epoch)
        self.pages = 0

    def begin(self, count: int, epoch: str) -> None:
        self.epoch = epoch
        self.entries: list[tuple[int, str | bytes, float]] = [
            (n, f"{epoch} {n}", float(n)) for n in range(1, count + 1)
        ]

    def page(self, found: Reading) -> HistoryPage:
        self.pages += 1
        after = found.after[1] if found.after and found.after[0] == self.epoch else 0
        matching = [entry for entry in self.entries if entry[0] > after]
        if found.newest_first:
            matching = [entry for entry in reversed(matching) if not found.before or entry[0] < found.before]
        count = min(2, found.wanted)
        return matching[:count], self.epoch, len(self.entries), len(matching) > count

    def read(self, found: Reading) -> list[int]:
        while found.wanted:
            found.add(self.page(found))
        return [message.offset for message in found.result().messages]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100, 10**30])
@pytest.mark.parametrize("since", [None, ["one", 0], ["one", 2], ["one", 7], ["one", 9], ["two", 3], "nonsense"])
def test_a_history_is_read_to_its_limit_or_its_end(newest_first: bool, limit: int, since: object) -> None:
    expected = [offset for offset in range(1, 8) if offset > (as_after(since) or NOWHERE)[1] or since == ["two", 3]]
    found = Reading(limit, since, newest_first=newest_first)
    offsets = Broker(7).read(found)
    assert offsets == (expected[::-1] if newest_first else expected)[:limit]
    assert found.result().position == Position("one", 7)


def test_an_empty_history_is_one_question() -> None:
    broker = Broker(0)
    found = Reading(100, None, newest_first=False)
    assert (broker.read(found), broker.pages) == ([], 1)
    assert found.result() == History((), Position("one", 0))


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_history_that_is_removed_while_it_is_read_is_read_anew(newest_first: bool) -> None:
    broker = Broker(5)
    found = Reading(100, None, newest_first=newest_first)
    found.add(broker.page(found))
    broker.begin(3, "two")
    offsets = broker.read(found)
    assert offsets == ([3, 2, 1] if newest_first else [1, 2, 3])
    result = found.result()
    assert result.position == Position("two", 3)
    assert all(str(message.data).startswith("two") for message in result.messages)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"limit": 0}, ValueError, "limit must be 1 or above, not 0"),
        ({"limit": -(10**5000)}, ValueError, "thousands of digits"),
        ({"limit": True}, TypeError, "limit must be an int, not bool"),
        ({"limit": None}, TypeError, "limit must be an int, not NoneType"),
        ({"newest_first": 1}, TypeError, "newest_first must be a bool, not int"),
    ],
)
def test_what_cannot_be_read_is_an_error(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Reading(**({"limit": 1, "since": None, "newest_first": False} | arguments))
