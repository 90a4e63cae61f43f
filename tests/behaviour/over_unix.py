"""A server that listens on a Unix socket."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from application import Application
from embedded import serve_embedded
from running import Running


@contextlib.asynccontextmanager
async def serve_over_unix(application: Application, settings: dict[str, Any]) -> AsyncIterator[Running]:
    """Serve in this process."""
    # Not pytest's directory, whose path is too long for the address of a socket.
    with tempfile.TemporaryDirectory() as directory:
        uds = f"{directory}/socket"
        async with serve_embedded(application, {"uds": uds} | settings) as running:
            running.uds = uds
            yield running
