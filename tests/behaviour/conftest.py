"""The server under test.

A test gives its application (a function that registers handlers) to `serve`, and talks to what it gets as a
client. What the handlers see, they tell through `note`. Tests that do no more than this, with an application
that is a function of its module, do not say in which process the server runs, so that they can be run over
other ways of serving too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from running import Application, Notes, Running, Serve

from hubbub import Server


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Servers in this process. Nothing may go wrong behind their back in the event loop."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    async with AsyncExitStack() as servers:

        async def run(application: Application, **settings: Any) -> Running:
            server, notes, stack = Server(port=0, **settings), Notes(), AsyncExitStack()
            application(server, notes)
            await stack.enter_async_context(server)
            servers.push_async_callback(stack.aclose)
            return Running(server, notes, stack.aclose)

        yield run
    assert not failures
