"""The lifespan of an ASGI application in one worker, without sockets."""

import asyncio
import contextvars
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from hubbub.asgi.lifespan import Lifespan, StartupFailed

COLOUR = contextvars.ContextVar("COLOUR", default="none")
LONG = 3600.0


def complete(kind: str) -> dict[str, str]:
    return {"type": f"lifespan.{kind}.complete"}


def failed(kind: str, **more: str) -> dict[str, str]:
    return {"type": f"lifespan.{kind}.failed", **more}


def deadline(seconds: float = LONG) -> float:
    return asyncio.get_running_loop().time() + seconds


async def started(app: Any, mode: str = "auto") -> Lifespan:
    """Return the lifespan of an application that has started."""
    lifespan = Lifespan(app, mode=mode, worker_id=0)
    assert await lifespan.begin() is None
    return lifespan


async def failure_of(app: Any, mode: str = "auto") -> BaseException:
    """Return what the startup of an application fails with."""
    lifespan = Lifespan(app, mode=mode, worker_id=0)
    failure = await lifespan.begin()
    assert failure is not None
    lifespan.cancel()
    return failure


async def test_an_application_is_told_of_the_start_and_of_the_end() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(scope)
        for kind in ("startup", "shutdown"):
            told.append(await receive())
            await send(complete(kind))
        told.append("returns")

    lifespan = await started(app)
    assert told == [
        {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}},
        {"type": "lifespan.startup"},
    ]
    await lifespan.stop(deadline())
    assert told[2:] == [{"type": "lifespan.shutdown"}, "returns"]


async def test_what_it_stores_and_its_context_variables_are_for_the_requests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["pool"] = "a pool"
        COLOUR.set("green")
        await send(complete("startup"))
        COLOUR.set("red")
        await receive()
        await receive()

    lifespan = await started(app)
    assert lifespan.state == {"pool": "a pool"}
    assert lifespan.context.run(COLOUR.get) == "green"
    assert lifespan.context.copy().run(COLOUR.get) == "green"
    assert COLOUR.get() == "none"
    await lifespan.stop(deadline())


async def test_without_lifespan_there_are_a_state_and_a_context_too() -> None:
    COLOUR.set("blue")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it is not called")

    lifespan = await started(app, "off")
    assert lifespan.state == {}
    assert lifespan.context.run(COLOUR.get) == "blue"
    await lifespan.stop(deadline())


async def test_it_may_ask_again_for_the_shutdown() -> None:
    asked = asyncio.Event()
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(complete("startup"))
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        asked.set()
        told.append((await receive())["type"])
        await send(complete("shutdown"))

    lifespan = await started(app)
    await asked.wait()
    await lifespan.stop(deadline())
    assert told == ["lifespan.shutdown"]


async def test_one_that_waits_for_a_third_event_has_ended() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            await send(complete(event["type"].removeprefix("lifespan.")))

    lifespan = await started(app)
    await lifespan.stop(deadline())


async def test_one_that_returns_after_its_start_is_not_told_of_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(complete("startup"))

    lifespan = await started(app, "on")
    await lifespan.stop(deadline())
    await lifespan.stop(deadline())
    assert caplog.text == ""


# ---- applications that do not start ----------------------------------------------------------------------


async def raising(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("only http")


async def raising_later(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise AssertionError("only http")


async def returning(scope: Any, receive: Any, send: Any) -> None:
    pass


@pytest.mark.parametrize("app", [raising, raising_later])
async def test_one_that_raises_before_any_answer_does_not_support_it(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lifespan = await started(app)
    await lifespan.stop(deadline())
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "does not support lifespan (it raises AssertionError('only http'))" in record.message
    assert isinstance(await failure_of(app, "on"), AssertionError)


async def test_one_that_returns_before_any_answer_does_not_support_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await started(returning)
    assert "does not support lifespan (it returns at once)" in caplog.text
    failure = await failure_of(returning, "on")
    assert isinstance(failure, StartupFailed)
    assert "before it had sent lifespan.startup.complete" in str(failure)


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_one_that_reports_its_failure_does_not_start(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(failed("startup", message="no database\nat all\x1b\n"))
        raise ValueError("as Starlette does")

    failure = await failure_of(app, mode)
    assert isinstance(failure, StartupFailed)
    assert str(failure) == "the application cannot start: no database\n  at all\\x1b"
    assert caplog.text == ""


async def test_one_that_gives_no_reason_does_not_start_either() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(failed("startup"))
        await receive()
        await receive()

    assert "it gives no reason" in str(await failure_of(app))


async def test_a_failure_of_fastapi_has_its_traceback() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    failure = await failure_of(FastAPI(lifespan=lifespan))
    assert "in lifespan" in str(failure)
    assert "LookupError: no database" in str(failure)


@pytest.mark.parametrize("message", [{"type": "http.response.start"}, complete("shutdown"), failed("shutdown")])
async def test_one_that_answers_with_something_else_does_not_start(message: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)

    failure = await failure_of(app)
    assert isinstance(failure, RuntimeError)
    assert f"sent '{message['type']}', which cannot follow" in str(failure)


async def test_one_that_exits_does_not_start() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        sys.exit("no configuration")

    assert isinstance(await failure_of(app), SystemExit)


async def test_one_that_is_cancelled_does_not_start() -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    lifespan = Lifespan(app, mode="auto", worker_id=0)
    starting = lifespan.begin()
    await begun.wait()
    await lifespan.stop(deadline())
    assert isinstance(await starting, asyncio.CancelledError)


# ---- applications that do not end well -------------------------------------------------------------------


async def test_a_failure_while_it_serves_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    fails = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(complete("startup"))
        await fails.wait()
        raise ValueError("a background task")

    lifespan = await started(app)
    fails.set()
    assert lifespan.task
    await lifespan.task
    assert "the application failed in its lifespan" in caplog.text
    assert "ValueError: a background task" in caplog.text
    await lifespan.stop(deadline())


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_reported_failure_is_logged_once(is_told: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(complete("startup"))
        if is_told:
            await receive()
        await send(failed("shutdown", message="the pool is stuck"))
        raise ValueError("as Starlette does")

    lifespan = await started(app)
    await lifespan.stop(deadline())
    (record,) = caplog.records
    assert record.message == "the application failed in its lifespan: the pool is stuck"


async def test_a_failure_after_its_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(complete("startup"))
        await send(complete("shutdown"))
        raise ValueError("too late")

    lifespan = await started(app)
    await lifespan.stop(deadline())
    assert "ValueError: too late" in caplog.text


@pytest.mark.parametrize("message", [complete("startup"), failed("startup"), {"type": "lifespan.other"}])
async def test_an_answer_at_the_wrong_time_is_an_error_of_the_application(message: Any) -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(complete("startup"))
        try:
            await send(message)
        except RuntimeError as error:
            errors.append(str(error))

    await started(app)
    assert errors == [f"the application sent '{message['type']}', which cannot follow in its lifespan"]


async def test_one_that_does_not_end_is_cancelled_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(complete("startup"))
        await asyncio.Event().wait()

    lifespan = await started(app)
    await lifespan.stop(deadline(0))
    assert "took too long and was cancelled" in caplog.text
    assert lifespan.task
    await asyncio.wait([lifespan.task])


async def test_a_cancelled_application_reports_no_failure_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    lifespan = await started(FastAPI())
    lifespan.cancel()
    assert lifespan.task
    await asyncio.wait([lifespan.task])
    assert caplog.text == ""
