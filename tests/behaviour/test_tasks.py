"""`async def` handlers of messages that arrive together: each has a task of its own, as far as anybody can tell."""

import asyncio
import contextvars
import gc
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from application import Note
from embedded import serve_embedded
from raw_client import masked_frame
from running import Running, Serve

from hubbub import CloseCode, Endpoint, Frame, Opcode, Server

# A turn takes them together.
MESSAGES = [str(number) for number in range(20)]

Answer = Callable[[Frame], Awaitable[object]]


def answer_with(target: Server | Endpoint, answer: Answer) -> None:
    """Answer each message with what `answer` returns for it."""

    @target.on("message")
    async def on_message(server: Server, frame: Frame) -> None:
        server.push(frame.fd, str(await answer(frame)))


def answering(make: Callable[[], Answer]) -> Callable[[Server, Note], None]:
    """An application that does so with the function that `make` returns."""
    return lambda server, note: answer_with(server, make())


async def answers(running: Running, messages: list[str] = MESSAGES, path: str = "/") -> list[str]:
    """Send messages in one piece, and return as many answers."""
    async with running.raw() as client:
        assert (await client.upgrade(path=path)).status == 101
        client.send(b"".join(masked_frame(Opcode.TEXT, message.encode()) for message in messages))
        return [(await client.message()).payload.decode() for _ in messages]


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task


# Each of these functions returns one that looks for what it left in an earlier call, leaves something, and returns
# whether it found anything.


def name() -> Answer:
    async def leave(frame: Frame) -> bool:
        found = this_task().get_name() == "mine"
        this_task().set_name("mine")
        return found

    return leave


def attribute() -> Answer:
    async def leave(frame: Frame) -> bool:
        found = hasattr(this_task(), "mark")
        this_task().mark = True  # type: ignore[attr-defined]
        return found

    return leave


def weak_key() -> Answer:
    marked: weakref.WeakKeyDictionary[asyncio.Task[Any], bool] = weakref.WeakKeyDictionary()

    async def leave(frame: Frame) -> bool:
        found = this_task() in marked
        marked[this_task()] = True
        return found

    return leave


def weak_reference() -> Answer:
    known: list[weakref.ref[asyncio.Task[Any]]] = []

    async def leave(frame: Frame) -> bool:
        found = any(each() is not None for each in known)
        known.append(weakref.ref(this_task()))
        return found

    return leave


def weak_proxy() -> Answer:
    known: list[Any] = []

    def is_alive(proxy: Any) -> bool:
        try:
            return bool(proxy.done) or True
        except ReferenceError:
            return False

    async def leave(frame: Frame) -> bool:
        found = any(is_alive(each) for each in known)
        known.append(weakref.proxy(this_task()))
        return found

    return leave


def reference() -> Answer:
    kept: list[asyncio.Task[Any]] = []

    async def leave(frame: Frame) -> bool:
        found = any(each is this_task() or not each.done() or each.exception() is not None for each in kept)
        kept.append(this_task())
        return found

    return leave


def reference_held_by_a_callback() -> Answer:
    seen: list[bool] = []

    async def leave(frame: Frame) -> bool:
        # A task that has ended cannot be cancelled.
        asyncio.get_running_loop().call_soon(lambda task: seen.append(task.cancel()), this_task())
        return any(seen)

    return leave


def reference_of_another_thread() -> Answer:
    seen: list[bool] = []

    def cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        loop.call_soon_threadsafe(lambda: seen.append(task.cancel()))

    async def leave(frame: Frame) -> bool:
        threading.Thread(target=cancel, args=(asyncio.get_running_loop(), this_task())).start()
        return any(seen)

    return leave


def all_tasks() -> Answer:
    seen: list[asyncio.Task[Any]] = []

    async def leave(frame: Frame) -> bool:
        own = [task for task in asyncio.all_tasks() if task is asyncio.current_task()]
        found = len(own) != 1 or any(own[0] is each for each in seen)
        seen.extend(own)
        return found

    return leave


def context_variable() -> Answer:
    variable = contextvars.ContextVar("variable", default=False)

    async def leave(frame: Frame) -> bool:
        found = variable.get()
        variable.set(True)
        return found

    return leave


def token() -> Answer:
    variable = contextvars.ContextVar("variable", default=False)
    tokens: list[contextvars.Token[bool]] = []

    async def leave(frame: Frame) -> bool:
        found = variable.get()
        if tokens:
            # It belongs to the context of another handler.
            with pytest.raises(ValueError, match="different Context"):
                variable.reset(tokens[-1])
        tokens.append(variable.set(True))
        variable.reset(variable.set(False))
        return found

    return leave


