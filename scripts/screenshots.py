"""Take the screenshots of the chat for the documentation: phone and desktop, light and dark.

Runs `hubbub demo` with two workers, lets some people chat, and takes the screenshots as one of them sees the page.
"""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, Page, async_playwright, expect
from websockets.asyncio.client import ClientConnection, connect

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
ROOM = "garden"
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

# The speakers and their messages; the page is Mira's.
CONVERSATION = [
    ("Jonas", "Hello everybody! Who waters the tomatoes tomorrow?"),
    ("Mira", "I can, after lunch 🍅"),
    ("小雨", "谢谢!我昨天已经把黄瓜浇好了。"),
    ("小雨", "明天再来看看。"),
    ("ليلى", "مرحبا! سأحضر معي شتلات النعناع والريحان."),
    (
        "Jonas",
        "Perfect. The beans need a new trellis as well: the wind has torn the old one down, and they are "
        "growing along the fence. There is wood in the shed.",
    ),
    ("Mira", "I will bring screws and the small saw."),
    ("Mira", "See you at two!"),
    ("ليلى", "🌱🌻"),
]
TYPING = "Jonas"


@asynccontextmanager
async def running_chat() -> AsyncIterator[str]:
    """Run `hubbub demo` until the end of the block; yields the port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hubbub", "demo", "--port", "0", "--workers", "2"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert address, f"the demo printed {line!r} instead of its address"
        yield address[1]
    finally:
        process.terminate()
        await process.wait()


async def send(person: ClientConnection, **message: object) -> None:
    await person.send(json.dumps(message))


async def open_chat(browser: Browser, port: str, width: int, height: int, scheme: Literal["light", "dark"]) -> Page:
    page = await browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
        device_scale_factor=1.5,
    )
    await page.goto(f"http://127.0.0.1:{port}/#{ROOM}")
    await page.get_by_role("textbox", name="Nickname").fill("Mira")
    return page


async def hold_conversation(page: Page, people: dict[str, ClientConnection]) -> None:
    messages = page.get_by_role("log").get_by_role("listitem").filter(has_not_text=re.compile("joined"))
    for number, (name, text) in enumerate(CONVERSATION):
        if name in people:
            await send(people[name], type="say", id=str(number), text=text)
        else:
            await page.get_by_role("textbox", name="Message").fill(text)
            await page.keyboard.press("Enter")
        await expect(messages).to_have_count(number + 1)
        await expect(messages.last).to_contain_text(text)
        # Until the server confirms the message, the page shows other people's messages above it.
        await expect(page.get_by_text("Waiting to be sent", exact=True)).to_have_count(0)
    await send(people[TYPING], type="typing")
    await expect(page.get_by_text(f"{TYPING} is typing")).to_be_visible()


async def take_pictures(browser: Browser, device: str, scheme: Literal["light", "dark"]) -> None:
    async with running_chat() as port, AsyncExitStack() as stack:
        page = await open_chat(browser, port, *SIZES[device], scheme)
        await page.get_by_role("textbox", name="Nickname").press("Enter")
        await expect(page.get_by_text("Only you are here")).to_be_visible()
        people: dict[str, ClientConnection] = {}
        for name in dict.fromkeys(name for name, _ in CONVERSATION if name != "Mira"):
            people[name] = await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/chat"))
            await send(people[name], type="join", room=ROOM, name=name, back=False, since=None)
            await expect(page.get_by_role("log")).to_contain_text(f"{name} joined")
        await hold_conversation(page, people)
        await expect(page.get_by_text("4 people are here")).to_be_visible()
        await page.screenshot(path=IMAGES / f"chat-{device}-{scheme}.png")
        await page.close()


async def main() -> None:
    """Take all pictures."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("The pictures need Chromium on the PATH.")
    # A busy machine may need longer than the default of 5 s.
    expect.set_options(timeout=20_000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for device in SIZES:
            for scheme in SCHEMES:
                await take_pictures(browser, device, scheme)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
