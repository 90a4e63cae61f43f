"""The programs of docs/with/fastapi.md."""

import json
import re

import pytest
from playwright.async_api import Page, expect
from snippets import Snippet, shows
from with_framework import OF_SERVER, PROGRAM, ask, check_both_workers_have_some, post, served, until_subscribed

from apart import runs_apart

PAGE = "docs/with/fastapi.md"

# A page that greets the room, and shows what is said there. The first message is its own id.
IN_THE_ROOM = """
    const socket = new WebSocket(`ws://${location.host}/rooms/garden`);
    const said = [];
    socket.onmessage = ({ data }) => {
        if (said.push(data) === 1) socket.send("hello from the page");
        document.querySelector("#said").textContent = said.slice(1).join(", ");
    };
"""


@shows(PAGE, "A room")
@runs_apart
async def test_a_room_and_routes_that_send_to_it(snippets: list[Snippet]) -> None:
    async with (
        served(*snippets) as running,
        running.connect("/rooms/garden") as ada,
        running.connect("/rooms/garden") as grace,
        running.connect("/rooms/kitchen") as edsger,
    ):
        fds = [json.loads(await client.recv())["fd"] for client in (ada, grace, edsger)]
        check_both_workers_have_some(running)
        await ada.send("hello")
        assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
        assert await post(running, "/rooms/garden", "tea is ready") == 200
        assert [await ada.recv(), await grace.recv()] == ["tea is ready", "tea is ready"]
        assert await post(running, f"/clients/{fds[2]}", "for you") == 200
        assert await edsger.recv() == "for you"
        await edsger.close()
        assert await post(running, f"/clients/{fds[2]}", "too late") == 404
        status, body = await ask(running, "GET", "/openapi.json")
        assert (status, list(json.loads(body)["paths"])) == (200, ["/rooms/{room}", "/clients/{fd}"])


@shows(PAGE, "A room")
async def test_a_browser_in_the_room(snippets: list[Snippet], page: Page) -> None:
    async with served(*snippets) as running, running.connect("/rooms/garden") as ada:
        await ada.recv()
        await page.goto(f"http://127.0.0.1:{running.port}/openapi.json")
        await page.set_content('<p id="said"></p>')
        await page.add_script_tag(content=IN_THE_ROOM)
        assert await ada.recv() == "hello from the page"
        await ada.send("hello, page")
        await expect(page.locator("#said")).to_have_text("hello from the page, hello, page")


@shows(PAGE, "Start and end")
@runs_apart
async def test_the_time_is_told(snippets: list[Snippet]) -> None:
    async with served(*snippets) as running, running.connect("/time") as one, running.connect("/time") as other:
        check_both_workers_have_some(running)
        for client in (one, other):
            assert re.fullmatch(r"\d\d:\d\d:\d\d", str(await client.recv()))
    # Two processes may print at the same time, and then their lines are one.
    printed = "\n".join(running.lines)
    assert [printed.count(f"worker {number} ends") for number in range(2)] == [1, 1]


@shows(PAGE, "Start and end")
async def test_only_one_worker_tells_the_time(snippets: list[Snippet]) -> None:
    its_number = {'time.strftime("%H:%M:%S")': "str(current_server().worker_id)", "tick(1,": "tick(0.1,"}
    async with served(*snippets, replacing=its_number) as running, running.connect("/time") as client:
        assert [await client.recv() for _ in range(5)] == ["0"] * 5


@pytest.mark.parametrize("arguments", [PROGRAM, OF_SERVER])
@shows(PAGE, "Settings, and callbacks beside the application")
@runs_apart
async def test_an_endpoint_beside_the_application(snippets: list[Snippet], arguments: tuple[str, ...]) -> None:
    async with (
        served(*snippets, arguments=arguments) as running,
        running.connect("/live/garden") as ada,
        running.connect("/live/garden") as grace,
    ):
        check_both_workers_have_some(running)
        await until_subscribed(running, "room garden", 2)
        await ada.send("hello")
        assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
        assert await post(running, "/rooms/garden", "tea is ready") == 200
        assert [await ada.recv(), await grace.recv()] == ["tea is ready", "tea is ready"]