def unused_token() -> Answer:
    variable = contextvars.ContextVar("variable", default=False)
    other = contextvars.ContextVar("other", default=False)
    tokens: list[contextvars.Token[bool]] = []

    async def leave(frame: Frame) -> bool:
        if tokens:
            with pytest.raises(ValueError, match="different Context"):
                other.reset(tokens.pop())
        # The context is empty again, but there is still a token of it.
        token = variable.set(True)
        tokens.append(other.set(True))
        variable.reset(token)
        last = other.set(True)
        other.reset(last)
        return variable.get()

    return leave


def copied_context() -> Answer:
    variable = contextvars.ContextVar("variable", default=False)

    async def leave(frame: Frame) -> bool:
        found = variable.get()
        # They run in copies, as long as the next handlers.
        contextvars.copy_context().run(variable.set, True)
        asyncio.get_running_loop().call_soon(variable.set, True)
        return found

    return leave


def time_out() -> Answer:
    async def leave(frame: Frame) -> bool:
        async with asyncio.timeout(60):
            return await is_being_cancelled()

    async def is_being_cancelled() -> bool:
        return this_task().cancelling() != 0

    return leave


def expired_time_out() -> Answer:
    async def leave(frame: Frame) -> bool:
        found = this_task().cancelling() != 0
        if int(str(frame.data)) % 4 == 1:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(-1):
                    await asyncio.sleep(60)
        return found or this_task().cancelling() != 0

    return leave


def task_group() -> Answer:
    async def leave(frame: Frame) -> bool:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        return this_task().cancelling() != 0

    return leave


def child() -> Answer:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen: list[bool] = []

    async def look(number: str) -> None:
        seen.append(variable.get() != number)

    async def leave(frame: Frame) -> bool:
        variable.set(str(frame.data))
        await asyncio.create_task(look(str(frame.data)))
        return any(seen)

    return leave


def local_object() -> Answer:
    class Local:
        pass

    known: list[weakref.ref[Local]] = []

    async def leave(frame: Frame) -> bool:
        found = any(each() is not None for each in known)
        local = Local()
        known.append(weakref.ref(local))
        return found

    return leave


def collected_garbage() -> Answer:
    seen: list[bool] = []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self
            self.task = weakref.ref(this_task())

        def __del__(self) -> None:
            task = self.task()
            seen.append(task is not None and not task.done())

    async def leave(frame: Frame) -> bool:
        gc.collect()
        Garbage()
        return any(seen)

    return leave


LEAVING = [
    name,
    attribute,
    weak_key,
    weak_reference,
    weak_proxy,
    reference,
    reference_held_by_a_callback,
    reference_of_another_thread,
    all_tasks,
    context_variable,
    token,
    unused_token,
    copied_context,
    time_out,
    expired_time_out,
    task_group,
    child,
    local_object,
    collected_garbage,
]


def all_leaving(server: Server, note: Note) -> None:
    """Each of these functions answers on a path of its own."""
    for leaving in LEAVING:
        endpoint = Endpoint(f"/{leaving.__name__}")
        answer_with(endpoint, leaving())
        server.include(endpoint)


async def test_a_handler_finds_nothing_that_another_has_left(serve: Serve) -> None:
    running = await serve(all_leaving)
    found = {leaving.__name__: await answers(running, path=f"/{leaving.__name__}") for leaving in LEAVING}
    assert found == {leaving.__name__: ["False"] * len(MESSAGES) for leaving in LEAVING}


async def test_a_handler_finds_nothing_that_one_of_another_connection_has_left(serve: Serve) -> None:
    running = await serve(all_leaving)
    paths = [f"/{leaving.__name__}" for leaving in LEAVING for _ in range(2)]
    found = await asyncio.gather(*(answers(running, path=path) for path in paths))
    assert dict(zip(paths, found, strict=True)) == dict.fromkeys(paths, ["False"] * len(MESSAGES))


