"""What `receive` and `send` return: applications and frameworks await it, make tasks of it, and cancel it."""

import asyncio
import inspect
from collections import UserDict
from contextvars import ContextVar
from typing import Any

import pytest
from application import Note
from asgi_application import App, Receive, Scope, Send, accept, answer, begin, end, part, read_body
from running import ServeApp, time_passes

BIG = bytes(16 * 1024 * 1024)
"""More than the buffers of a connection hold."""
SMALL_BUFFER = 4096


async def refusal(awaitable: Any) -> str:
    """Return the name of the exception that awaiting it raises, or an empty string."""
    try:
        await awaitable
    except Exception as error:
        return type(error).__name__
    return ""


# ---- coroutines -------------------------------------------------------------------------------------------------


async def test_both_are_coroutines_of_which_tasks_can_be_made(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            is_right = True
            made: list[Any] = [receive(), send({"type": "http.response.start", "status": 200})]
            for each in made:
                is_right = is_right and asyncio.iscoroutine(each) and inspect.isawaitable(each)
            body, _ = await asyncio.gather(*[asyncio.create_task(each) for each in made])
            async with asyncio.TaskGroup() as tasks:
                for content in (body["body"], b"!"):
                    sending: Any = send({"type": "http.response.body", "body": content, "more_body": True})
                    tasks.create_task(sending)
            await asyncio.ensure_future(end(send, str(is_right).encode()))

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 2", method="POST")
        client.send("ab")
        assert (await client.answer()).body == b"ab!True"


async def test_parts_that_are_gathered_are_sent_in_order(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send)
            parts = [{"type": "http.response.body", "body": b"%d" % number, "more_body": True} for number in range(9)]
            note(await asyncio.gather(*map(send, parts)))
            await end(send)

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).body == b"012345678"
    assert await running.noted() == ([None] * 9,)


async def test_parts_that_wait_together_all_arrive(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send)
            sending = [asyncio.create_task(part(send, piece)) for piece in (BIG, b"x", b"y")]
            await asyncio.sleep(0)
            note(*[each.done() for each in sending])
            await asyncio.gather(*sending)
            await end(send)

        return app

    running = await serve_app(make)
    async with running.raw(SMALL_BUFFER) as client:
        client.ask()
        assert await running.noted() == (True, False, False)
        body = (await client.answer()).body
        assert (len(body), sorted(body[len(BIG) :])) == (len(BIG) + 2, sorted(b"xy"))


