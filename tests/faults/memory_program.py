"""The server of `memory_model.py`: rooms with history and presence.

Its arguments are keywords of `Server` and options of the topics `room:…`, both as JSON, and the path of a file. Each
`join` and `leave` becomes a line of the file. Each client is told its id, its worker's number and process. A message is
an expression, evaluated in that worker; the answer is its value, as JSON after `=`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from typing import Any

from hubbub import Frame, Request, Server

server = Server(port=0, **json.loads(sys.argv[1]))
server.topic_options("room:*", **json.loads(sys.argv[2]))

log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tasks: set[asyncio.Task[None]] = set()


@server.on("start")
def announce(server: Server) -> None:
    print(server.port, flush=True)


@server.on("open")
def enter(server: Server, request: Request) -> None:
    answer(request.fd, [request.fd, server.worker_id, os.getpid()])


@server.on("message")
def carry_out(server: Server, frame: Frame) -> None:
    assert isinstance(frame.data, str)
    answer(frame.fd, eval(frame.data, globals(), {"fd": frame.fd}))


@server.on("join")
def joined(server: Server, topic: str, fd: int, info: Any) -> None:
    note("join", topic, fd, info)


@server.on("leave")
def left(server: Server, topic: str, fd: int, info: Any) -> None:
    note("leave", topic, fd, info)


def note(event: str, topic: str, fd: int, info: Any) -> None:
    os.write(log, (json.dumps([event, topic, fd, info, os.getpid()]) + "\n").encode())


def answer(fd: int, value: object) -> None:
    server.push(fd, "=" + json.dumps(value))


# ---- what expressions can call ---------------------------------------------------------------------------


def publish(topic: str, publisher: str, first: int, count: int) -> int:
    """Publish so many numbered messages."""
    for number in range(first, first + count):
        server.publish(topic, [publisher, number])
    return count


def join(fd: int, topic: str, since: list[Any] | None, info: Any) -> None:
    """Have a connection join, and then push the outcome to it."""

    async def run() -> None:
        outcome = await server.join(fd, topic, since=since, info=info)
        server.push(fd, "joined " + json.dumps([outcome.recovered, outcome.count, outcome.position]))

    begin(run())


def tell_members(fd: int, topic: str) -> None:
    """Push the members of a topic."""

    async def run() -> None:
        server.push(fd, "members " + json.dumps(sorted((await server.presence(topic)).items())))

    begin(run())


def begin(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


server.start()
