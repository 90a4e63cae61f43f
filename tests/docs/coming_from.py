"""The programs of docs/coming-from: run as their pages say, each with a client of its own system."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

import pytest
import socketio.exceptions  # type: ignore[import-untyped]
from as_process import Running, serving
from snippets import Snippet, shows, source

from ports import free_port

PAGES = ("websockets", "fastapi", "socketio", "swoole", "django-channels")

# A program's imports show which system it is written for.
SYSTEMS = {
    "from hubbub import": "hubbub",
    "from websockets.asyncio.server import": "websockets",
    "from fastapi import": "fastapi",
    "import socketio": "socketio",
    "from channels": "channels",
}


@dataclass(frozen=True)
class Program:
    """One of the programs of a page."""

    page: str
    snippet: Snippet

    @property
    def system(self) -> str:
        """The system that it is written for."""
        return next(system for line, system in SYSTEMS.items() if line in self.snippet.text)


def programs_of(page: str, title: str) -> list[Program]:
    """Return the programs below a heading: first the other system's, if it is in Python, then ours."""
    return [Program(page, snippet) for snippet in shows(f"docs/coming-from/{page}.md", title).args[0]]


def each_program(title: str, *pages: str) -> pytest.MarkDecorator:
    """Run a test for each program below a heading, on those pages, or on all."""
    return pytest.mark.parametrize(
        "program",
        [
            pytest.param(program, id=f"{page}-{program.system}", marks=pytest.mark.shows([program.snippet]))
            for page in pages or PAGES
            for program in programs_of(page, title)
        ],
    )


def each_page(title: str, *pages: str) -> pytest.MarkDecorator:
    """Run a test for each of those pages, or for all, with the programs below a heading as its `snippets`."""
    return pytest.mark.parametrize(
        "page", [pytest.param(page, marks=shows(f"docs/coming-from/{page}.md", title)) for page in pages or PAGES]
    )


(_SETTINGS,) = programs_of("django-channels", "The project")


def project() -> dict[str, str]:
    """Return the files of the Django project that the programs of its page belong to."""
    return {"settings.py": source((_SETTINGS.snippet,), {})}


IN_PROJECT = {"DJANGO_SETTINGS_MODULE": "settings"}


class Client(Protocol):
    """The interface of the clients of all systems."""

    async def send(self, message: str) -> Any:
        """Send one message."""

    async def recv(self) -> Any:
        """Wait for the next one."""


Connect = Callable[..., AbstractAsyncContextManager[Client]]
"""Connects a client. Keywords are sent with the handshake, in the way that the program expects: `room`, `token`."""


@asynccontextmanager
async def served(program: Program) -> AsyncIterator[Running]:
    """Run a program as its page says; ours with two workers, as its behaviour must not depend on their number."""
    snippet, port = program.snippet, free_port()
    match program.system:
        case "hubbub":
            arguments = ("app.py",) if "server.start()" in snippet.text else ("-m", "hubbub", "run", "app:server")
            running = serving(snippet, arguments=arguments, environ={"HUBBUB_WORKERS": "2"})
        case "websockets":
            running = serving(snippet, port=port, replacing={"8765": str(port)})
        case _:
            files, environ = (project(), IN_PROJECT) if program.system == "channels" else ({}, {})
            uvicorn = ("-m", "uvicorn", "app:app", "--port", str(port))
            running = serving(snippet, port=port, arguments=uvicorn, files=files, environ=environ)
    async with running as server:
        yield server
        assert not any("Traceback" in line for line in server.lines), "\n".join(server.lines)


def connecting(program: Program, server: Running) -> Connect:
    """Return a function that connects clients to a running program."""
    if program.system == "socketio":
        return lambda **keywords: SocketIOClient.connected(server.port, **keywords)
    # Rooms are paths, except with Socket.IO, which has a single path.
    place = "/?room={room}&token={token}" if program.page == "socketio" else "/{room}?token={token}"
    return lambda room="", token="": server.connect(place.format(room=room, token=token))


class SocketIOClient:
    """A client of Socket.IO, which treats all events alike."""

    def __init__(self) -> None:
        self.socket = socketio.AsyncClient(reconnection=False)
        self.socket.on("*", self._take)
        self.socket.on("connect_error", self._take_refusal)
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._refusal = ""

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int, token: str = "", room: str = "") -> AsyncIterator["SocketIOClient"]:
        """Stay connected until the end of the block; a refusal raises Socket.IO's `ConnectionError` with the reason."""
        client = cls()
        url = f"http://127.0.0.1:{port}/?{urlencode({'room': room})}"
        auth = {"token": token} if token else None
        try:
            await client.socket.connect(url, auth=auth, transports=["websocket"])
        except socketio.exceptions.ConnectionError:
            raise socketio.exceptions.ConnectionError(client._refusal) from None
        try:
            yield client
        finally:
            await client.socket.disconnect()

    async def send(self, message: str) -> None:
        await self.socket.send(message)

    async def recv(self) -> Any:
        return await self._received.get()

    def _take(self, event: str, value: Any) -> None:
        self._received.put_nowait(value)

    def _take_refusal(self, refusal: dict[str, str]) -> None:
        self._refusal = refusal["message"]
