"""A client for server-sent events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from as_process import Running


@asynccontextmanager
async def events(running: Running, path: str) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    """Ask for a stream; yield its events, each with its type and its data, and leave at the end of the block."""
    async with (
        httpx2.AsyncClient(trust_env=False) as client,
        client.stream("GET", f"http://127.0.0.1:{running.port}{path}") as answer,
    ):
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
        yield _events(answer.aiter_lines())


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    event, data = "message", list[str]()
    async for line in lines:
        name, _, value = line.partition(":")
        match name:
            case "event":
                event = value.strip()
            case "data":
                data.append(value.removeprefix(" "))
            case "" if not line and data:
                yield event, "\n".join(data)
                event, data = "message", []
