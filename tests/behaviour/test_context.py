"""Handlers and contextvars, tasks and timeouts of asyncio."""

import asyncio
import contextvars

import pytest
from application import KINDS, Note, add
from running import Serve
from websockets.asyncio.client import connect

from hubbub import Frame, Opcode, Request, Server


def variable() -> contextvars.ContextVar[str]:
    return contextvars.ContextVar("seen", default="nothing")


@pytest.mark.parametrize("kind", KINDS)
async def test_each_handler_has_a_context_of_its_own(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        seen = variable()

        def leaves_a_mark(server: Server, argument: object) -> None:
            note(seen.get())
            seen.set("a mark")

        for event in ("handshake", "open", "message", "close", "request"):
            add(server, event, kind, leaves_a_mark)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("first")
        await client.send("second")
    async with running.raw() as client_of_http:
        client_of_http.ask("/")
        assert (await client_of_http.answer()).status == 404
    assert [await running.noted() for _ in range(6)] == [("nothing",)] * 6


async def test_each_request_that_follows_another_has_a_context_of_its_own(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        seen = variable()

        @server.on("request")
        def on_request(server: Server, request: Request) -> str:
            before = seen.get()
            if request.path != "/reads":
                seen.set(request.path)
            return before

    running = await serve(application)
    async with running.raw() as client:
        # They arrive together, so that one turn handles all of them.
        client.send(
            "".join(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n" for path in ("/reads", "/a", "/reads", "/b", "/c"))
        )
        assert [(await client.answer()).body for _ in range(5)] == [b"nothing"] * 5


@pytest.mark.parametrize("kind", KINDS)
async def test_handlers_see_the_context_that_the_server_was_started_in(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        seen = variable()
        seen.set("before the start")
        add(server, "worker_start", kind, lambda server: note(seen.get()))

    running = await serve(application)
    assert await running.noted() == ("before the start",)


async def test_an_async_handler_is_a_task(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        async def tells_its_task(server: Server, argument: object) -> None:
            before = asyncio.current_task()
            await asyncio.sleep(0)
            note(before is not None and before is asyncio.current_task())

        for event in ("handshake", "open", "message", "close"):
            server.on(event, tells_its_task)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
    assert [await running.noted() for _ in range(4)] == [(True,)] * 4


async def test_a_handler_that_does_not_suspend_has_its_task_too(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note(asyncio.current_task() is not None)

        @server.on("close")
        def on_close(server: Server, fd: int) -> None:
            note(asyncio.current_task() is None)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
    assert await running.noted() == (True,)
    # The `close` handler, a `def`, does not see that task.
    assert await running.noted() == (True,)


async def test_timeouts_work_in_a_handler(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                server.push(frame.fd, "timed out")

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert await client.recv() == "timed out"


async def test_task_groups_and_other_tasks_work_in_a_handler(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(answer(server, frame.fd, number))
            server.push(frame.fd, await asyncio.to_thread(lambda: "from a thread"))

    async def answer(server: Server, fd: int, number: int) -> None:
        server.push(fd, str(number))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("hello")
        assert [await client.recv() for _ in range(4)] == ["0", "1", "2", "from a thread"]


async def test_a_handler_may_ask_another_server(serve: Serve, serve_here: Serve) -> None:
    back = await serve_here(
        lambda server, note: server.on("message", lambda server, frame: server.push(frame.fd, "from behind"))
    )

    url = f"ws://127.0.0.1:{back.port}"

    def application(server: Server, note: Note) -> None:
        @server.on("open")
        async def on_open(server: Server, request: Request) -> None:
            async with connect(url, proxy=None) as connection:
                await connection.send("hello")
                server.push(request.fd, await connection.recv())

    front = await serve(application)
    async with front.connect() as client:
        assert await client.recv() == "from behind"


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_ran_before_a_handler_sees_the_context_of_the_start(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        seen = variable()
        seen.set("before the start")
        add(server, "message", kind, lambda server, frame: note(seen.get()))
        server.on("close", lambda: note(seen.get()))

    running = await serve(application)
    async with running.connect() as client:
        for _ in range(3):
            await client.send("hello")
    assert [await running.noted() for _ in range(4)] == [("before the start",)] * 4


async def test_a_task_that_pushes_does_not_lend_its_context_to_handlers(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        seen = variable()
        tasks = []

        async def push_on(fd: int) -> None:
            seen.set("the task's own")
            while True:
                server.push(fd, "x")
                await asyncio.sleep(0)

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            tasks.append(asyncio.create_task(push_on(request.fd)))

        server.on("message", lambda server: note(seen.get()))
        server.on("close", lambda: [task.cancel() for task in tasks])

    running = await serve(application, slow_consumer="drop")
    async with running.raw() as client:
        await client.upgrade()
        for _ in range(20):
            client.send_frame(Opcode.TEXT, b"hello")
            assert await running.noted() == ("nothing",)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_equal_value_is_still_the_handlers_own(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        marks: contextvars.ContextVar[list[str]] = contextvars.ContextVar("marks")
        outside: list[str] = []
        marks.set(outside)

        def on_message(server: Server, frame: Frame) -> None:
            note(marks.get() is outside)
            marks.set([])

        add(server, "message", kind, on_message)

    running = await serve(application)
    async with running.connect() as client:
        await client.send("first")
        await client.send("second")
    assert [await running.noted(), await running.noted()] == [(True,), (True,)]
