"""A page in a real Chromium: the system's own, as Playwright brings none that this project could rely on."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# No sandbox, because CI runs as root; and nothing that would ask the network for anything but our page.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Playwright gives an expectation 5 s to come true, which a busy machine may need for its first page alone.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, installed first where that is possible."""
    path = find_chromium() or install_chromium()
    if path:
        return path
    reason = "NO BROWSER TEST WAS RUN: there is no Chromium on the PATH, and it could not be installed by apt-get"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def install_chromium() -> str | None:
    if os.geteuid() == 0 and shutil.which("apt-get"):
        without_questions = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update"], ["install", "--yes", "chromium"]):
            subprocess.run(
                ["apt-get", "--quiet", *step],
                env=without_questions,
                stdout=subprocess.DEVNULL,
                timeout=600,
                check=False,
            )
    return find_chromium()


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    """An empty page of a browser that is this test's own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield await browser.new_page()
        await browser.close()
