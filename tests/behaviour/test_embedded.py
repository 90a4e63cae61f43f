"""A server within a program that has an event loop of its own."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from application import Note
from raw_client import RawClient
from running import Serve, all_from
from websockets.asyncio.client import connect

from hubbub import CannotServe, HubbubError, NotRunning, Opcode, Server, SettingsError


async def test_async_with_serves_until_the_end_of_the_block() -> None:
    server = Server(port=0)
    async with server as entered:
        assert entered is server
        port = server.port
        async with connect(f"ws://127.0.0.1:{port}", proxy=None):
            assert len(server.connections) == 1
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_an_embedded_server_cannot_be_one_of_several_hosts() -> None:
    server = Server(port=0, broker="redis://:hunter2@localhost")
    for serving in (server.serve(), server.__aenter__()):
        with pytest.raises(SettingsError, match=r"^broker: set, but this server runs in one process") as caught:
            await serving
        assert "hunter2" not in str(caught.value)


async def test_the_end_of_the_block_is_a_graceful_stop(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server: note("open"))
        server.on("close", lambda server, fd, code: note("close", code))
        server.on("worker_stop", lambda server: note("worker_stop", len(server.connections)))
        server.on("shutdown", lambda server: note("shutdown"))

    running = await serve_here(application)
    async with running.connect() as client:
        await running.noted()
        await running.stop()
        await client.wait_closed()
        assert client.close_code == 1001
    told = [await running.noted() for _ in range(3)]
    assert told == [("close", 1001), ("worker_stop", 0), ("shutdown",)]


async def test_serve_runs_until_shutdown() -> None:
    told = []
    started = asyncio.Event()
    server = Server(port=0)
    server.on("start", lambda server: started.set())
    server.on("shutdown", lambda server: told.append("shutdown"))
    serving = asyncio.create_task(server.serve())
    await started.wait()
    async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        await (await client.ping())
        server.shutdown()
        server.shutdown()
        assert await all_from(client) == []
        assert client.close_code == 1001
    await serving
    assert told == ["shutdown"]


async def test_cancelling_serve_is_a_graceful_stop() -> None:
    started = asyncio.Event()
    server = Server(port=0)
    server.on("start", lambda server: started.set())
    serving = asyncio.create_task(server.serve())
    await started.wait()
    async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        await (await client.ping())
        serving.cancel()
        await client.wait_closed()
        assert client.close_code == 1001
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_shutdown_may_be_called_from_a_handler_and_a_thread() -> None:
    for threaded in (False, True):
        started = asyncio.Event()
        server = Server(port=0)
        server.on("start", lambda server, started=started: started.set())
        server.on("message", lambda server: server.shutdown(), threaded=threaded)
        serving = asyncio.create_task(server.serve())
        await started.wait()
        async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
            await client.send("stop")
            await client.wait_closed()
            assert client.close_code == 1001
        await serving


@pytest.mark.parametrize("event", ["worker_start", "start"])
async def test_shutdown_may_be_called_before_it_serves(event: Any) -> None:
    told = []
    server = Server(port=0)
    server.on(event, lambda server: server.shutdown())
    server.on("shutdown", lambda server: told.append("shutdown"))
    await server.serve()
    assert told == ["shutdown"]
    async with server:
        pass
    assert told == ["shutdown", "shutdown"]


async def test_shutdown_within_async_with_stops_too() -> None:
    async with Server(port=0) as server, connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        await (await client.ping())
        server.shutdown()
        async with asyncio.timeout(10):
            await client.wait_closed()
        assert client.close_code == 1001


async def test_connections_are_taken_once_worker_start_has_ended() -> None:
    told = []
    begun, goes_on = asyncio.Event(), asyncio.Event()
    async with Server(port=0) as other:
        free_port = other.port
    server = Server(port=free_port)

    @server.on("worker_start")
    async def on_worker_start(server: Server) -> None:
        begun.set()
        await goes_on.wait()
        told.append("worker_start has ended")

    server.on("open", lambda server: told.append("open"))
    serving = asyncio.create_task(server.serve())
    await begun.wait()
    async with RawClient(free_port) as client:
        client.ask_for_upgrade()
        goes_on.set()
        assert (await client.answer()).status == 101
    assert told == ["worker_start has ended", "open"]
    server.shutdown()
    await serving


KINDS = ["def", "async def", "threaded"]


def failing(told: list[str], kind: str, error: BaseException) -> Server:
    """A server whose `worker_start` raises, and whose other handlers record that they were called."""
    server = Server(port=0)

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    server.on("worker_start", fail_later if kind == "async def" else fail, threaded=kind == "threaded")
    for event in ("worker_stop", "start", "shutdown"):
        server.on(event, lambda event=event: told.append(event))
    return server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["serve", "async with"])
async def test_what_worker_start_raises_is_raised_to_whoever_starts_it(
    kind: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    server = failing(told, kind, LookupError("no database"))
    descriptors = len(os.listdir("/dev/fd"))

    async def serve() -> None:
        if way == "serve":
            await server.serve()
        else:
            async with server:
                told.append("entered")

    with pytest.raises(LookupError, match="no database"):
        await serve()
    assert told == []
    assert "listening on" not in caplog.text
    # Everything is as it was before the start.
    assert server.worker_id is None
    assert len(os.listdir("/dev/fd")) == descriptors
    with pytest.raises(NotRunning):
        server.shutdown()


async def test_a_stop_iteration_in_worker_start_is_a_failure_too() -> None:
    server = failing([], "def", StopIteration())
    with pytest.raises(RuntimeError, match="StopIteration"):
        await server.serve()


async def test_a_start_that_is_cancelled_cancels_worker_start() -> None:
    told: list[str] = []
    begun = asyncio.Event()
    server = Server(port=0)

    @server.on("worker_start")
    async def on_worker_start() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cleaned up")

    server.on("worker_stop", lambda: told.append("worker_stop"))
    serving = asyncio.create_task(server.serve())
    await begun.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert told == ["cleaned up"]
    assert server.worker_id is None


@pytest.mark.parametrize("ends_well", [True, False])
async def test_shutdown_while_worker_start_runs_waits_for_it(ends_well: bool, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()
    server = Server(port=0)

    @server.on("worker_start")
    async def on_worker_start(server: Server) -> None:
        server.shutdown()
        begun.set()
        await goes_on.wait()
        if not ends_well:
            raise LookupError("no database")
        told.append("worker_start has ended")

    server.on("worker_stop", lambda: told.append("worker_stop"))
    server.on("shutdown", lambda: told.append("shutdown"))
    serving = asyncio.create_task(server.serve())
    await begun.wait()
    # The stop needs only some iterations of the event loop to begin, and no other time.
    for _ in range(20):
        await asyncio.sleep(0)
    assert told == []
    goes_on.set()
    await serving
    assert told == (["worker_start has ended", "worker_stop", "shutdown"] if ends_well else ["shutdown"])
    assert ("LookupError: no database" in caplog.text) is not ends_well


async def test_it_sets_no_signal_handlers() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with Server(port=0):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_server_can_be_started_again() -> None:
    starts = []
    server = Server(port=0)
    server.on("start", lambda server: starts.append(server.port))
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
    for _ in range(3):
        async with server, connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
    assert len(starts) == 3


async def test_a_server_cannot_be_started_twice_at_the_same_time() -> None:
    async with Server(port=0) as server:
        with pytest.raises(RuntimeError, match="already running"):
            await server.serve()
        assert server.worker_id == 0


async def test_two_servers_in_one_loop_know_nothing_of_each_other(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("message", lambda server, frame: server.broadcast(frame.data))

    first, second = await serve_here(application), await serve_here(application)
    async with first.connect() as one, second.connect() as other:
        await one.send("for the first")
        await other.send("for the second")
        assert await one.recv() == "for the first"
        assert await other.recv() == "for the second"


async def test_a_port_in_use_is_an_os_error() -> None:
    async with Server(port=0) as server:
        with pytest.raises(OSError, match=f"{server.port}") as caught:
            async with Server(port=server.port):
                pass
        assert isinstance(caught.value, CannotServe)
        assert isinstance(caught.value, HubbubError)
        assert server.worker_id == 0


CALLS: dict[str, Callable[[Server], Awaitable[object]]] = {
    "send": lambda server: server.send(1, "hello"),
    "wait_closed": lambda server: server.wait_closed(1),
    "subscribers": lambda server: server.subscribers("topic"),
    "topics": lambda server: server.topics(),
    "members": lambda server: server.members("topic"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_another_threads_event_loop_is_told_that_the_server_has_stopped(call: str) -> None:
    """Whatever the moment at which it stops."""

    async def ask(server: Server) -> None:
        while True:
            await CALLS[call](server)

    for _ in range(10):
        async with Server(port=0) as server:
            asking = [asyncio.to_thread(asyncio.run, ask(server)) for _ in range(2)]
            ended = asyncio.gather(*asking, return_exceptions=True)
            await asyncio.sleep(0.02)
        assert [type(error) for error in await ended] == [NotRunning] * 2


def hold_the_event_loop(seconds: float) -> None:
    time.sleep(seconds)


async def test_an_answer_that_came_while_the_event_loop_was_held_up_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.server.PATIENCE", 0.05)
    async with Server(port=0) as server:
        questions = [server.subscribers("topic"), server.topics(), server.members("topic")]
        asking = asyncio.gather(*questions)
        await asyncio.sleep(0)
        hold_the_event_loop(0.1)
        assert await asking == [0, {}, []]


async def test_more_than_one_worker_warns(caplog: pytest.LogCaptureFixture) -> None:
    async with Server(port=0, workers=3):
        pass
    assert "workers" in caplog.text


async def test_a_variable_with_a_mistyped_name_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_SHUTDOWN_TIME_OUT", "1")
    async with Server(port=0):
        pass
    assert caplog.text.count("HUBBUB_SHUTDOWN_TIME_OUT") == 1
    assert "did you mean HUBBUB_SHUTDOWN_TIMEOUT?" in caplog.text


async def test_localhost_listens_on_all_its_addresses_with_one_port() -> None:
    async with (
        Server("localhost", port=0) as server,
        connect(f"ws://localhost:{server.port}", proxy=None) as client,
    ):
        await (await client.ping())


async def test_a_server_that_has_ended_holds_no_descriptors() -> None:
    gc.disable()
    try:
        before = len(os.listdir("/dev/fd"))
        for _ in range(100):
            async with Server(port=0):
                pass
        assert len(os.listdir("/dev/fd")) == before
    finally:
        gc.enable()


async def test_a_server_that_has_ended_is_not_kept_in_memory() -> None:
    server = Server(port=0)
    async with server:
        pass
    remains = weakref.ref(server)
    del server
    gc.collect()
    assert remains() is None


class Busy:
    """An application whose `message` handler runs until it may end."""

    def __init__(self) -> None:
        self.server = Server(port=0)
        self.has_started, self.handles, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.server.on("start", self.has_started.set)
        self.server.on("message", self._on_message)

    async def _on_message(self) -> None:
        self.handles.set()
        await self.may_end.wait()

    async def begin_to_handle(self, client: RawClient) -> None:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"hello")
        await self.handles.wait()

    async def can_be_started_again(self) -> bool:
        self.may_end.set()
        async with self.server as server, connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
            await (await client.ping())
        return True


@pytest.mark.parametrize("seconds_to_stop", [0, 0.05])
async def test_a_stop_that_is_cancelled_leaves_a_server_that_can_be_started_again(seconds_to_stop: float) -> None:
    busy = Busy()

    async def serve_until_busy() -> None:
        async with asyncio.timeout(None) as limit, busy.server as server, RawClient(server.port) as client:
            await busy.begin_to_handle(client)
            limit.reschedule(asyncio.get_running_loop().time() + seconds_to_stop)

    with pytest.raises(TimeoutError):
        await serve_until_busy()
    assert busy.server.worker_id is None
    assert await busy.can_be_started_again()


async def test_serve_may_be_cancelled_twice() -> None:
    busy = Busy()
    serving = asyncio.create_task(busy.server.serve())
    await busy.has_started.wait()
    async with RawClient(busy.server.port) as client:
        await busy.begin_to_handle(client)
        serving.cancel()
        # The first cancellation has begun the stop when the second one comes.
        await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert busy.server.worker_id is None
    assert await busy.can_be_started_again()


async def test_start_in_another_thread_does_not_disturb_the_running_server() -> None:
    server = Server(port=0)
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
    async with server:
        with pytest.raises(RuntimeError, match="already running"):
            await asyncio.to_thread(server.start)
        async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
            await client.send("hello")
            assert await client.recv() == "hello"


async def test_of_two_serve_at_the_same_time_the_first_one_serves() -> None:
    started = asyncio.Event()
    server = Server(port=0)
    server.on("start", started.set)
    first, second = asyncio.create_task(server.serve()), asyncio.create_task(server.serve())
    with pytest.raises(RuntimeError, match="already running"):
        await second
    await started.wait()
    async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        await (await client.ping())
    server.shutdown()
    await first


async def test_start_within_an_event_loop_names_serve() -> None:
    with pytest.raises(RuntimeError, match=r"serve\(\)"):
        Server(port=0).start()


async def test_an_async_shutdown_handler_is_waited_for_until_shutdown_timeout() -> None:
    told = []
    server = Server(port=0, shutdown_timeout=10)

    @server.on("shutdown")
    async def on_shutdown() -> None:
        await asyncio.sleep(1.2)
        told.append("done")

    async with server:
        pass
    assert told == ["done"]


async def test_a_thread_that_outlives_shutdown_timeout_does_not_hold_up_close(serve_here: Serve) -> None:
    may_end = threading.Event()

    def application(server: Server, note: Note) -> None:
        def on_message() -> None:
            note("begins")
            may_end.wait()
            note("ends")

        server.on("message", on_message, threaded=True)
        server.on("close", lambda: note("close"))
        server.on("worker_stop", lambda: note("worker_stop"))

    running = await serve_here(application, shutdown_timeout=0.05)
    try:
        async with running.connect() as client:
            await client.send("hello")
            assert await running.noted() == ("begins",)
            await running.stop()
    finally:
        may_end.set()
    while await running.noted() != ("ends",):
        pass
    assert running.notes.all == [("begins",), ("close",), ("worker_stop",), ("ends",)]


@pytest.mark.parametrize(("log_level", "tells"), [("info", True), ("error", False)])
async def test_async_with_heeds_log_level(log_level: str, tells: bool, caplog: pytest.LogCaptureFixture) -> None:
    # Gives the logger its own level back after the test.
    caplog.set_level(logging.NOTSET, logger="hubbub")
    async with Server(port=0, log_level=log_level):
        pass
    assert ("listening on" in caplog.text) is tells
