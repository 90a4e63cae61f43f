"""The programs of docs/start.md, and its page in a real browser."""

import json

import pytest
from as_process import Running, output_of, serving
from playwright.async_api import Page, expect
from snippets import Snippet, shows, snippets_of

from hubbub import Publisher

PAGE = "docs/start.md"
FILES = {"index.html": next(block.text for block in snippets_of(PAGE) if block.language == "html")}

# Installing a browser may take longer than a test is given.
pytestmark = pytest.mark.timeout(60, func_only=True)


@shows(PAGE, "A server that answers")
async def test_the_server_answers(snippets: list[Snippet]) -> None:
    async with serving(*snippets) as running:
        assert f"listening on 127.0.0.1 port {running.port}" in "\n".join(running.lines)
        async with running.connect("/?name=Ada") as client:
            await running.printed("Ada connected from 127.0.0.1")
            await client.send("hello")
            assert await client.recv() == "Ada, you said: hello"
        await running.printed("Ada disconnected")


async def visit(running: Running, page: Page, name: str) -> None:
    await page.goto(f"http://127.0.0.1:{running.port}/?name={name}")
    await expect(page.locator("li")).to_contain_text([f"{name} joined"])


@shows(PAGE, "A page, and a room")
async def test_what_is_said_in_one_window_is_seen_in_the_other(snippets: list[Snippet], page: Page) -> None:
    assert page.context.browser
    other = await page.context.browser.new_page()
    async with serving(*snippets, files=FILES) as running:
        await visit(running, page, "Ada")
        await visit(running, other, "Grace")
        await page.get_by_placeholder("Say something").fill("<b>hello</b>")
        await page.keyboard.press("Enter")
        for window in (page, other):
            await expect(window.locator("li").first).to_contain_text("Ada says: <b>hello</b>")
        await other.close()
        await expect(page.locator("li").first).to_contain_text("Grace left")


@shows(PAGE, "A page, and a room")
@shows(PAGE, "Push from anywhere")
async def test_another_program_reaches_the_room_and_each_connection(snippets: list[Snippet]) -> None:
    room, publisher = snippets
    async with serving(room, files=FILES) as running, running.connect("/?name=Ada") as client:
        assert json.loads(await client.recv()) == {"name": "Ada", "text": "joined"}
        with Publisher(port=running.port) as hub:
            (fd,) = hub.connections()
        await output_of(publisher, replacing={"9501": str(running.port)})
        assert json.loads(await client.recv()) == {"name": "The kitchen", "text": "has tea"}
        assert json.loads(await client.recv()) == {"name": "You", "text": f"are connection {fd}"}


@shows(PAGE, "Waiting, timers and reloading")
async def test_a_handler_waits_while_the_clock_ticks(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ={"HUBBUB_WORKERS": "2"}) as running, running.connect() as client:
        await client.send("a question")
        received = [await client.recv(), await client.recv()]
        received.sort(key=lambda text: ":" in str(text))
        assert received[0] == "answered without holding anybody up"
        assert str(received[1]).count(":") == 2
