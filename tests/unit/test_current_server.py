"""`current_server` and `fd_of`: for code that is given neither a server nor an id."""

import asyncio
import threading
from typing import Any

import pytest
from starlette.websockets import WebSocket

import hubbub
from hubbub import NotRunning, Server, current_server, fd_of


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


async def test_it_is_the_embedded_server_in_all_its_threads() -> None:
    with pytest.raises(NotRunning):
        current_server()
    async with (server := Server(port=0, control=None)):
        assert current_server() is server
        assert await asyncio.to_thread(current_server) is server
    with pytest.raises(NotRunning, match="no current server"):
        current_server()


async def test_it_is_there_from_the_startup_of_the_application_to_its_shutdown() -> None:
    seen: list[Server] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            seen.append(current_server())
            await send({"type": f"lifespan.{kind}.complete"})

    async with (server := Server(port=0, control=None, app=app)):
        pass
    assert seen == [server, server]


async def test_of_several_it_is_the_one_of_the_running_event_loop() -> None:
    is_over = threading.Event()
    serves = threading.Event()
    seen: list[object] = []

    async def serve() -> None:
        async with (server := Server(port=0, control=None)):
            seen.append(current_server() is server)
            serves.set()
            await asyncio.to_thread(is_over.wait)

    async with (server := Server(port=0, control=None)):
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        await asyncio.to_thread(serves.wait)
        assert current_server() is server
        with pytest.raises(NotRunning):
            await asyncio.to_thread(current_server)
        is_over.set()
        await asyncio.to_thread(thread.join)
    assert seen == [True]


def websocket_scope(**extensions: Any) -> dict[str, Any]:
    return {"type": "websocket", "extensions": extensions}


def test_the_id_is_in_the_scope_or_in_the_scope_of_an_object() -> None:
    scope = websocket_scope(hubbub={"fd": 42})
    assert fd_of(scope) == 42
    assert fd_of(WebSocket(scope, receive=app, send=app)) == 42  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [42, None, "/chat", object(), ["scope"]])
def test_what_has_no_scope_has_no_id(given: object) -> None:
    with pytest.raises(TypeError, match="websocket must be an ASGI scope"):
        fd_of(given)


@pytest.mark.parametrize(
    ("scope", "says"),
    [
        ({"type": "http", "extensions": {"hubbub": {}}}, "the type of this scope is 'http'"),
        ({}, "the type of this scope is None"),
        ({"type": "websocket"}, "is not served by Hubbub"),
        ({"type": "websocket", "extensions": None}, "is not served by Hubbub"),
        (websocket_scope(other={}), "is not served by Hubbub"),
        (websocket_scope(hubbub={}), "has no id yet"),
        (websocket_scope(hubbub={"fd": None}), "has no id yet"),
        (websocket_scope(hubbub={"fd": 0}), "has no id yet"),
    ],
)
def test_a_scope_without_an_id_is_refused_with_the_reason(scope: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        hubbub.fd_of(scope)
