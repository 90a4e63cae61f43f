"""A server with an ASGI application: its defaults, and the handlers that it may have beside it."""

import asyncio
import functools
from typing import Any

import pytest

from hubbub import Endpoint, Server, Settings
from hubbub.endpoints import EVENTS as OF_ENDPOINTS
from hubbub.handlers import EVENTS


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def test_the_application_decides_what_the_server_would_decide_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Server(app=app).settings
    assert (settings.origins, settings.health_path) == ("*", None)
    assert (settings.max_body_size, settings.max_header_size) == (None, 65_536)
    differing = {"origins", "health_path", "max_body_size", "max_header_size"}
    plain = Server().settings
    for setting in Settings.describe():
        is_the_same = getattr(settings, setting.name) == getattr(plain, setting.name)
        assert is_the_same is (setting.name not in differing)
    # What is given counts, wherever it is given.
    assert Server(app=app, origins="same", health_path="/up", max_body_size=7).settings.origins == "same"
    monkeypatch.setenv("HUBBUB_MAX_BODY_SIZE", "7")
    assert Server(app=app).settings.max_body_size == 7
    server = Server(app=app)
    server._lay_over({"origins": "https://a.example"}, defaults={"allowed_hosts": ("localhost",)})
    assert server.settings.origins == ("https://a.example",)
    assert (server.settings.health_path, server.settings.allowed_hosts) == (None, ("localhost",))


@pytest.mark.parametrize("event", OF_ENDPOINTS)
def test_handlers_of_connections_need_an_endpoint(event: Any) -> None:
    server = Server(app=app)
    for register in (lambda: server.on(event), lambda: server.on(event, lambda: None)):
        with pytest.raises(ValueError, match=f"a {event!r} handler needs an Endpoint"):
            register()
    endpoint = Endpoint("/live")
    endpoint.on(event, lambda: None)
    server.include(endpoint)


@pytest.mark.parametrize("event", sorted(EVENTS.keys() - set(OF_ENDPOINTS)))
def test_handlers_of_the_life_of_the_server_do_not(event: Any) -> None:
    Server(app=app).on(event, lambda: None)


async def test_it_starts_and_ends_with_an_embedded_server() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            await receive()
            told.append(kind)
            await send({"type": f"lifespan.{kind}.complete"})

    server = Server(port=0, control=None, app=app)
    for event in ("worker_start", "start", "worker_stop", "shutdown"):
        server.on(event, functools.partial(told.append, event))
    for _ in range(2):
        async with server:
            assert told == ["startup", "worker_start", "start"]
        assert told[3:] == ["worker_stop", "shutdown", "shutdown"]
        told.clear()


async def test_an_application_that_cannot_start_ends_the_start_of_an_embedded_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    server = Server(port=0, control=None, app=app)
    server.on("worker_start", lambda: pytest.fail("worker_start runs"))
    with pytest.raises(RuntimeError, match="the application cannot start: no database"):
        await server.serve()


async def test_it_ends_if_worker_start_fails() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            await receive()
            told.append(kind)
            await send({"type": f"lifespan.{kind}.complete"})

    server = Server(port=0, control=None, app=app)

    @server.on("worker_start")
    def on_worker_start() -> None:
        raise LookupError("no database")

    with pytest.raises(LookupError):
        await server.serve()
    assert told == ["startup", "shutdown"]


@pytest.mark.parametrize("ends_well", [True, False])
async def test_shutdown_while_the_application_starts_waits_for_it(
    ends_well: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        begun.set()
        await goes_on.wait()
        if not ends_well:
            raise LookupError("no database")
        told.append("startup")
        await send({"type": "lifespan.startup.complete"})
        told.append((await receive())["type"])

    server = Server(port=0, control=None, app=app, lifespan="on")
    server.on("worker_start", lambda: told.append("worker_start"))
    server.on("worker_stop", lambda: told.append("worker_stop"))
    serving = asyncio.create_task(server.serve())
    await begun.wait()
    server.shutdown()
    # The stop needs only some iterations of the event loop to begin, and no other time.
    for _ in range(20):
        await asyncio.sleep(0)
    assert not serving.done()
    goes_on.set()
    await serving
    assert told == (["startup", "lifespan.shutdown"] if ends_well else [])
    assert ("LookupError: no database" in caplog.text) is not ends_well


async def test_a_start_that_is_cancelled_cancels_the_startup_of_the_application() -> None:
    told: list[str] = []
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cleaned up")

    server = Server(port=0, control=None, app=app)
    serving = asyncio.create_task(server.serve())
    await begun.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert told == ["cleaned up"]
    assert server.worker_id is None
