"""The programs of docs/with/socketio.md, with python-socketio's own client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio  # type: ignore[import-untyped]
import socketio.exceptions  # type: ignore[import-untyped]
from as_process import Running
from snippets import Snippet, shows
from with_framework import HUBBUB_RUN, OF_SERVER, check_both_workers_have_some, post, served

from apart import runs_apart

PAGE = "docs/with/socketio.md"


class Client:
    """A client that has joined a room."""

    def __init__(self) -> None:
        self.socket = socketio.AsyncClient(reconnection=False)
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self.socket.on("said", self._said.put)

    async def say(self, room: str, text: str) -> None:
        await self.socket.emit("say", (room, text))

    async def hears(self) -> Any:
        return await self._said.get()


@asynccontextmanager
async def joined(running: Running, room: str, *transports: str) -> AsyncIterator[Client]:
    """Stay in a room until the end of the block."""
    client = Client()
    await client.socket.connect(f"http://127.0.0.1:{running.port}", transports=[*transports])
    try:
        assert await client.socket.call("join", room) == f"welcome to the {room}"
        yield client
    finally:
        # A client that polls would wait until its last request is answered, at the next ping.
        await client.socket.eio.disconnect(abort=True)


@pytest.mark.parametrize("transports", [("websocket",), ("polling",), ("polling", "websocket")], ids="-".join)
@shows(PAGE, "A room")
async def test_clients_talk_in_a_room(snippets: list[Snippet], transports: tuple[str, ...]) -> None:
    async with (
        served(*snippets, arguments=(*HUBBUB_RUN, "--workers", "1", "--shutdown-timeout", "0.5")) as running,
        joined(running, "garden", *transports) as ada,
        joined(running, "garden", "websocket") as grace,
        joined(running, "kitchen", *transports) as edsger,
    ):
        assert ada.socket.transport() == transports[-1]
        await ada.say("garden", "hello")
        assert [await ada.hears(), await grace.hears()] == ["hello", "hello"]
        assert await post(running, "/rooms/garden", "tea is ready") == 200
        assert [await ada.hears(), await grace.hears()] == ["tea is ready", "tea is ready"]
        assert await post(running, "/rooms/kitchen", "for you") == 200
        assert await edsger.hears() == "for you"


@shows(PAGE, "Several workers")
@runs_apart
async def test_clients_of_two_workers_are_in_one_room(snippets: list[Snippet]) -> None:
    async with (
        served(*snippets, arguments=OF_SERVER) as running,
        joined(running, "garden", "websocket") as ada,
        joined(running, "garden", "websocket") as grace,
    ):
        check_both_workers_have_some(running)
        for client, text in ((ada, "hello"), (grace, "good morning")):
            await client.say("garden", text)
            assert [await ada.hears(), await grace.hears()] == [text, text]
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with joined(running, "garden", "polling"):
                pass
