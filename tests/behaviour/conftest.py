"""The server under test.

A test passes its application (a function that registers handlers) to `serve`, and talks to the result as a client.
The handlers report what they see through `note`. A test therefore does not depend on the process in which the server
runs, and is run once for each way of serving: in this process, the same over TLS or a Unix socket, and in processes
with one worker or several.

A test of an ASGI application passes a function that makes it from its `note` to `serve_app`.

Tests about the serving process itself use `serve_here`, or a `Server` of their own.
"""

from collections.abc import AsyncIterator

import pytest
from embedded import serve_embedded
from running import Serve, ServeApp
from ways import WAYS, serving, serving_apps


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
