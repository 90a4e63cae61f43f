"""The program of docs/with/quart.md."""

from snippets import Snippet, shows
from with_framework import ask, in_different_workers, served


@shows("docs/with/quart.md", "Use with Quart")
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
