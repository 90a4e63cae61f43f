"""The dashboard, as people use it: two workers, of which one measures for all pages."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect
from programs import EXAMPLES, Program, running

from apart import check_apart, runs_apart
from hubbub import AsyncPublisher
from hubbub.testing import Client, connected

APP = str(EXAMPLES / "dashboard" / "app.py")
TITLES = ["Load of the machine", "Open pages", "Messages a second", "Bytes a second"]
# Two points at least make a line.
LINE = re.compile(r"^\S+,\S+ \S+,\S+")

# Installing a browser may take longer than a test's timeout.
pytestmark = pytest.mark.timeout(90, func_only=True)


@pytest.fixture
async def dashboard() -> AsyncIterator[Program]:
    async with running(APP, environ={"HUBBUB_WORKERS": "2"}) as program:
        yield program


def chart(page: Page, title: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=title))


async def points(page: Page) -> int:
    line = await chart(page, "Open pages").locator("polyline").get_attribute("points")
    return len((line or "").split())


async def test_the_page_draws_what_is_measured(page: Page, dashboard: Program) -> None:
    await page.goto(dashboard.url)
    await expect(page.get_by_role("status")).to_have_text("Live")
    await expect(page.get_by_role("heading", level=2)).to_have_text(TITLES)
    for title in TITLES:
        await expect(chart(page, title).locator(".value")).to_have_text(re.compile(r"^[\d,.]+$"))
        await expect(chart(page, title).locator("polyline")).to_have_attribute("points", LINE)
    await expect(chart(page, "Load").locator(".caption")).to_have_text(re.compile(r"^At \d+, all cores are busy$"))


@runs_apart
async def test_pages_of_both_workers_get_the_figures_and_the_last_two_minutes(page: Page, dashboard: Program) -> None:
    url = f"ws://127.0.0.1:{dashboard.port}"
    async with connected(url, timeout=20) as one, connected(url, timeout=20) as two:
        async with AsyncPublisher(port=dashboard.port) as publisher:
            infos = [await publisher.info(fd) for fd in await publisher.connections()]
        check_apart(infos)
        figures = [await next_figure(client) for client in (one, two, one)]
        # The next page, whichever worker has it, begins with all of them.
        for _ in range(2):
            async with connected(url, timeout=20) as late:
                known = [await next_figure(late) for _ in range(len({figure["time"] for figure in figures}))]
                while known[-1]["time"] < max(figure["time"] for figure in figures):
                    known.append(await next_figure(late))
            assert all(figure in known for figure in figures)
            assert known == sorted(known, key=lambda figure: float(figure["time"]))
    await page.goto(dashboard.url)
    await expect(chart(page, "Open pages").locator("polyline")).to_have_attribute("points", LINE)


async def test_what_was_measured_outlives_the_worker_that_measured(page: Page, dashboard: Program) -> None:
    async with connected(f"ws://127.0.0.1:{dashboard.port}", timeout=20) as client:
        figures = [await next_figure(client) for _ in range(2)]
    dashboard.kill_worker(0)
    async with connected(f"ws://127.0.0.1:{dashboard.port}", timeout=20) as client:
        known = [await next_figure(client) for _ in range(3)]
        assert all(figure in known for figure in figures)
        # Another worker goes on.
        while (await next_figure(client))["time"] <= known[-1]["time"]:
            pass


async def test_a_killed_worker_stops_the_figures_only_for_a_moment(page: Page, dashboard: Program) -> None:
    await page.goto(dashboard.url)
    await expect(chart(page, "Open pages").locator("polyline")).to_have_attribute("points", LINE)
    for worker_id in (0, 1):
        before = await points(page)
        dashboard.kill_worker(worker_id)
        # What the page has drawn stays, and more is added.
        await page.wait_for_function(
            "(count) => document.querySelectorAll('polyline')[1].getAttribute('points').split(' ').length > count + 1",
            arg=before,
        )
    await expect(page.get_by_role("status")).to_have_text("Live")


async def next_figure(client: Client) -> dict[str, Any]:
    while True:
        message = await client.receive_json()
        if "time" in message:
            return dict(message)


async def test_a_page_that_does_not_read_misses_figures_and_costs_the_others_nothing(dashboard: Program) -> None:
    url = f"ws://127.0.0.1:{dashboard.port}"
    padding = json.dumps({"padding": "x" * 32_000})
    async with AsyncPublisher(port=dashboard.port) as publisher, connected(url, timeout=20) as slow:
        (slow_fd,) = await publisher.connections()
        async with connected(url, timeout=20) as reading:
            # The client reads ahead a little, and the system's buffers hold some megabytes.
            while not (await publisher.stats())["messages_dropped"]:
                for _ in range(20):
                    await publisher.push(slow_fd, padding)
            assert (await next_figure(reading))["messages_dropped"] >= 0
            figure = await next_figure(reading)
            assert await publisher.info(slow_fd) is not None
            # Having caught up, it gets what is measured now.
            while (await next_figure(slow))["time"] < figure["time"]:
                pass
