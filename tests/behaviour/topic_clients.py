"""Applications with options of topics, and the clients that subscribe to them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from application import Application, Note
from running import Running
from websockets.asyncio.client import ClientConnection

from hubbub import Request, Server


def keeping(pattern: str = "kept*", **options: Any) -> Application:
    """Return an application that sets options of topics, and notes the ids of its connections."""

    def application(server: Server, note: Note) -> None:
        server.topic_options(pattern, **options)

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(request.fd)

    return application


class Client:
    """A client, and the id of its connection."""

    def __init__(self, client: ClientConnection, fd: int) -> None:
        self.client = client
        self.fd = fd

    async def gets(self, *messages: str | bytes) -> bool:
        """Wait for as many messages, and return whether they are these."""
        return [await self.client.recv() for _ in messages] == list(messages)

    async def gets_no_more(self, running: Running) -> bool:
        """Return whether nothing comes before a message that is pushed now."""
        await running.server.push(self.fd, "no more")
        return await self.client.recv() == "no more"


async def connect_all(stack: AsyncExitStack, running: Running, count: int) -> list[Client]:
    """Connect that many clients to an application that notes the ids."""
    clients = []
    for _ in range(count):
        connection = await stack.enter_async_context(running.connect())
        clients.append(Client(connection, await running.opened()))
    return clients


def texts(begin: int, end: int) -> list[str]:
    """Return numbered messages, from the first number to the last one."""
    return [f"message {number}" for number in range(begin, end + 1)]


def padded(messages: list[str], padding: int) -> list[str]:
    """Return longer messages."""
    return [message.ljust(padding, "x") for message in messages]


async def publish_all(running: Running, topic: str, messages: list[str], padding: int = 0) -> None:
    """Publish messages, made longer, from one worker; they are then all in the order of the topic."""

    async def publish(server: Server, note: Note) -> None:
        for message in messages:
            server.publish(topic, message.ljust(padding, "x"))
        # The answer comes after all of them.
        await server.history(topic, limit=1)

    await running.server.run(publish)


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    """Look again and again until something is there: nothing announces that."""
    found = await look()
    while not found:
        await asyncio.sleep(0.01)
        found = await look()
