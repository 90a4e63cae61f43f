"""The notifications in a FastAPI application, with both programs running as its users would run them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Locator, Page, expect
from programs import EXAMPLES, Program, running

from hubbub.testing import connected
from ports import free_port

FOLDER = EXAMPLES / "notifications"
PASSWORDS = {"ada": "engine", "grace": "compiler"}
MARKUP = "<img src=x onerror=document.title=1> 你好"

# Installing a browser may take longer than a test's timeout.
pytestmark = pytest.mark.timeout(90, func_only=True)


@dataclass
class Site:
    """The two programs, and what they have to agree on."""

    live: Program
    port: int
    environ: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def post(self, path: str, body: object, headers: dict[str, str]) -> tuple[int, str]:
        """Post to the API, and return the status and the cookie that the answer sets."""
        return await asyncio.to_thread(self._post, path, body, headers)

    def _post(self, path: str, body: object, headers: dict[str, str]) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": "application/json", **headers}
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, response.getheader("Set-Cookie", "").partition(";")[0]

    async def session(self, name: str) -> dict[str, str]:
        """Log in, and return the header that the browser would send from then on."""
        login = {"name": name, "password": PASSWORDS[name]}
        status, cookie = await self.post("/login", login, {})
        assert status == 204
        return {"Cookie": cookie}

    def listening(self, headers: dict[str, str]) -> Any:
        return connected(f"ws://127.0.0.1:{self.live.port}", timeout=20, additional_headers=headers)


@asynccontextmanager
async def running_live(environ: dict[str, str], port: int = 0) -> AsyncIterator[Program]:
    async with running(str(FOLDER / "live.py"), port=port, environ=environ) as live:
        yield live


@asynccontextmanager
async def running_api(live: Program, environ: dict[str, str]) -> AsyncIterator[Site]:
    """Run the FastAPI application, and wait until it listens."""
    site = Site(live, int(environ["PORT"]), environ)
    async with running(str(FOLDER / "app.py"), port=live.port, environ=environ):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        yield site


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    port = free_port()
    return {
        "PORT": str(port),
        "HUBBUB_ORIGINS": f"http://127.0.0.1:{port}",
        "HUBBUB_WORKERS": "2",
        "NOTIFICATIONS_DATABASE": str(tmp_path / "notifications.sqlite"),
    }


@pytest.fixture
async def site(environ: dict[str, str]) -> AsyncIterator[Site]:
    async with running_live(environ) as live, running_api(live, environ) as site:
        yield site


async def logged_in(page: Page, site: Site, name: str) -> Page:
    """Log in, in a browser context of its own."""
    browser = page.context.browser
    assert browser is not None
    page = await (await browser.new_context()).new_page()
    await page.goto(site.url)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORDS[name])
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("status")).to_have_text(f"You are {name}")
    return page


async def another_tab(context: BrowserContext, site: Site, name: str) -> Page:
    tab = await context.new_page()
    await tab.goto(site.url)
    await expect(tab.get_by_role("status")).to_have_text(f"You are {name}")
    return tab


async def send(page: Page, to: str, text: str) -> None:
    await page.get_by_label("Send a notification to").select_option(to)
    await page.get_by_label("Text").fill(text)
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_label("Text")).to_have_value("")


def unread(page: Page) -> Locator:
    return page.locator("#unread").get_by_role("listitem")


async def test_all_tabs_of_a_user_show_the_same(page: Page, site: Site) -> None:
    ada, grace = await logged_in(page, site, "ada"), await logged_in(page, site, "grace")
    tabs = [grace, await another_tab(grace.context, site, "grace")]
    await send(ada, "grace", MARKUP)
    await send(ada, "grace", "lunch?")
    for tab in tabs:
        await expect(unread(tab)).to_have_count(2)
        await expect(unread(tab).first).to_contain_text("lunch?")
        await expect(unread(tab).last).to_contain_text(MARKUP)
        await expect(tab).to_have_title("(2) Notifications")
    await unread(tabs[0]).first.get_by_role("button", name="Mark as read").click()
    for tab in tabs:
        await expect(unread(tab)).to_have_count(1)
        await tab.reload()
        await expect(unread(tab)).to_have_count(1)
    await expect(unread(ada)).to_have_count(0)


async def test_only_the_right_password_logs_in(page: Page, site: Site) -> None:
    await page.goto(site.url)
    await page.get_by_label("Name").fill("ada")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    ada = await logged_in(page, site, "ada")
    await ada.get_by_role("button", name="Log out").click()
    await expect(ada.get_by_role("button", name="Log in")).to_be_visible()


async def test_what_is_unread_outlives_workers_and_both_programs(page: Page, environ: dict[str, str]) -> None:
    async with running_live(environ) as live, running_api(live, environ) as site:
        ada, grace = await logged_in(page, site, "ada"), await logged_in(page, site, "grace")
        await send(ada, "grace", "one")
        await expect(unread(grace)).to_have_count(1)
        for worker_id in (0, 1):
            live.kill_worker(worker_id)
        await send(ada, "grace", "two")
        await expect(unread(grace)).to_have_count(2)
        # Without Hubbub, the API goes on storing.
        await live.kill()
        await send(ada, "grace", "three")
    async with running_live(environ, port=live.port) as live, running_api(live, environ):
        await expect(unread(grace)).to_have_count(3)
        await send(ada, "grace", "four")
        await expect(unread(grace)).to_have_count(4)


async def test_the_api_refuses_what_it_cannot_use(site: Site) -> None:
    headers = await site.session("ada")
    note = {"to": "grace", "text": "hello"}
    cases: list[tuple[str, object, dict[str, str], int]] = [
        ("/notifications", note, {}, 401),
        ("/notifications", note, {"Cookie": "session=x.y"}, 401),
        ("/notifications", note | {"to": "nobody"}, headers, 404),
        ("/notifications", note | {"text": ""}, headers, 422),
        ("/notifications", note | {"text": "x" * 501}, headers, 422),
        ("/notifications", note | {"text": 5}, headers, 422),
        ("/notifications", b"no JSON", headers, 422),
        ("/notifications/1/read", {}, {}, 401),
        ("/notifications/0/read", {}, headers, 422),
        (f"/notifications/{2**63}/read", {}, headers, 422),
        ("/notifications/x/read", {}, headers, 422),
        ("/login", {"name": "ada", "password": "é"}, {}, 403),
        ("/login", {"name": "nobody", "password": "engine"}, {}, 403),
        ("/login", {"name": ["ada"]}, {}, 422),
    ]
    async with site.listening(await site.session("grace")) as grace:
        assert await grace.receive_json() == {"unread": []}
        for path, body, sent, status in cases:
            assert await site.post(path, body, sent) == (status, ""), (path, body)
        assert (await site.post("/notifications", note, headers))[0] == 201
        assert (await grace.receive_json())["new"]["text"] == "hello"


async def test_nobody_reads_or_removes_what_is_for_others(site: Site) -> None:
    ada, grace = await site.session("ada"), await site.session("grace")
    async with site.listening(ada) as of_ada, site.listening(grace) as of_grace:
        assert await of_ada.receive_json() == await of_grace.receive_json() == {"unread": []}
        await site.post("/notifications", {"to": "grace", "text": "hello"}, ada)
        number = (await of_grace.receive_json())["new"]["id"]
        await site.post(f"/notifications/{number}/read", {}, ada)
        assert await of_ada.receive_json() == {"read": number}
    async with site.listening(grace) as of_grace:
        assert [each["id"] for each in (await of_grace.receive_json())["unread"]] == [number]


async def test_a_websocket_needs_a_session_and_only_listens(site: Site) -> None:
    content, _, signature = (await site.session("ada"))["Cookie"].removeprefix("session=").partition(".")
    for value in ("", ".", "é.é", content, f"{content}.{signature[:-1]}", f"{content}=.{signature}"):
        async with site.listening({"Cookie": f"session={value}"}) as client:
            assert await client.close_code() == 4401
    headers = await site.session("ada")
    async with site.listening(headers) as client, site.listening(headers) as bad:
        assert await client.receive_json() == await bad.receive_json() == {"unread": []}
        await bad.send("[" * 1000)
        await bad.send("x" * 1025)
        assert await bad.close_code() == 1009
        await site.post("/notifications", {"to": "ada", "text": "still here"}, headers)
        assert (await client.receive_json())["new"]["text"] == "still here"


async def test_the_last_100_are_kept(site: Site) -> None:
    ada = await site.session("ada")
    for number in range(101):
        assert (await site.post("/notifications", {"to": "grace", "text": str(number)}, ada))[0] == 201
    async with site.listening(await site.session("grace")) as client:
        assert [each["text"] for each in (await client.receive_json())["unread"]] == [str(n) for n in range(1, 101)]
