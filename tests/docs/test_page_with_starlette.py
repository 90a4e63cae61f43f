"""The programs of docs/with/starlette.md."""

import asyncio
import re

from listening import events
from snippets import Snippet, shows
from with_framework import HUBBUB_RUN, ask, in_different_workers, served

PAGE = "docs/with/starlette.md"


@shows(PAGE, "A room")
async def test_a_room_and_a_route_that_sends_to_it(snippets: list[Snippet]) -> None:
    async with (
        served(*snippets) as running,
        running.connect("/rooms/garden") as ada,
        running.connect("/rooms/garden") as grace,
        running.connect("/rooms/kitchen") as edsger,
    ):
        for client in (ada, grace, edsger):
            assert await client.recv() == "welcome"
        assert in_different_workers(running)
        await ada.send("hello")
        assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
        assert await ask(running, "POST", "/rooms/garden", "tea is ready") == (200, "sent")
        assert [await ada.recv(), await grace.recv()] == ["tea is ready", "tea is ready"]
        assert await ask(running, "POST", "/rooms/kitchen", "for you") == (200, "sent")
        assert await edsger.recv() == "for you"


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
