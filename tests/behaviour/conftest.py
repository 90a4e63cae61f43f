"""The server under test.

A test gives its application (a function that registers handlers) to `serve`, and talks to what it gets as a
client. What the handlers see, they tell through `note`. So it does not say in which process the server runs, and is run
over each of the ways of serving: within this process, the same over TLS, and in processes, one worker or several.

What is about the process that serves uses `serve_here`, or a `Server` of its own.
"""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from application import Application
from embedded import serve_embedded
from over_tls import serve_over_tls
from running import Running, Serve

from processes import serve_in_processes

Way = Callable[[Application, dict[str, Any]], AbstractAsyncContextManager[Running]]

WAYS: dict[str, Way] = {
    "embedded": serve_embedded,
    "tls": serve_over_tls,
    "workers1": functools.partial(serve_in_processes, 1),
    "workers3": functools.partial(serve_in_processes, 3),
}


@pytest.fixture(params=WAYS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """Servers in each of the ways."""
    async with serving(WAYS[request.param]) as serve:
        yield serve


@pytest.fixture
async def serve_here() -> AsyncIterator[Serve]:
    """Servers in this process."""
    async with serving(serve_embedded) as serve:
        yield serve


@asynccontextmanager
async def serving(way: Way) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as servers:

        async def serve(application: Application, **settings: Any) -> Running:
            return await servers.enter_async_context(way(application, settings))

        yield serve