async def test_what_receive_returned_cannot_be_awaited_twice(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            receiving = receive()
            body = (await receiving)["body"]
            note(await refusal(receiving), await refusal(receiving))
            await answer(send, body)

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 2", method="POST")
        client.send("ab")
        assert (await client.answer()).body == b"ab"
    assert await running.noted() == ("RuntimeError", "RuntimeError")


# ---- cancelling -------------------------------------------------------------------------------------------------


async def test_a_receive_that_is_cancelled_before_it_begins_takes_nothing(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            receive()  # Never awaited.
            receiving = asyncio.ensure_future(receive())
            receiving.cancel()
            await asyncio.wait([receiving])
            note(receiving.cancelled())
            await answer(send, await read_body(receive))

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 2", method="POST")
        client.send("ab")
        assert (await client.answer()).body == b"ab"
    assert await running.noted() == (True,)


async def test_a_receive_that_is_cancelled_while_it_waits_takes_nothing(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(3):
                try:
                    async with asyncio.timeout(0.01):
                        await receive()
                except TimeoutError:
                    note("nothing yet")
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel("enough")
            try:
                await waiting
            except asyncio.CancelledError:
                note("cancelled")
            await answer(send, await read_body(receive))

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 2", method="POST")
        for _ in range(3):
            assert await running.noted() == ("nothing yet",)
        assert await running.noted() == ("cancelled",)
        client.send("ab")
        assert (await client.answer()).body == b"ab"


async def test_a_cancelled_receive_is_told_what_the_cancellation_says(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()

            async def wait() -> tuple[Any, ...]:
                try:
                    await receive()
                except asyncio.CancelledError as error:
                    return error.args
                return ("nothing",)

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            # anyio recognizes its own cancellations by this.
            waiting.cancel("a scope")
            note(await waiting)
            await answer(send, b"answered")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).body == b"answered"
    assert await running.noted() == (("a scope",),)


async def test_an_application_may_stop_waiting_for_a_slow_client(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send)
            await part(send, BIG)
            sending = asyncio.ensure_future(part(send, b"never sent"))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
            note(sending.cancelled())
            await end(send, b"end")

        return app

    running = await serve_app(make)
    async with running.raw(SMALL_BUFFER) as client:
        client.ask()
        assert await running.noted() == (True,)
        body = (await client.answer()).body
        assert body[len(BIG) :] == b"end"


async def test_a_message_is_not_lost_by_a_receive_that_was_cancelled(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            for _ in range(2):
                try:
                    async with asyncio.timeout(0.01):
                        await receive()
                except TimeoutError:
                    note("nothing yet")
            two = await asyncio.gather(receive(), receive())
            note(*[event["text"] for event in two])
            receiving = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            note("waits")
            note((await receiving)["type"], (await receive())["type"])

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        for _ in range(2):
            assert await running.noted() == ("nothing yet",)
        await client.send("one")
        await client.send("two")
        assert await running.noted() == ("one", "two")
        assert await running.noted() == ("waits",)
    assert await running.noted() == ("websocket.disconnect", "websocket.disconnect")


async def test_a_message_reaches_a_task_that_handles_what_cancelled_it(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)
            received = []

            async def listen() -> None:
                while True:
                    try:
                        received.append((await receive()).get("text"))
                    except asyncio.CancelledError:
                        note("cancelled")
                        received.append((await receive()).get("text"))
                        return

            listening = asyncio.ensure_future(listen())
            await asyncio.sleep(0)
            listening.cancel()
            await listening
            note(*received)

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        assert await running.noted() == ("cancelled",)
        await client.send("after")
        assert await running.noted() == ("after",)


# ---- what is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (None, "TypeError"),
        ("http.response.start", "ValueError"),
        ({}, "KeyError"),
        ({"type": None}, "ProtocolError"),
        ({"type": "http.response.body", "body": b""}, "ProtocolError"),
        ({"type": "http.response.start"}, "KeyError"),
        ({"type": "http.response.start", "status": "200"}, "TypeError"),
        ({"type": "http.response.start", "status": 10**400}, "ValueError"),
        ({"type": "http.response.start", "status": 200, "headers": None}, "TypeError"),
        ({"type": "http.response.start", "status": 200, "headers": [b"a"]}, "TypeError"),
        ({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b", b"c")]}, "TypeError"),
        ({"type": "http.response.start", "status": 200, "headers": [(b"a", 1)]}, "TypeError"),
        ({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"")]}, "ValueError"),
        ({"type": "http.response.early_hint"}, "KeyError"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_raised_when_it_is_awaited(serve_app_here: ServeApp, message: Any, error: str) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            wrong = send(message)
            note("not yet")
            note(await refusal(wrong))
            # An application may catch it, and send what is right.
            await answer(send, b"right")

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).body == b"right"
    assert await running.noted() == ("not yet",)
    assert await running.noted() == (error,)


async def test_an_event_may_be_any_mapping(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            headers = (each for each in [[b"x-one", bytearray(b"1")], ("x-two", "2")])
            await send(UserDict(type="http.response.start", status=True + 200, headers=headers))
            await send(UserDict(type="http.response.body", body=memoryview(b"body"), more_body=1))
            await send(UserDict(type="http.response.body", body=bytearray(b"!"), more_body=0))

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        answered = await client.answer()
        assert (answered.status, answered.body) == (201, b"body!")
        assert (answered.headers["x-one"], answered.headers["x-two"]) == ("1", "2")


async def test_another_thread_cannot_send_or_receive(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def elsewhere() -> list[str]:
                return [
                    await refusal(receive()),
                    await refusal(send({"type": "http.response.start", "status": 500})),
                    await refusal(begin(send)),
                ]

            note(*await asyncio.to_thread(asyncio.run, elsewhere()))
            await answer(send, b"from here")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).body == b"from here"
    assert await running.noted() == ("RuntimeError",) * 3


async def test_another_thread_cannot_use_a_websocket(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await accept(receive, send)

            async def elsewhere() -> list[str]:
                return [await refusal(receive()), await refusal(send({"type": "websocket.send", "text": "there"}))]

            note(*await asyncio.to_thread(asyncio.run, elsewhere()))
            await send({"type": "websocket.send", "text": "here"})
            await receive()

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        assert await client.recv() == "here"
    assert await running.noted() == ("RuntimeError",) * 2


# ---- after the end, and other kinds of applications -------------------------------------------------------------


async def test_channels_that_are_kept_say_that_the_request_is_over(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        kept: list[tuple[Receive, Send]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for old_receive, old_send in kept:
                note(await old_receive(), await refusal(end(old_send)))
            kept.append((receive, send))
            await answer(send)

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        for _ in range(2):
            client.ask()
            await client.answer()
    # The body, which nobody has received, comes first.
    body = {"type": "http.request", "body": b"", "more_body": False}
    assert await running.noted() == (body, "ProtocolError")


async def test_an_application_need_not_be_a_coroutine_function(serve_app_here: ServeApp) -> None:
    def make(note: Note) -> App:
        variable = ContextVar("variable", default="unset")

        class Answering:
            def __init__(self, scope: Any, receive: Any, send: Any) -> None:
                self.send = send
                self.seen = variable.get(), asyncio.current_task() is not None
                variable.set("set")

            def __await__(self) -> Any:
                note(*self.seen, variable.get())
                return answer(self.send, b"answered").__await__()

        return Answering

    running = await serve_app_here(make)
    async with running.raw() as client:
        for _ in range(2):
            client.ask()
            assert (await client.answer()).body == b"answered"
            assert await running.noted() == ("unset", True, "set")


async def test_each_request_has_a_task_of_its_own(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        tasks: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            task = asyncio.current_task()
            assert task
            tasks.append(task)
            task.set_name(scope["path"])
            variable.set(scope["path"])
            if scope["path"] == "/1":
                await asyncio.sleep(0.01)
            assert (task.get_name(), variable.get()) == (scope["path"], scope["path"])
            await answer(send, b"%d" % len({id(each) for each in tasks}))

        variable: ContextVar[str] = ContextVar("variable")
        return app

    running = await serve_app(make)
    if len(running.workers) > 1:
        pytest.skip("each process has tasks of its own")
    async with running.raw() as one, running.raw() as two:
        for number, client in enumerate((one, two, one, two)):
            client.ask(f"/{number}")
            await time_passes(0)
        assert [(await client.answer()).status for client in (one, two, one, two)] == [200] * 4


async def test_a_websocket_that_is_kept_says_that_it_is_over(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def later() -> None:
                while (await receive())["type"] != "websocket.disconnect":
                    pass
                await asyncio.sleep(0.01)
                note(await refusal(send({"type": "websocket.send", "text": "too late"})), (await receive())["type"])

            await accept(receive, send)
            scope["state"]["kept"] = asyncio.ensure_future(later())

        return app

    running = await serve_app(make)
    async with running.connect() as client:
        await client.wait_closed()
    assert await running.noted() == ("ClientDisconnected", "websocket.disconnect")
