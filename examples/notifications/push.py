"""Pushing from FastAPI, through the Hubbub server that runs beside it."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from hubbub import AsyncPublisher

LIVE_PORT = int(os.environ.get("HUBBUB_PORT", "9501"))
hub = AsyncPublisher(port=LIVE_PORT)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    with contextlib.suppress(ConnectionError):
        await hub.close()


async def tell(user: str, event: dict[str, Any]) -> None:
    """Push to all tabs of a user. Without Hubbub, pages get what is stored when they connect to it again."""
    try:
        await hub.publish(f"user {user}", event)
    except (ConnectionError, TimeoutError) as error:
        logging.getLogger("uvicorn.error").warning("not pushed: %s", error)