async def test_callbacks_of_a_task_run_once_its_handler_has_ended(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            number = frame.data
            this_task().add_done_callback(lambda task: note(number, task.done(), task.result()))

    running = await serve(application)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.send(b"".join(masked_frame(Opcode.TEXT, message.encode()) for message in MESSAGES))
        assert [await running.noted() for _ in MESSAGES] == [(number, True, None) for number in MESSAGES]


async def test_a_task_shows_the_coroutine_of_its_handler(serve: Serve) -> None:
    def describing() -> Answer:
        async def describe(frame: Frame) -> tuple[object, ...]:
            task = this_task()
            coroutine: Any = task.get_coro()
            before = coroutine.__name__, "on_message" in repr(task), task.get_stack()[-1].f_code.co_name
            if frame.data == "3":
                await asyncio.sleep(0)
                assert task.get_coro() is coroutine
                assert task.get_stack()[-1].f_code.co_name == "on_message"
            return before

        return describe

    running = await serve(answering(describing))
    assert await answers(running) == [str(("on_message", True, "on_message"))] * len(MESSAGES)


async def test_handlers_that_suspend_or_not_keep_the_order(serve: Serve) -> None:
    def suspending() -> Answer:
        async def suspend(frame: Frame) -> int:
            number = int(str(frame.data))
            task = this_task() if number % 2 else None
            if number % 3 == 0:
                await asyncio.sleep(0.001)
            if number % 5 == 0:
                await asyncio.sleep(0)
            assert task in (None, asyncio.current_task())
            return number

        return suspend

    running = await serve(answering(suspending))
    messages = [str(number) for number in range(200)]
    assert await asyncio.gather(*(answers(running, messages) for _ in range(5))) == [messages] * 5


async def test_while_one_handler_waits_those_of_other_connections_run(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            message = str(frame.data)
            if message == "wait":
                note("waits")
                await server.wait_closed(int(frame.state.other))
            elif message.startswith("other "):
                frame.state.other = message.removeprefix("other ")
            server.push(frame.fd, str(frame.fd) if message == "who" else message)

    running = await serve(application)
    async with running.connect() as client, running.connect() as other:
        await other.send("who")
        await client.send(f"other {await other.recv(decode=True)}")
        await client.recv()
        for message in ("first", "wait", "last"):
            await client.send(message)
        assert await client.recv() == "first"
        assert await running.noted() == ("waits",)
        for message in MESSAGES:
            await other.send(message)
        assert [await other.recv() for _ in MESSAGES] == MESSAGES
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 0.05)
        await other.close()
        assert [await client.recv() for _ in range(2)] == ["wait", "last"]


def failing(error: type[BaseException]) -> Callable[[], Answer]:
    def make() -> Answer:
        async def fail(frame: Frame) -> object:
            if frame.data == "5":
                raise error("the fifth")
            return frame.data

        return fail

    return make


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LookupError, "the message handler failed"),
        (StopIteration, "the message handler failed"),
        (asyncio.CancelledError, "the message handler was cancelled"),
    ],
)
async def test_only_the_connection_whose_handler_fails_is_closed(
    serve: Serve, error: type[BaseException], told: str
) -> None:
    running = await serve(answering(failing(error)))
    async with running.raw() as client, running.raw() as other:
        for each in (client, other):
            assert (await each.upgrade()).status == 101
        client.send(b"".join(masked_frame(Opcode.TEXT, message.encode()) for message in MESSAGES))
        other.send(b"".join(masked_frame(Opcode.TEXT, message.encode()) for message in MESSAGES if message != "5"))
        assert [(await client.frame()).payload.decode() for _ in range(5)] == MESSAGES[:5]
        assert (await client.frame()).payload[:2] == CloseCode.INTERNAL_ERROR.to_bytes(2, "big")
        assert [(await other.frame()).payload.decode() for _ in MESSAGES[1:]] == [m for m in MESSAGES if m != "5"]
    await running.log.tells(told)
    await running.stop()
    assert running.log.text.count(told) == 1


async def test_a_handler_that_cancels_its_task_and_ends_is_cancelled(serve: Serve) -> None:
    def cancelling() -> Answer:
        async def cancel(frame: Frame) -> object:
            if frame.data == "5":
                this_task().cancel()
            return frame.data

        return cancel

    running = await serve(answering(cancelling))
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.send(b"".join(masked_frame(Opcode.TEXT, message.encode()) for message in MESSAGES))
        assert [(await client.frame()).payload.decode() for _ in range(6)] == MESSAGES[:6]
        assert (await client.frame()).payload[:2] == CloseCode.INTERNAL_ERROR.to_bytes(2, "big")
    await running.log.tells("the message handler was cancelled")


