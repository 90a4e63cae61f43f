"""What is known about members, and the order of the handlers of `join` and `leave`."""

from collections.abc import Callable
from typing import Any

import pytest

from hubbub.presence import MAX_WAITING, Attendance, as_info, decoded


@pytest.mark.parametrize("info", ["Ada", 5, 1.5, True, [], {}, {"name": "é", "tags": [None, 1]}, "x" * 1022, "é" * 511])
def test_what_json_can_express_comes_back(info: object) -> None:
    text = as_info(info)
    assert text is not None
    assert decoded(text) == info


def test_no_info_is_none() -> None:
    assert as_info(None) is None
    assert decoded("") is None
    assert decoded("null") is None


@pytest.mark.parametrize(
    ("info", "error", "says"),
    [
        ({1, 2}, TypeError, "info must be encodable as JSON: Object of type set"),
        (b"x", TypeError, "info must be encodable as JSON: Object of type bytes"),
        (float("nan"), TypeError, "info must be encodable as JSON: .*not JSON compliant"),
        ([float("inf")], TypeError, "info must be encodable as JSON"),
        ("\ud800", TypeError, "info must be encodable as JSON: .*surrogates"),
        ({(1, 2): 3}, TypeError, "info must be encodable as JSON: keys must be"),
        ("x" * 1023, ValueError, "info must have at most 1,024 bytes as JSON, not 1,025"),
        ("é" * 512, ValueError, "info must have at most 1,024 bytes as JSON, not 1,026"),
        ("x" * 10**6, ValueError, "not 1,000,002"),
    ],
)
def test_what_is_no_info_is_an_error(info: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        as_info(info)


def test_a_value_that_contains_itself_is_an_error() -> None:
    info: list[Any] = []
    info.append(info)
    with pytest.raises(TypeError, match="info must be encodable as JSON"):
        as_info(info)


# The number of the only stay.
NUMBER = 7


class Handlers:
    """Notes the calls, whose handlers end when the test says so, unless they are to end at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.called: list[tuple[str, str, int, str]] = []
        self.running: list[Callable[[], None]] = []
        self.at_once = at_once
        self.skipped: list[tuple[str, int, int]] = []
        self.attendance = Attendance(self.begin, lambda *event: self.skipped.append(event))

    def begin(self, event: str, then: Callable[[], None], topic: str, fd: int, number: int, info: str) -> None:
        self.called.append((event, topic, fd, info))
        if self.at_once:
            then()
        else:
            self.running.append(then)

    def end_first(self) -> None:
        self.running.pop(0)()


def test_the_handlers_of_a_member_run_one_after_the_other() -> None:
    handlers = Handlers()
    for event in ("join", "leave", "join"):
        handlers.attendance.tell(event, "room", 1, NUMBER, '"Ada"')
    assert handlers.called == [("join", "room", 1, '"Ada"')]
    handlers.end_first()
    assert [call[0] for call in handlers.called] == ["join", "leave"]
    handlers.end_first()
    handlers.end_first()
    assert [call[0] for call in handlers.called] == ["join", "leave", "join"]
    handlers.attendance.tell("leave", "room", 1, NUMBER, "")
    assert handlers.called[-1] == ("leave", "room", 1, "")


def test_different_members_do_not_wait_for_each_other() -> None:
    handlers = Handlers()
    for topic, fd in (("room", 1), ("room", 2), ("other", 1)):
        handlers.attendance.tell("join", topic, fd, NUMBER, "")
    assert len(handlers.running) == 3


def test_handlers_that_end_at_once_leave_nothing_behind() -> None:
    handlers = Handlers(at_once=True)
    for _ in range(10):
        handlers.attendance.tell("join", "room", 1, NUMBER, "")
        handlers.attendance.tell("leave", "room", 1, NUMBER, "")
    assert [call[0] for call in handlers.called] == ["join", "leave"] * 10
    assert handlers.attendance._members == {}


def test_many_that_wait_do_not_exhaust_the_stack() -> None:
    handlers = Handlers()
    for _ in range(MAX_WAITING // 2):
        handlers.attendance.tell("join", "room", 1, NUMBER, "")
        handlers.attendance.tell("leave", "room", 1, NUMBER, "")
    handlers.at_once = True
    handlers.end_first()
    assert [call[0] for call in handlers.called] == ["join", "leave"] * (MAX_WAITING // 2)


def test_behind_a_handler_that_hangs_they_are_bounded_and_still_alternate() -> None:
    handlers = Handlers()
    for _ in range(2 * MAX_WAITING):
        handlers.attendance.tell("join", "room", 1, NUMBER, "")
        handlers.attendance.tell("leave", "room", 1, NUMBER, "")
    handlers.at_once = True
    handlers.end_first()
    events = [call[0] for call in handlers.called]
    assert len(events) <= MAX_WAITING + 2
    assert events == ["join", "leave"] * (len(events) // 2)
    # The server is told of each, whether it is called or not.
    assert len(events) + len(handlers.skipped) == 4 * MAX_WAITING
    assert {(fd, number) for _, fd, number in handlers.skipped} == {(1, NUMBER)}
