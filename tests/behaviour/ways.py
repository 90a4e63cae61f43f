"""The ways of serving, and how tests get servers from them."""

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

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


@asynccontextmanager
async def serving(way: Way) -> AsyncIterator[Serve]:
    """Servers that end together."""
    async with AsyncExitStack() as servers:

        async def serve(application: Application, **settings: Any) -> Running:
            return await servers.enter_async_context(way(application, settings))

        yield serve


def serving_apps(serve: Serve) -> ServeApp:
    """Return what serves ASGI applications in the same way."""

    async def serve_app(app: MakeApp, application: Application = nothing, **settings: Any) -> Running:
        return await serve(application, **{"app": app, "lifespan": "off", **settings})

    return serve_app
