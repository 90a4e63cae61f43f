"""The examples, as a person would try them: each as a process of its own, with its page in a real browser."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, expect
from programs import EXAMPLES, Program, running


@asynccontextmanager
async def opened(page: Page, example: str) -> AsyncIterator[Program]:
    """Run an example, and open its page."""
    async with running(str(EXAMPLES / example / "app.py")) as program:
        await page.goto(program.url)
        yield program


async def push(program: Program, *arguments: str) -> str:
    """Run `push.py` beside the server, and return what it prints."""
    script = str(EXAMPLES / "push_from_outside" / "push.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, script, "--port", str(program.port), *arguments), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


async def test_the_clock_is_pushed_without_being_asked(page: Page) -> None:
    async with opened(page, "clock"):
        clock = page.get_by_role("timer")
        await expect(clock).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
        seen = await clock.text_content()
        assert seen is not None
        await expect(clock).not_to_have_text(seen)
        await expect(page.get_by_role("status")).to_have_text("The server’s time")


async def test_a_script_pushes_to_all_pages_and_to_one(page: Page) -> None:
    async with opened(page, "push_from_outside") as program:
        news = page.get_by_role("log").get_by_role("listitem").locator("span")
        await expect(news).to_have_text(re.compile(r"You are connection \d+"))
        match = re.search(r"\d+", await news.text_content() or "")
        assert match
        assert await push(program, "茶好了 <b>now</b>") == "sent to 1 pages"
        await expect(news.first).to_have_text("茶好了 <b>now</b>")
        assert await push(program, "only for you", "--fd", match[0]) == "sent"
        await expect(news.first).to_have_text("only for you")
        await expect(news).to_have_count(3)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/app.py")))
def test_an_example_is_short(name: str) -> None:
    for path in (EXAMPLES / name).glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 60
