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
from hubbub import AsyncPublisher

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
    """Return the next message of one of these kinds; what was said comes with its position."""
    async with asyncio.timeout(20):
        while True:
            received: dict[str, Any] = json.loads(await socket.recv())
            message: dict[str, Any] = received.get("data", received)
            if message["type"] in kinds:
                return message | ({"position": [received["epoch"], received["offset"]]} if "offset" in received else {})


async def open_chat(stack: AsyncExitStack, chat: Program) -> ClientConnection:
    return await stack.enter_async_context(connect(f"ws://127.0.0.1:{chat.port}/chat"))


async def join(stack: AsyncExitStack, chat: Program, room: str, name: str = "Ada") -> ClientConnection:
    """Connect and join a room; the others know it then."""
    socket = await open_chat(stack, chat)
    await send(socket, "join", room=room, name=name, back=False, since=None)
    await hear(socket, "joined")
    return socket


async def worker_of(socket: ClientConnection, chat: Program, room: str) -> int:
    """Join a room, and return the worker of the connection."""
    await send(socket, "join", room=room, name="Ada", back=False, since=None)
    fd = (await hear(socket, "joined"))["who"]
    async with AsyncPublisher(port=chat.port) as publisher:
        info = await publisher.info(fd)
    assert info
    return info.worker_id


def test_the_server_is_short_enough_to_be_copied() -> None:
    source = Path(hubbub.__file__).with_name("demo") / "chat.py"
    assert len(source.read_text("utf-8").splitlines()) < 90


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
        (
            '{"type": "join", "room": "lobby", "name": "half a surrogate pair \\ud800", "back": false, "since": null}',
            1007,
        ),
        (b"\xff", 1007),
        ("[]", 4400),
        ('{"type": "unknown"}', 4400),
        ('{"type": "say", "id": 1, "text": "the id is no string"}', 4400),
        ('{"type": "join", "room": "lobby", "name": 1, "back": false, "since": null}', 4400),
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


async def test_everybody_knows_who_is_there_on_all_workers(stack: AsyncExitStack, chat: Program, room: str) -> None:
    first = await join(stack, chat, room, "First")
    others = [await join(stack, chat, room, f"person {number}") for number in range(7)]
    came = [await hear(first, "came") for _ in others]
    assert {message["name"] for message in came} == {f"person {number}" for number in range(7)}
    last = await open_chat(stack, chat)
    await send(last, "join", room=room, name="Last", back=False, since=None)
    people = (await hear(last, "joined"))["people"]
    assert len(people) == 9
    assert {info["name"] for info in people.values()} == {"First", "Last", *(message["name"] for message in came)}
    assert all(people[str(message["who"])]["name"] == message["name"] for message in came)
    for socket in others:
        await socket.close()
    went = [await hear(first, "went") for _ in others]
    assert {message["who"] for message in went} == {message["who"] for message in came}


async def test_who_changes_rooms_has_left_the_other_one(stack: AsyncExitStack, chat: Program, room: str) -> None:
    first = await join(stack, chat, room, "First")
    second = await join(stack, chat, room, "Second")
    who = (await hear(first, "came"))["who"]
    await send(second, "join", room=f"{room} too", name="Second", back=False, since=None)
    went = await hear(first, "went")
    assert (went["who"], went["name"]) == (who, "Second")
    await send(first, "say", id="1", text="alone")
    await send(second, "say", id="2", text="here")
    assert (await hear(second, "said"))["id"] == "2"


async def test_who_joins_is_told_what_was_said_lately_on_every_worker(
    stack: AsyncExitStack, chat: Program, room: str
) -> None:
    # They are spread over the workers.
    for number in range(4):
        socket = await join(stack, chat, room)
        await send(socket, "say", id=str(number), text=f"text {number}")
        await hear(socket, "said")
    late = await open_chat(stack, chat)
    await send(late, "join", room=room, name="Late", back=False, since=None)
    assert [(await hear(late, "said", "joined")).get("id") for _ in range(5)] == ["0", "1", "2", "3", None]


async def test_who_comes_back_is_told_what_was_said_since(stack: AsyncExitStack, chat: Program, room: str) -> None:
    speaker = await join(stack, chat, room)
    await send(speaker, "say", id="before", text="text")
    position = (await hear(speaker, "said"))["position"]
    for number in range(3):
        await send(speaker, "say", id=str(number), text="text")
    again = await open_chat(stack, chat)
    while (await hear(speaker, "said"))["id"] != "2":
        pass
    await send(again, "join", room=room, name="Ada", back=True, since=position)
    assert [(await hear(again, "said", "joined")).get("id") for _ in range(3)] == ["0", "1", "2"]
    joined = await hear(again, "said", "joined")
    assert (joined["recovered"], joined["position"]) == (True, [position[0], 4])


@pytest.mark.parametrize("since", [[], ["x", 1], ["", 0], [1, "x"], "x", {}, 5, True, [None, None], ["x", 2**70], [[]]])
async def test_a_position_that_is_none_costs_nothing_but_the_gap(
    stack: AsyncExitStack, chat: Program, room: str, since: object
) -> None:
    speaker = await join(stack, chat, room)
    await send(speaker, "say", id="before", text="text")
    await hear(speaker, "said")
    socket = await open_chat(stack, chat)
    await send(socket, "join", room=room, name="Ada", back=True, since=since)
    assert (await hear(socket, "said"))["id"] == "before"
    assert (await hear(socket, "joined"))["recovered"] is False


async def test_what_was_said_outlives_the_worker_on_which_it_was_said(stack: AsyncExitStack, room: str) -> None:
    async with running(*CHAT) as chat:
        first = await open_chat(stack, chat)
        worker_id = await worker_of(first, chat, room)
        # Watches from the other worker.
        while True:
            other = await open_chat(stack, chat)
            if await worker_of(other, chat, room) != worker_id:
                break
        await send(first, "say", id="1", text="last words")
        await hear(other, "said")
        chat.kill_worker(worker_id)
        # Everybody on that worker has left.
        assert (await hear(other, "went"))["name"] == "Ada"
        late = await open_chat(stack, chat)
        await send(late, "join", room=room, name="Late", back=False, since=None)
        assert (await hear(late, "said"))["text"] == "last words"
        people = (await hear(late, "joined"))["people"]
        async with AsyncPublisher(port=chat.port) as publisher:
            assert sorted(map(int, people)) == await publisher.members(f"room:{room}")


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
