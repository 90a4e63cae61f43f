"""How the chat's server treats clients that bypass its page, and serves people on all of its workers."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from programs import CHAT, Program, running
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import hubbub

MAX_CHARACTERS = 2000
NAME_LENGTH = 32
ROOMS = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat() -> AsyncIterator[Program]:
    """The chat, in which each test has a room of its own."""
    async with running(*CHAT) as program:
        yield program


@pytest.fixture
def room() -> str:
    """Return the name of an unused room."""
    return f"room {next(ROOMS)}"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes connections at the end of the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def send(socket: ClientConnection, kind: str, **what: object) -> None:
    await socket.send(json.dumps({"type": kind, **what}))


async def hear(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    """Return the next message of one of these kinds."""
    async with asyncio.timeout(20):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if message["type"] in kinds:
                return message


async def join(stack: AsyncExitStack, chat: Program, room: str, name: str = "Ada") -> ClientConnection:
    """Connect and join a room; it has been counted then."""
    socket = await stack.enter_async_context(connect(f"ws://127.0.0.1:{chat.port}/chat"))
    await send(socket, "join", room=room, name=name, back=False)
    await hear(socket, "people")
    return socket


def test_the_server_is_short_enough_to_be_copied() -> None:
    source = Path(hubbub.__file__).with_name("demo") / "chat.py"
    assert len(source.read_text("utf-8").splitlines()) < 120


@pytest.mark.parametrize("text", ["", "x" * (MAX_CHARACTERS + 1)])
async def test_a_text_beyond_the_limits_is_refused(stack: AsyncExitStack, chat: Program, room: str, text: str) -> None:
    socket = await join(stack, chat, room)
    await send(socket, "say", id="1", text=text)
    assert await hear(socket, "said", "refused") == {
        "type": "refused",
        "id": "1",
        "why": "a message must have 1 to 2,000 characters",
    }
    await send(socket, "say", id="2", text="x" * MAX_CHARACTERS)
    assert (await hear(socket, "said", "refused"))["text"] == "x" * MAX_CHARACTERS


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no JSON", 1007),
        ("[" * 10_000, 1007),
        ('{"type": "join", "room": "lobby", "name": "half a surrogate pair \\ud800", "back": false}', 1007),
        (b"\xff", 1007),
        ("[]", 4400),
        ('{"type": "unknown"}', 4400),
        ('{"type": "say", "id": 1, "text": "the id is no string"}', 4400),
    ],
)
async def test_what_the_page_does_not_send_ends_the_connection(
    stack: AsyncExitStack, chat: Program, room: str, text: str | bytes, code: int
) -> None:
    socket = await join(stack, chat, room)
    await socket.send(text)
    with pytest.raises(ConnectionClosed):
        await hear(socket, "nothing")
    assert socket.close_code == code


async def test_nobody_speaks_without_having_joined(chat: Program) -> None:
    async with connect(f"ws://127.0.0.1:{chat.port}/chat") as socket:
        await send(socket, "say", id="1", text="hello")
        with pytest.raises(ConnectionClosed):
            await hear(socket, "said")
        assert socket.close_code == 4400


async def test_a_name_is_cut_to_its_length_and_none_is_a_guest(stack: AsyncExitStack, chat: Program, room: str) -> None:
    first = await join(stack, chat, room)
    await join(stack, chat, room, "  " + "x" * 100)
    assert (await hear(first, "came"))["name"] == "x" * NAME_LENGTH
    await join(stack, chat, room, "   ")
    assert (await hear(first, "came"))["name"] == "Guest"


async def test_many_people_are_counted_over_all_workers(stack: AsyncExitStack, chat: Program, room: str) -> None:
    first = await join(stack, chat, room)
    others = [await join(stack, chat, room) for _ in range(7)]
    while (await hear(first, "people"))["count"] != 8:
        pass
    for socket in others:
        await socket.close()
    while (await hear(first, "people"))["count"] != 1:
        pass


async def test_who_joins_is_told_what_was_said_lately_on_every_worker(
    stack: AsyncExitStack, chat: Program, room: str
) -> None:
    # They are spread over the workers.
    for number in range(4):
        socket = await join(stack, chat, room)
        await send(socket, "say", id=str(number), text=f"text {number}")
        await hear(socket, "said")
    late = await stack.enter_async_context(connect(f"ws://127.0.0.1:{chat.port}/chat"))
    await send(late, "join", room=room, name="Late", back=False)
    assert {(await hear(late, "said"))["id"] for _ in range(4)} == {"0", "1", "2", "3"}


async def test_who_floods_is_slowed_down_and_nobody_else(stack: AsyncExitStack, room: str) -> None:
    # Before it stops, the server handles the part of the flood that it has read: that must be small.
    async with running(*CHAT, "--receive-queue", "4") as chat:
        flooder = await join(stack, chat, room)
        other = await join(stack, chat, room)
        for number in range(400):
            await send(flooder, "say", id=f"f{number}", text="flood")
        await hear(flooder, "said")
        await send(other, "say", id="other", text="hello")
        ids = []
        while "other" not in ids:
            ids.append((await hear(other, "said"))["id"])
        # At 20 messages a second the flood would take twenty seconds.
        assert len(ids) < 400
        # It does not read, and would not answer a Close.
        flooder.transport.abort()
