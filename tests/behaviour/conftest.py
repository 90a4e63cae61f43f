"""The server under test.

A test passes its application (a function that registers handlers) to `serve`, and talks to the result as a client.
The handlers report what they see through `note`. A test therefore does not depend on the process in which the server
runs, and is run once for each way of serving: in this process, the same over TLS or a Unix socket, and in processes
with one worker or several.

Tests about the serving process itself use `serve_here`, or a `Server` of their own.
"""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from application import Application
from embedded import serve_embedded
from multi_process import serve_in_processes
from over_tls import serve_over_tls
from over_unix import serve_over_unix
from running import Running, Serve

Way = Callable[[Application, dict[str, Any]], AbstractAsyncContextManager[Running]]

WAYS: dict[str, Way] = {
    "embedded": serve_embedded,
    "tls": serve_over_tls,
    "unix": serve_over_unix,
    "workers1": functools.partial(serve_in_processes, 1),
    "workers3": functools.partial(serve_in_processes, 3),
}


@pytest.fixture(params=WAYS)
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """Servers in each way of serving."""
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
