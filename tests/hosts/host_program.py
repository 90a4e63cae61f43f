"""One of several servers that are one: rooms with history and presence, and other topics.

Its arguments are keywords of `Server` and options of the topics `room:…`, both as JSON, and the path of a file. Each
`join` and `leave` becomes a line of the file. Its clients send expressions; the value of one that is awaitable is its
outcome, or the name and text of the exception.
"""

import asyncio
import dataclasses
import inspect
import json
import sys
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "faults"))

from expressions import Expressions, Rooms

from hubbub import Frame, Position, Server

server = Server(port=0, **json.loads(sys.argv[1]))
server.topic_options("room:*", **json.loads(sys.argv[2]))


class HostExpressions(Expressions):
    """Expressions that may be coroutines."""

    async def _carry_out(self, server: Server, frame: Frame) -> None:  # type: ignore[override]
        value = self.evaluate(frame)
        if inspect.isawaitable(value):
            try:
                value = await value
            except Exception as error:
                value = f"{type(error).__name__}: {error}"
        self.answer(frame.fd, plain(value))


def plain(value: Any) -> Any:
    """Return a value that JSON holds: a dataclass as a dictionary, a mapping's keys as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Position):
        return list(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    return value


def fill(fd: int, topics: int, first: int) -> None:
    """Subscribe a connection to so many topics, one after the other, each only for a moment."""
    for number in range(first, first + topics):
        server.subscribe(fd, f"short-lived:{number}")
        server.unsubscribe(fd, f"short-lived:{number}")


def flood(fds: list[int], topic: str, size: int, count: int) -> int:
    """Push to each of `fds`, and publish, so many times; how many pushes were refused."""
    message = "news flood " + "x" * size
    refused = 0
    for _ in range(count):
        server.publish(topic, message)
        refused += sum(not server.push(fd, message) for fd in fds)
    return refused


async def all_of(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Wait for several calls at the same time, and return what they return."""
    return list(await asyncio.gather(*calls))


async def texts(topic: str) -> list[str]:
    """Return the data of a topic's history."""
    return [str(message.data) for message in (await server.history(topic)).messages]


async def offsets(topic: str) -> list[int]:
    """Return the offsets of a topic's history."""
    return [message.offset for message in (await server.history(topic)).messages]


async def silent(answer: Awaitable[Any]) -> list[int]:
    """Return the numbers of the hosts that are missing in an answer of `server.cluster`."""
    return list((await answer).silent)


async def epoch(topic: str) -> str:
    """Return a topic's epoch."""
    return (await server.history(topic)).position.epoch


names: dict[str, Any] = globals()
expressions = HostExpressions(server, names)
rooms = Rooms(server, expressions, sys.argv[3])
names.update(call=expressions.call, publish=rooms.publish, join=rooms.join, tell_members=rooms.tell_members)

server.start()