async def test_a_handler_that_waits_can_be_cancelled(serve: Serve) -> None:
    def waiting() -> Answer:
        async def wait(frame: Frame) -> object:
            if frame.data == "5":
                asyncio.get_running_loop().call_soon(this_task().cancel)
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.Event().wait()
                return "cancelled"
            return frame.data

        return wait

    running = await serve(answering(waiting))
    assert await answers(running) == [*MESSAGES[:5], "cancelled", *MESSAGES[6:]]


async def test_a_handler_may_close_its_own_connection(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note(frame.data)
            if frame.data == "5":
                server.disconnect(frame.fd)

        @server.on("close")
        async def on_close(server: Server, fd: int) -> None:
            note("close")

    running = await serve(application)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.send(b"".join(masked_frame(Opcode.TEXT, message.encode()) for message in MESSAGES))
        assert (await client.frame()).payload[:2] == CloseCode.NORMAL_CLOSURE.to_bytes(2, "big")
        client.send_close(1000)
        assert [await running.noted() for _ in range(6)] == [(number,) for number in MESSAGES[:6]]
        while (noted := await running.noted()) != ("close",):
            assert noted[0] in MESSAGES[6:]


def hold_the_event_loop() -> None:
    time.sleep(0.15)


async def test_a_slow_handler_is_logged(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "5":
                hold_the_event_loop()
            server.push(frame.fd, str(frame.data))

    running = await serve(application)
    assert await answers(running) == MESSAGES
    await running.log.tells("on_message (the message handler) held the event loop for ")
    await running.stop()


async def test_callbacks_of_the_event_loop_run_between_handlers(serve: Serve) -> None:
    """However many messages have arrived."""

    def counting() -> Answer:
        state = [0, 0]

        async def count(frame: Frame) -> object:
            if state[0] == 0:
                asyncio.get_running_loop().call_soon(lambda: state.__setitem__(1, state[0]))
            state[0] += 1
            return state[1]

        return count

    running = await serve(answering(counting))
    found = await answers(running, ["message"] * 5000)
    # A turn handles this many events at most.
    assert 0 < int(found[-1]) <= 1024


async def test_a_profiler_sees_each_handler(serve: Serve) -> None:
    def profiled() -> Answer:
        calls: list[str] = []

        def profile(frame: Any, event: str, argument: object) -> None:
            if event == "call":
                calls.append(frame.f_code.co_name)

        async def work(frame: Frame) -> object:
            sys.setprofile(profile)
            if frame.data == MESSAGES[-1]:
                sys.setprofile(None)
                return calls.count("work")
            return "works"

        return work

    running = await serve(answering(profiled))
    assert (await answers(running))[-1] == str(len(MESSAGES) - 1)


async def test_tasks_in_debug_mode(serve_here: Serve) -> None:
    asyncio.get_running_loop().set_debug(True)
    for leaving in (name, reference, context_variable):
        running = await serve_here(answering(leaving))
        assert await answers(running) == ["False"] * len(MESSAGES)


async def test_tasks_for_a_server_that_was_started_in_a_context_with_variables(serve_here: Serve) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("before the start")

    def reading() -> Answer:
        async def read(frame: Frame) -> str:
            found = variable.get()
            variable.set("mine")
            return found

        return read

    running = await serve_here(answering(reading))
    assert await answers(running) == ["before the start"] * len(MESSAGES)


async def test_no_task_is_left_once_handlers_have_ended(serve_here: Serve) -> None:
    def counting() -> Answer:
        async def count(frame: Frame) -> int:
            return sum("on_message" in repr(task) for task in asyncio.all_tasks())

        return count

    running = await serve_here(answering(counting))
    assert await answers(running) == ["1"] * len(MESSAGES)
    assert not any("on_message" in repr(task) for task in asyncio.all_tasks())


async def test_event_loops_in_two_threads_do_not_disturb_each_other(serve_here: Serve) -> None:
    """What one of them does to its tasks says nothing about those of the other."""

    async def serve_many(serve: Serve) -> list[list[str]]:
        running = await serve(answering(attribute))
        return [await answers(running) for _ in range(20)]

    async def in_thread() -> list[list[str]]:
        async with serve_embedded(answering(attribute), {}) as running:
            return [await answers(running) for _ in range(20)]

    other = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(in_thread()))
    assert await serve_many(serve_here) == [["False"] * len(MESSAGES)] * 20
    assert await other == [["False"] * len(MESSAGES)] * 20
