"""Data that handlers receive never changes later, although the server reuses memory."""

import contextlib
import gc
import sys
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
from application import Note
from raw_client import masked_frame
from running import Running, Serve

from hubbub import Frame, Opcode, Server

# Short and long texts, some equal, some not ASCII, and some that Python shares (with no or one character).
TEXTS = [
    text * count
    for count in (1, 40, 3)
    for text in ("", "a", "ab", "message", "ab", "\u00e9", "\u20ac uro", "\U0001f600", "x" * 100, "nul\0nul", "known")
]


async def sent_at_once(running: Running, messages: list[str | bytes]) -> None:
    """Send messages in one piece, so that one turn takes them, and wait until the last one has come back."""
    async with running.raw() as client:
        assert (await client.upgrade()).status == 101
        client.send(b"".join(frame_of(message) for message in [*messages, "the end"]))
        while (await client.frame()).payload != b"the end":
            pass


def frame_of(message: str | bytes) -> bytes:
    if isinstance(message, str):
        return masked_frame(Opcode.TEXT, message.encode())
    return masked_frame(Opcode.BINARY, message)


def text_of(frame: Frame) -> str:
    assert isinstance(frame.data, str)
    return frame.data


def keep_all(kept: list[Any]) -> Callable[[Frame], None]:
    return lambda frame: kept.append(frame.data)


def keep_some(kept: list[Any]) -> Callable[[Frame], None]:
    turns = cycle([True, False, False])
    return lambda frame: kept.append(frame.data if next(turns) else text_of(frame) + "")


def keep_frames(kept: list[Any]) -> Callable[[Frame], None]:
    frames: list[Frame] = []

    def keep(frame: Frame) -> None:
        frames.append(frame)
        kept[:] = [each.data for each in frames]

    return keep


def look_up(kept: list[Any]) -> Callable[[Frame], None]:
    known = {text: text for text in TEXTS}
    return lambda frame: kept.append(known.get(text_of(frame), "not found"))


def intern(kept: list[Any]) -> Callable[[Frame], None]:
    return lambda frame: kept.append(sys.intern(text_of(frame)))


def set_attribute(kept: list[Any]) -> Callable[[Frame], None]:
    class Anything:
        pass

    anything = Anything()

    def keep(frame: Frame) -> None:
        # This interns the name.
        setattr(anything, text_of(frame), None)
        kept.append(list(vars(anything))[-1] if frame.data not in kept else frame.data[:])

    return keep


def measure(kept: list[Any]) -> Callable[[Frame], None]:
    def keep(frame: Frame) -> None:
        gc.collect(0)
        copy = "".join(list(text_of(frame)))
        assert sys.getsizeof(frame.data) >= len(frame.data)
        assert hash(frame.data) == hash(copy)
        kept.append(copy)

    return keep


@pytest.mark.parametrize("handle", [keep_all, keep_some, keep_frames, look_up, intern, set_attribute, measure])
async def test_texts_stay_as_they_were_received(
    serve_here: Serve, handle: Callable[[list[Any]], Callable[[Frame], None]]
) -> None:
    kept: list[Any] = []
    act = handle(kept)

    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "the end":
                server.push(frame.fd, frame.data)
            else:
                act(frame)

    running = await serve_here(application)
    texts = TEXTS * 20
    await sent_at_once(running, list(texts))
    # If an attribute is set again, its name remains the first string, so only the values can be compared.
    assert kept == texts if handle is not set_attribute else set(kept) == set(texts)


async def test_texts_and_bytes_in_turn_stay_as_they_were_received(serve_here: Serve) -> None:
    kept: list[str | bytes] = []
    counts: list[int] = []

    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            counts.append(len(frame.data))
            if len(counts) % 3:
                kept.append(frame.data)
            if frame.data == "the end":
                server.push(frame.fd, frame.data)

    running = await serve_here(application)
    messages: list[str | bytes] = []
    for size in (64, 65, 64, 10, 100, 2, 64, 0, 1, 64):
        messages += [f"{size:02}" * (size // 2), bytes(size), b"\xff" * size, "z" * size]
    messages *= 10
    await sent_at_once(running, messages)
    expected = [message for number, message in enumerate([*messages, "the end"], start=1) if number % 3]
    assert kept == expected


async def test_each_of_many_connections_keeps_its_id(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: server.push(request.fd, str(request.fd)))
        server.on("message", lambda server, frame: server.push(frame.fd, str(frame.fd)))

    running = await serve_here(application)
    async with contextlib.AsyncExitStack() as stack:
        # More than the ids that the server keeps as objects, so that some take the place of others.
        clients = [await stack.enter_async_context(running.raw()) for _ in range(300)]
        for client in clients:
            client.ask_for_upgrade()
        assert {(await client.answer()).status for client in clients} == {101}
        ids = [(await client.frame()).payload for client in clients]
        for _ in range(2):
            for client in clients:
                client.send(masked_frame(Opcode.TEXT, b"who?") * 2)
            answers = [[(await client.frame()).payload for _ in range(2)] for client in clients]
            assert answers == [[fd, fd] for fd in ids]
