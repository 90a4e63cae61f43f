"""The program of docs/with/litestar.md."""

from snippets import Snippet, shows
from with_framework import rooms_work, served


@shows("docs/with/litestar.md", "Use with Litestar")
async def test_a_room_and_a_route_that_sends_to_it(snippets: list[Snippet]) -> None:
    async with served(*snippets) as running:
        await rooms_work(running, sends_text=False)
