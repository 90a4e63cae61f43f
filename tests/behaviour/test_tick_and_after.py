"""Timers: `after`, `tick`, `Timer.cancel`."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest
from running import Note, Serve, time_passes

from hubbub import NotRunning, Server, Timer


def nothing(server: Server, note: Note) -> None:
    """An application without handlers."""


async def test_after_calls_once_with_the_arguments(serve: Serve) -> None:
    running = await serve(nothing)
    timer = running.server.after(0.001, running.notes, "called", 1)
    assert isinstance(timer, Timer)
    assert await running.noted() == ("called", 1)
    await time_passes(0.01)
    assert running.notes.all == [("called", 1)]


async def test_after_0_calls_soon_but_not_at_once(serve: Serve) -> None:
    running = await serve(nothing)
    running.server.after(0, running.notes, "called")
    assert running.notes.all == []
    assert await running.noted() == ("called",)


async def test_a_timer_does_not_fire_early_and_the_earlier_one_fires_first(serve: Serve) -> None:
    running = await serve(nothing)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    running.server.after(0.06, lambda: running.notes("later", loop.time() - begun >= 0.055))
    running.server.after(0.03, lambda: running.notes("earlier", loop.time() - begun >= 0.025))
    assert await running.noted() == ("earlier", True)
    assert await running.noted() == ("later", True)


async def test_tick_calls_again_and_again(serve: Serve) -> None:
    running = await serve(nothing)
    timer = running.server.tick(0.001, running.notes, "tick")
    assert [await running.noted() for _ in range(5)] == [("tick",)] * 5
    timer.cancel()


@pytest.mark.parametrize("start", ["after", "tick"])
async def test_functions_may_be_async(serve: Serve, start: str) -> None:
    running = await serve(nothing)

    async def later(what: str) -> None:
        await asyncio.sleep(0)
        running.notes(what)

    timer = getattr(running.server, start)(0.001, later, "called")
    assert await running.noted() == ("called",)
    timer.cancel()


@pytest.mark.parametrize("start", ["after", "tick"])
async def test_a_cancelled_timer_calls_no_more(serve: Serve, start: str) -> None:
    running = await serve(nothing)
    timer = getattr(running.server, start)(0.005, running.notes, "called")
    assert timer.cancelled is False
    timer.cancel()
    timer.cancel()
    assert timer.cancelled is True
    await time_passes(0.02)
    assert running.notes.all == []


async def test_a_tick_may_cancel_itself(serve: Serve) -> None:
    running = await serve(nothing)

    def tick() -> None:
        timer.cancel()
        running.notes("tick")

    timer = running.server.tick(0.001, tick)
    await running.noted()
    await time_passes(0.01)
    assert running.notes.all == [("tick",)]


async def test_a_tick_does_not_pile_up_on_itself(serve: Serve) -> None:
    running = await serve(nothing)
    goes_on = asyncio.Event()

    async def slow() -> None:
        running.notes("begins")
        await goes_on.wait()
        running.notes("ends")

    timer = running.server.tick(0.001, slow)
    assert await running.noted() == ("begins",)
    await time_passes(0.02)
    assert running.notes.all == [("begins",)]
    goes_on.set()
    assert await running.noted() == ("ends",)
    # It goes on as before.
    assert await running.noted() == ("begins",)
    timer.cancel()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_fails_is_logged_and_a_tick_goes_on(
    serve: Serve, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    running = await serve(nothing)

    def fail() -> None:
        running.notes("called")
        raise LookupError("in a timer")

    async def fail_later() -> None:
        await asyncio.sleep(0)
        fail()

    timer = running.server.tick(0.001, fail_later if is_async else fail)
    assert [await running.noted() for _ in range(3)] == [("called",)] * 3
    timer.cancel()
    assert "LookupError: in a timer" in caplog.text


async def test_timers_can_be_started_and_cancelled_from_a_thread(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        def on_message(server: Server) -> None:
            never = server.after(0.3, note, "never")
            never.cancel()
            server.after(0.4, note, "after")

        server.on("message", on_message, threaded=True)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await running.noted() == ("after",)
    assert running.notes.all == [("after",)]


async def test_a_timer_that_is_started_while_nothing_else_happens_is_not_late(serve: Serve) -> None:
    running = await serve(nothing)
    started = threading.Event()

    def start() -> None:
        running.server.after(0.001, running.notes, "called")
        started.set()

    # The event loop sleeps by now, and has nothing else to wake up for.
    asyncio.get_running_loop().call_soon(threading.Thread(target=start).start)
    assert await running.noted() == ("called",)
    assert started.is_set()


async def test_timers_end_with_the_server(serve: Serve) -> None:
    running = await serve(nothing)
    running.server.after(0.01, running.notes, "after")
    running.server.tick(0.01, running.notes, "tick")
    await running.stop()
    told = len(running.notes.all)
    await time_passes(0.03)
    assert len(running.notes.all) == told


async def test_a_timer_that_close_starts_during_the_stop_ends_with_the_server_too(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda: note("open"))
        server.on("close", lambda server: server.after(0.02, tell, server, note))

    def tell(server: Server, note: Note) -> None:
        note("fired", server.worker_id is not None)

    running = await serve(application)
    async with running.connect():
        await running.noted()
        await running.stop()
    await time_passes(0.05)
    assert ("fired", False) not in running.notes.all


async def test_threads_may_start_timers_while_the_server_stops(serve: Serve) -> None:
    running = await serve(nothing)

    def start_timers() -> None:
        running.notes("begun")
        with contextlib.suppress(NotRunning):
            while True:
                running.server.after(3600, print)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(asyncio.to_thread(start_timers))
        for _ in range(4):
            await running.noted()
        await running.stop()


@pytest.mark.parametrize(
    ("start", "seconds"),
    [("tick", 0), ("tick", -1), ("tick", float("nan")), ("after", -0.001), ("after", float("nan"))],
)
async def test_seconds_that_make_no_sense_are_a_value_error(serve: Serve, start: str, seconds: Any) -> None:
    running = await serve(nothing)
    with pytest.raises(ValueError, match="seconds"):
        getattr(running.server, start)(seconds, print)
