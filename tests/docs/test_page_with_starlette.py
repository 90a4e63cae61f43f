"""The programs of docs/with/starlette.md."""

import asyncio
import re

from listening import events
from snippets import Snippet, shows
from with_framework import HUBBUB_RUN, rooms_work, served

PAGE = "docs/with/starlette.md"


@shows(PAGE, "A room")
async def test_a_room_and_a_route_that_sends_to_it(snippets: list[Snippet]) -> None:
    async with served(*snippets) as running:
        await rooms_work(running)


@shows(PAGE, "Server-sent events")
async def test_a_stream_of_events_ends_when_its_client_leaves(snippets: list[Snippet]) -> None:
    async with served(*snippets) as running:
        async with events(running, "/time") as stream:
            for _ in range(2):
                event, data = await anext(stream)
                assert event == "message"
                assert re.fullmatch(r"\d\d:\d\d:\d\d", data)
            assert not any("has left" in line for line in running.lines)
        await running.printed("the client has left")


@shows(PAGE, "Server-sent events")
async def test_a_stream_that_waits_ends_when_its_client_leaves(snippets: list[Snippet]) -> None:
    async with served(*snippets, replacing={"sleep(1)": "Event().wait()"}) as running:
        async with events(running, "/time") as stream:
            await anext(stream)
        await running.printed("the client has left")


@shows(PAGE, "Server-sent events")
async def test_a_stream_of_events_ends_when_the_server_stops(snippets: list[Snippet]) -> None:
    soon = (*HUBBUB_RUN, "--shutdown-timeout", "0.5")
    async with served(*snippets, arguments=soon) as running, events(running, "/time") as stream:
        await anext(stream)
        stopping = asyncio.ensure_future(running.end())
        await running.printed("the client has left")
        await stopping
