"""The common part of servers whose clients say what to do.

Each client is subscribed to the topics in the query, and is told its id, its worker's number and process. A message is
an expression, evaluated in that worker; the answer is its value, as JSON after `=`.
"""

import asyncio
import json
import os
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from hubbub import Frame, Request, Server


class Expressions:
    """Evaluates expressions with these names, for the clients of a server."""

    def __init__(self, server: Server, names: dict[str, Any]) -> None:
        """Register the handlers of `start`, `open` and `message`."""
        self._server = server
        self._names = names
        self._tasks: set[asyncio.Task[None]] = set()
        server.on("start", self._announce)
        server.on("open", self._enter)
        server.on("message", self._carry_out)

    def answer(self, fd: int, value: object) -> None:
        """Answer an expression of this client."""
        self._server.push(fd, "=" + json.dumps(value))

    def evaluate(self, frame: Frame) -> Any:
        """Return the value of the expression in a message."""
        assert isinstance(frame.data, str)
        return eval(frame.data, self._names, {"fd": frame.fd})

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something beside the handlers."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def call(self, calls: list[list[Any]]) -> list[Any]:
        """Call methods of the server, in this order: each is a name and arguments. Return what they return."""
        return [getattr(self._server, name)(*arguments) for name, *arguments in calls]

    def _announce(self, server: Server) -> None:
        print(server.port, flush=True)

    def _enter(self, server: Server, request: Request) -> None:
        for topic in request.query.get("topics", "").split(","):
            if topic:
                server.subscribe(request.fd, topic)
        self.answer(request.fd, [request.fd, server.worker_id, os.getpid()])

    def _carry_out(self, server: Server, frame: Frame) -> None:
        self.answer(frame.fd, self.evaluate(frame))


class Rooms:
    """What expressions can do with topics with history and presence. Joins and leaves become lines of a file."""

    def __init__(self, server: Server, expressions: Expressions, log: str) -> None:
        """Register the handlers of `join` and `leave`; `log` is the path of the file."""
        self._server = server
        self._expressions = expressions
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        server.on("join", self._joined)
        server.on("leave", self._left)

    def publish(self, topic: str, publisher: str, first: int, count: int) -> int:
        """Publish so many numbered messages."""
        for number in range(first, first + count):
            self._server.publish(topic, [publisher, number])
        return count

    def join(self, fd: int, topic: str, since: list[Any] | None, info: Any) -> None:
        """Have a connection join, and then push the outcome to it; end the connection if there is none in time."""

        async def run() -> None:
            try:
                outcome = await self._server.join(fd, topic, since=since, info=info)
            except TimeoutError:
                self._server.disconnect(fd)
                return
            self._server.push(fd, "joined " + json.dumps([outcome.recovered, outcome.count, outcome.position]))

        self._expressions.begin(run())

    def tell_members(self, fd: int, topic: str) -> None:
        """Push the members of a topic."""

        async def run() -> None:
            while True:
                with suppress(TimeoutError):
                    members = await self._server.presence(topic)
                    break
            self._server.push(fd, "members " + json.dumps(sorted(members.items())))

        self._expressions.begin(run())

    def _joined(self, server: Server, topic: str, fd: int, info: Any) -> None:
        self._note("join", topic, fd, info)

    def _left(self, server: Server, topic: str, fd: int, info: Any) -> None:
        self._note("leave", topic, fd, info)

    def _note(self, event: str, topic: str, fd: int, info: Any) -> None:
        os.write(self._log, (json.dumps([event, topic, fd, info, os.getpid()]) + "\n").encode())
