"""The echo example, used as a person would: a real browser, the example as a process of its own."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect
from programs import EXAMPLES, Program, running

EXAMPLE = EXAMPLES / "echo"
APP = str(EXAMPLE / "app.py")
GREETING = "你好,WebSocket!"
ANSWER = "this is server"


@pytest.fixture
async def example() -> AsyncIterator[Program]:
    async with running(APP) as program:
        yield program


async def join(page: Page, nickname: str) -> None:
    """Give the nickname by keyboard; the cursor has to be where it is needed, before and after."""
    await expect(page.get_by_role("dialog", name="What is your nickname?")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Nickname")).to_be_focused()
    await page.keyboard.type(nickname)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()


async def say(page: Page, text: str) -> None:
    await expect(page.get_by_role("status")).to_have_text("Connected")
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


async def expect_log(page: Page, *entries: str) -> None:
    await expect(page.get_by_role("log").get_by_role("listitem")).to_have_text(entries, use_inner_text=True)


async def test_a_person_says_hello_and_is_answered(page: Page, example: Program) -> None:
    async with page.expect_console_message(lambda message: "is open" in message.text):
        await page.goto(example.url)
    await join(page, "Ada")
    await say(page, GREETING)
    await expect_log(page, f"You Ada: {GREETING}", f"Server {ANSWER}")
    await expect(page.get_by_role("textbox", name="Message")).to_have_value("")


async def test_the_page_works_opened_as_a_file(page: Page, example: Program) -> None:
    await page.goto(f"{(EXAMPLE / 'websocket_client.html').as_uri()}?port={example.port}")
    await join(page, "Ada")
    await say(page, GREETING)
    await expect_log(page, f"You Ada: {GREETING}", f"Server {ANSWER}")


async def test_markup_in_a_nickname_and_a_message_stays_text(page: Page, example: Program) -> None:
    markup = "<img src=x onerror=document.title=1>"
    await page.goto(example.url)
    await join(page, markup)
    await say(page, markup)
    await expect_log(page, f"You {markup}: {markup}", f"Server {ANSWER}")
    await expect(page.get_by_role("log").locator("img")).to_have_count(0)
    await expect(page).to_have_title("Hubbub echo")


async def test_escape_instead_of_a_nickname_makes_a_guest(page: Page, example: Program) -> None:
    await page.goto(example.url)
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    await say(page, GREETING)
    await expect_log(page, f"You Guest: {GREETING}", f"Server {ANSWER}")


async def test_a_stopped_server_is_told_and_a_restarted_one_found_again(page: Page) -> None:
    async with running(APP) as example:
        await page.goto(example.url)
        await join(page, "Ada")
        await expect(page.get_by_role("status")).to_have_text("Connected")
    await expect(page.get_by_role("status")).to_have_text("Not connected")
    await expect(page.get_by_role("alert")).to_contain_text("Start the server again")

    async with running(APP, port=example.port):
        await page.get_by_role("button", name="Connect again").click()
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
        await say(page, GREETING)
        await expect_log(page, f"You Ada: {GREETING}", f"Server {ANSWER}")
