"""The contents of log lines, and the limit on their number."""

import functools
import logging
from collections.abc import Callable as Function
from dataclasses import dataclass

import pytest

from hubbub.logs import LineFormatter, Throttle, name_of, shown, shown_client

Callback = Function[[], None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/chat?room=1", "/chat?room=1"),
        ("/größe/日本", "/größe/日本"),
        ("a\nb\r\n", r"a\nb\r\n"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x85\u2028\u2029", r"\x85\u2028\u2029"),
        ("\u202egnp.exe\u2066\u200f\u061c", r"\u202egnp.exe\u2066\u200f\u061c"),
        ("\ufeff\u200b\ud800", r"\ufeff\u200b\ud800"),
        (r"\x1b", r"\\x1b"),
        ('" 200 "', r"\" 200 \""),
        ("\x7f\0", r"\x7f\x00"),
    ],
)
def test_what_could_deceive_the_reader_is_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_every_character_ends_up_printable() -> None:
    assert all(shown(chr(code)).isprintable() for code in range(0x110000))


def test_a_long_text_is_cut() -> None:
    assert shown("x" * 500) == "x" * 500
    assert shown("x" * 100_000) == "x" * 500 + "..."


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("192.0.2.7", 4711), "192.0.2.7:4711"),
        (("2001:db8::1", 4711), "[2001:db8::1]:4711"),
        (("192.0.2.7", 0), "192.0.2.7"),
    ],
)
def test_a_client_is_its_address_and_its_port_if_that_is_known(client: tuple[str, int], expected: str) -> None:
    assert shown_client(client) == expected


class Callable:
    def __call__(self) -> None: ...


def test_a_function_is_named_whatever_it_is_wrapped_in() -> None:
    here = name_of(Callable).rpartition(".")[0]
    assert name_of(test_a_long_text_is_cut) == f"{here}.test_a_long_text_is_cut"
    assert name_of(functools.partial(functools.partial(test_a_long_text_is_cut))) == name_of(test_a_long_text_is_cut)
    assert name_of(Callable()) == f"{here}.Callable"


class TestThrottle:
    """A throttle in an event loop in which the test ends the intervals."""

    @pytest.fixture(autouse=True)
    def _loop(self) -> None:
        self.loop = HandCrankedLoop()
        self.told: list[int] = []
        self.throttle = Throttle(self.loop, 3, self.told.append)  # type: ignore[arg-type]

    def test_the_first_lines_pass_and_the_others_are_told_as_a_number(self) -> None:
        assert [self.throttle.passes() for _ in range(5)] == [True] * 3 + [False] * 2
        self.loop.pass_interval()
        assert self.told == [2]

    def test_where_all_have_passed_nothing_is_told(self) -> None:
        assert all(self.throttle.passes() for _ in range(3))
        self.loop.pass_interval()
        assert self.told == []

    def test_each_interval_lets_as_many_pass(self) -> None:
        for _ in range(3):
            assert sum(self.throttle.passes() for _ in range(10)) == 3
            self.loop.pass_interval()
        assert self.told == [7, 7, 7]

    def test_others_may_be_known_by_number_only(self) -> None:
        self.throttle.count(0)
        assert not self.loop.timers
        self.throttle.count(5)
        self.loop.pass_interval()
        assert self.told == [5]

    def test_closing_tells_the_rest_at_once(self) -> None:
        assert sum(self.throttle.passes() for _ in range(4)) == 3
        self.throttle.close()
        assert self.told == [1]
        self.throttle.close()
        assert self.told == [1]


class HandCrankedLoop:
    """The part of an event loop that a `Throttle` needs."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, callback: Callback) -> "Timer":
        self.timers.append(Timer(callback))
        return self.timers[-1]

    def pass_interval(self) -> None:
        (timer,) = self.timers
        self.timers.clear()
        timer.callback()


@dataclass
class Timer:
    callback: Callback

    def cancel(self) -> None: ...


def logged(error: BaseException) -> str:
    record = logging.LogRecord("hubbub", logging.ERROR, "", 0, "failed", (), (type(error), error, None))
    return LineFormatter("%(levelname)s %(message)s").format(record)


def test_an_exceptions_message_begins_no_line_of_the_log() -> None:
    lines = logged(ValueError("bad\nERROR forged\x1b[31m\r\x85\u2028end")).split("\n")
    assert lines == ["ERROR failed", "ValueError: bad", r"  ERROR forged\x1b[31m\r\x85\u2028end"]


def test_backslashes_in_a_traceback_stay() -> None:
    assert logged(ValueError(r'a "\d"')).endswith(r'ValueError: a "\d"')


def test_the_middle_of_a_long_traceback_is_left_out() -> None:
    text = logged(ValueError("begin\n" + "x\n" * 100_000 + "end"))
    assert len(text) < 40_000
    assert "ValueError: begin\n" in text
    assert text.endswith("\n  end")
