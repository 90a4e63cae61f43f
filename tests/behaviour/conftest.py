"""The server under test.

A test passes its application (a function that registers handlers) to `serve`, and talks to the result as a client.
The handlers report what they see through `note`. A test therefore does not depend on the process in which the server
runs, and is run once for each way of serving: in this process, the same over TLS or a Unix socket, and in processes
with one worker or several.

A test of an ASGI application passes a function that makes it from its `note` to `serve_app`.

Tests about the serving process itself use `serve_here`, or a `Server` of their own.
"""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from application import Application, nothing
from asgi_application import MakeApp
from embedded import serve_embedded
from multi_process import serve_in_processes
from over_tls import serve_over_tls
from over_unix import serve_over_unix
from running import Running, Serve, ServeApp

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


@pytest.fixture
def serve_app(serve: Serve) -> ServeApp:
    """Servers of ASGI applications in each way of serving."""
    return serving_apps(serve)


@pytest.fixture
def serve_app_here(serve_here: Serve) -> ServeApp:
    """Servers of ASGI applications in this process."""
    return serving_apps(serve_here)


def serving_apps(serve: Serve) -> ServeApp:
    async def serve_app(app: MakeApp, application: Application = nothing, **settings: Any) -> Running:
        return await serve(application, **{"app": app, "lifespan": "off", **settings})

    return serve_app


@asynccontextmanager
async def serving(way: Way) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as servers:

        async def serve(application: Application, **settings: Any) -> Running:
            return await servers.enter_async_context(way(application, settings))

        yield serve
