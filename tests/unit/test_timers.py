"""Timers on an event loop whose clock the test controls."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, cast

from hubbub.timers import Timer


class Clock:
    """The part of an event loop that a timer needs; the test sets its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[asyncio.TimerHandle] = []
        self.is_closed = False

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_at(self, when: float, callback: Callable[..., Any]) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), cast(asyncio.AbstractEventLoop, self))
        heapq.heappush(self.handles, handle)
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any]) -> None:
        if self.is_closed:
            raise RuntimeError("Event loop is closed")
        callback()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def run_until(self, now: float) -> None:
        """Let the time pass in one step: timers that were due in between are called late, at the end."""
        self.now = now
        while self.handles and self.handles[0].when() <= now:
            handle = heapq.heappop(self.handles)
            if not handle.cancelled():
                handle._run()


class Job:
    """A function that a timer calls, and that ends when the test calls `end`; and the way to run it."""

    def __init__(self, *, ends_at_once: bool = True) -> None:
        self.calls = 0
        self.ends_at_once = ends_at_once
        self.end: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.calls += 1

    def run(self, job: Callable[[], Any], then: Callable[[], None]) -> None:
        job()
        self.end = then
        if self.ends_at_once:
            then()


def start(clock: Clock, job: Job, seconds: float, *, repeats: bool) -> Timer:
    return Timer(cast(asyncio.AbstractEventLoop, clock), job.run, seconds, repeats, job)


def test_it_fires_once_and_not_before_its_time() -> None:
    clock, job = Clock(), Job()
    start(clock, job, 2.0, repeats=False)
    clock.run_until(1.9)
    assert job.calls == 0
    clock.run_until(2.0)
    assert job.calls == 1
    clock.run_until(100.0)
    assert job.calls == 1


def test_it_repeats_in_its_rhythm() -> None:
    clock, job = Clock(), Job()
    start(clock, job, 2.0, repeats=True)
    for second in range(1, 11):
        clock.run_until(float(second))
        assert job.calls == second // 2


def test_the_rhythm_is_kept_when_a_beat_comes_late() -> None:
    clock, job = Clock(), Job()
    start(clock, job, 2.0, repeats=True)
    clock.run_until(3.5)
    assert job.calls == 1
    clock.run_until(3.9)
    assert job.calls == 1
    clock.run_until(4.0)
    assert job.calls == 2


def test_beats_that_were_missed_are_not_made_up_for() -> None:
    clock, job = Clock(), Job()
    start(clock, job, 2.0, repeats=True)
    clock.run_until(9.0)
    assert job.calls == 1
    clock.run_until(9.9)
    assert job.calls == 1
    clock.run_until(10.0)
    assert job.calls == 2


def test_a_beat_is_left_out_while_the_call_before_goes_on() -> None:
    clock, job = Clock(), Job(ends_at_once=False)
    start(clock, job, 2.0, repeats=True)
    clock.run_until(2.0)
    clock.run_until(4.0)
    clock.run_until(6.0)
    assert job.calls == 1
    job.end()
    clock.run_until(8.0)
    assert job.calls == 2


def test_a_cancelled_timer_fires_no_more() -> None:
    clock, job = Clock(), Job()
    for repeats in (False, True):
        timer = start(clock, job, 2.0, repeats=repeats)
        assert not timer.cancelled
        timer.cancel()
        timer.cancel()
        assert timer.cancelled
    clock.run_until(100.0)
    assert job.calls == 0


def test_a_repeating_timer_can_be_cancelled_between_two_beats() -> None:
    clock, job = Clock(), Job()
    timer = start(clock, job, 2.0, repeats=True)
    clock.run_until(2.0)
    timer.cancel()
    clock.run_until(100.0)
    assert job.calls == 1


def test_cancelling_after_the_event_loop_is_closed_is_no_error() -> None:
    clock = Clock()
    timer = start(clock, Job(), 2.0, repeats=True)
    clock.is_closed = True
    timer.cancel()
    assert timer.cancelled
