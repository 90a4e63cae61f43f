"""A server behind each of the proxies of docs/deploy.md."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proxied import Behind, Proxied, serving
from proxies import Installed, caddy, nginx

PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(params=PROXIES)
async def behind(request: pytest.FixtureRequest, installed: Installed, tmp_path: Path) -> AsyncIterator[Behind]:
    """Serve behind each of the proxies."""
    async with serving_behind(request.param, installed, tmp_path) as serve:
        yield serve


@pytest.fixture
async def behind_nginx(installed: Installed, tmp_path: Path) -> AsyncIterator[Behind]:
    """Serve behind nginx, which speaks TLS too."""
    async with serving_behind("nginx", installed, tmp_path) as serve:
        yield serve


@asynccontextmanager
async def serving_behind(proxy: str, installed: Installed, directory: Path) -> AsyncIterator[Behind]:
    front_of = partial(PROXIES[proxy], installed, directory)
    async with AsyncExitStack() as stack:

        async def serve(**settings: Any) -> Proxied:
            return await stack.enter_async_context(serving(front_of, settings))

        yield serve
