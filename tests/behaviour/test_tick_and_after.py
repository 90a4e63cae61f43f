"""Timers: `after`, `tick`, `Timer.cancel`."""

import asyncio
import threading

import pytest
from application import Note
from running import Serve, time_passes

from hubbub import NotRunning, Server, Timer


def nothing(server: Server, note: Note) -> None:
    """An application without handlers."""


async def test_after_calls_once_with_the_arguments(serve: Serve) -> None:
    running = await serve(nothing)
    await running.server.run(lambda server, note: note(isinstance(server.after(0.001, note, "called", 1), Timer)))
    assert await running.noted() == (True,)
    assert await running.noted() == ("called", 1)
    await time_passes(0.01)
    assert running.notes.all == [(True,), ("called", 1)]


async def test_after_0_calls_soon_but_not_at_once(serve: Serve) -> None:
    def start(server: Server, note: Note) -> None:
        server.after(0, note, "called")
        note("started")

    running = await serve(nothing)
    await running.server.run(start)
    assert [await running.noted(), await running.noted()] == [("started",), ("called",)]


async def test_a_timer_does_not_fire_early_and_the_earlier_one_fires_first(serve: Serve) -> None:
    def start(server: Server, note: Note) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        server.after(0.06, lambda: note("later", loop.time() - begun >= 0.055))
        server.after(0.03, lambda: note("earlier", loop.time() - begun >= 0.025))

    running = await serve(nothing)
    await running.server.run(start)
    assert await running.noted() == ("earlier", True)
    assert await running.noted() == ("later", True)


async def test_tick_calls_again_and_again(serve: Serve) -> None:
    running = await serve(nothing)
    await running.server.run(lambda server, note: note(isinstance(server.tick(0.001, note, "tick"), Timer)))
    assert await running.noted() == (True,)
    assert [await running.noted() for _ in range(5)] == [("tick",)] * 5


@pytest.mark.parametrize("how", ["after", "tick"])
async def test_functions_may_be_async(serve: Serve, how: str) -> None:
    def start(server: Server, note: Note) -> None:
        async def later(what: str) -> None:
            await asyncio.sleep(0)
            note(what)

        getattr(server, how)(0.001, later, "called")

    running = await serve(nothing)
    await running.server.run(start)
    assert await running.noted() == ("called",)


@pytest.mark.parametrize("how", ["after", "tick"])
async def test_a_cancelled_timer_calls_no_more(serve: Serve, how: str) -> None:
    def start_and_cancel(server: Server, note: Note) -> list[bool]:
        timer = getattr(server, how)(0.005, note, "called")
        states = [timer.cancelled]
        timer.cancel()
        timer.cancel()
        return [*states, timer.cancelled]

    running = await serve(nothing)
    assert await running.server.run(start_and_cancel) == [False, True]
    await time_passes(0.02)
    assert running.notes.all == []


async def test_a_tick_may_cancel_itself(serve: Serve) -> None:
    def start(server: Server, note: Note) -> None:
        def tick() -> None:
            timer.cancel()
            note("tick")

        timer = server.tick(0.001, tick)

    running = await serve(nothing)
    await running.server.run(start)
    await running.noted()
    await time_passes(0.01)
    assert running.notes.all == [("tick",)]


async def test_a_tick_does_not_pile_up_on_itself(serve: Serve) -> None:
    def start(server: Server, note: Note) -> None:
        async def slow() -> None:
            note("begins")
            await note.goes_on.wait()
            note("ends")

        server.tick(0.001, slow)

    running = await serve(nothing)
    await running.server.run(start)
    assert await running.noted() == ("begins",)
    await time_passes(0.02)
    assert running.notes.all == [("begins",)]
    await running.go_on()
    assert await running.noted() == ("ends",)
    # It continues as before.
    assert await running.noted() == ("begins",)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_fails_is_logged_and_a_tick_goes_on(serve: Serve, is_async: bool) -> None:
    def start(server: Server, note: Note) -> None:
        def fail() -> None:
            note("called")
            raise LookupError("in a timer")

        async def fail_later() -> None:
            await asyncio.sleep(0)
            fail()

        server.tick(0.001, fail_later if is_async else fail)

    running = await serve(nothing)
    await running.server.run(start)
    assert [await running.noted() for _ in range(3)] == [("called",)] * 3
    await running.log.tells("LookupError: in a timer")


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
    def start_in_a_thread(server: Server, note: Note) -> None:
        thread = threading.Thread(target=server.after, args=(0.001, note, "called"))
        # When the thread starts, the event loop is asleep, and nothing else wakes it.
        asyncio.get_running_loop().call_soon(thread.start)

    running = await serve(nothing)
    await running.server.run(start_in_a_thread)
    assert await running.noted() == ("called",)


async def test_timers_end_with_the_server(serve: Serve) -> None:
    def start(server: Server, note: Note) -> None:
        server.after(0.01, note, "after")
        server.tick(0.01, note, "tick")

    running = await serve(nothing)
    await running.server.run(start)
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
    def start_threads(server: Server, note: Note) -> None:
        def start_timers() -> None:
            note("begun")
            try:
                while True:
                    server.after(3600, print)
            except NotRunning:
                pass
            except Exception as error:
                note(repr(error))

        for _ in range(2):
            threading.Thread(target=start_timers).start()

    running = await serve(nothing)
    await running.server.run(start_threads)
    for _ in range(2):
        await running.noted()
    await running.stop()
    assert set(running.notes.all) == {("begun",)}


async def test_seconds_that_make_no_sense_are_a_value_error(serve: Serve, subtests: pytest.Subtests) -> None:
    server = (await serve(nothing)).server
    nan = float("nan")
    for how, seconds in (("tick", 0), ("tick", -1), ("tick", nan), ("after", -0.001), ("after", nan)):
        with subtests.test(how=how, seconds=seconds), pytest.raises(ValueError, match="seconds"):
            await getattr(server, how)(seconds, print)
