"""A server with an ASGI application: its defaults, and the handlers that it may have beside it."""

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
