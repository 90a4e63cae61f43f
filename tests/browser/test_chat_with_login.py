"""The chat with accounts, as people and as hostile clients use it: two workers, which share a database."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.async_api import Locator, Page, expect
from programs import EXAMPLES, Program, running

from apart import check_apart, runs_apart
from hubbub import AsyncPublisher
from hubbub.testing import Client, connected

APP = str(EXAMPLES / "chat_with_login" / "app.py")
PASSWORD = "correct horse"
MARKUP = "<img src=x onerror=document.title=1> 你好"

# Installing a browser may take longer than a test's timeout.
pytestmark = pytest.mark.timeout(90, func_only=True)


@pytest.fixture
def database(tmp_path: Path) -> dict[str, str]:
    return {"CHAT_DATABASE": str(tmp_path / "chat.sqlite"), "HUBBUB_WORKERS": "2"}


@pytest.fixture
async def chat(database: dict[str, str]) -> AsyncIterator[Program]:
    async with running(APP, environ=database) as program:
        yield program


async def log_in(page: Page, url: str, name: str, password: str = PASSWORD) -> None:
    await page.goto(url)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()


async def joined(page: Page, url: str, name: str) -> Page:
    """Log in, in a browser context of its own, and wait until the history is there."""
    browser = page.context.browser
    assert browser is not None
    page = await browser.new_page()
    await log_in(page, url, name)
    await expect(page.get_by_role("status")).to_have_text(f"You are {name}")
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(text)
    await page.keyboard.press("Enter")


def texts(page: Page) -> Locator:
    return page.get_by_role("log").locator("li > div")


async def test_two_people_see_each_other_and_a_reload_keeps_the_history(page: Page, chat: Program) -> None:
    ada, grace = await joined(page, chat.url, "Ada"), await joined(page, chat.url, "Grace")
    await say(ada, MARKUP)
    await expect(texts(grace)).to_have_text([MARKUP])
    await say(grace, "hello Ada")
    for each in (ada, grace):
        await expect(texts(each)).to_have_text([MARKUP, "hello Ada"])
        await each.reload()
        await expect(texts(each)).to_have_text([MARKUP, "hello Ada"])
    items = ada.get_by_role("log").get_by_role("listitem")
    await expect(items.first).to_contain_text(re.compile(r"^You, \d+:\d\d"))
    await expect(items.last).to_contain_text("Grace, ")


async def test_rooms_are_separate(page: Page, chat: Program) -> None:
    ada, grace = await joined(page, chat.url, "Ada"), await joined(page, chat.url, "Grace")
    await say(ada, "in the lobby")
    await expect(texts(grace)).to_have_text(["in the lobby"])
    await ada.get_by_label("Go to another room").fill("tea & 茶")
    await ada.get_by_role("button", name="Go").click()
    await expect(ada.get_by_role("heading")).to_have_text("tea & 茶")
    await expect(ada.get_by_role("status")).to_have_text("You are Ada")
    await expect(texts(ada)).to_have_count(0)
    await say(ada, "in the garden")
    await expect(texts(ada)).to_have_text(["in the garden"])
    await say(grace, "still here")
    await expect(texts(grace)).to_have_text(["in the lobby", "still here"])


async def test_only_the_right_password_logs_in(page: Page, chat: Program) -> None:
    await joined(page, chat.url, "Ada")
    await log_in(page, chat.url, "Ada", "another one")
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.goto(f"{chat.url}chat/lobby")
    # Without a session, the page leads to the form.
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()
    await log_in(page, chat.url, "Ada")
    await expect(page.get_by_role("status")).to_have_text("You are Ada")
    await page.get_by_role("button", name="Log out").click()
    await page.goto(f"{chat.url}chat/lobby")
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()


async def test_a_killed_worker_and_a_restart_lose_no_message(page: Page, database: dict[str, str]) -> None:
    async with running(APP, environ=database) as program:
        port, url = program.port, program.url
        ada, grace = await joined(page, url, "Ada"), await joined(page, url, "Grace")
        await say(ada, "before")
        await expect(texts(grace)).to_have_text(["before"])
        for worker_id in (0, 1):
            program.kill_worker(worker_id)
        # The page may or may not have noticed that its connection is gone.
        await say(ada, "while the workers are away")
        for each in (ada, grace):
            await expect(texts(each)).to_have_text(["before", "while the workers are away"])
        await expect(ada.get_by_text("sending…")).to_have_count(0)
        await program.kill()
        await say(grace, "while there is no server")
    async with running(APP, port=port, environ=database):
        for each in (ada, grace):
            await expect(texts(each)).to_have_text(["before", "while the workers are away", "while there is no server"])


def post(port: int, path: str, body: bytes | str, **headers: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


async def session(port: int, name: str, password: str = PASSWORD) -> dict[str, str]:
    """Log in, and return the header that the browser would send from then on; without a session, an empty one."""
    form = urlencode({"name": name, "password": password})
    response = await asyncio.to_thread(post, port, "/login", form, Content_Type="application/x-www-form-urlencoded")
    assert response.status == 303
    cookie = response.getheader("Set-Cookie", "")
    assert not cookie or "HttpOnly" in cookie
    return {"Cookie": cookie.partition(";")[0]}


def client_of(program: Program, headers: dict[str, str], room: str = "lobby") -> Any:
    return connected(f"ws://127.0.0.1:{program.port}", f"/chat/{room}", timeout=20, additional_headers=headers)


async def says(client: Client, key: str, text: str) -> None:
    await client.send({"key": key, "text": text})


async def test_a_forged_session_is_refused(chat: Program) -> None:
    signed_by_nobody = "WyJBZGEiLCA5OTk5OTk5OTk5XQ==." + "0" * 64
    for value in ("", ".", "é.é", signed_by_nobody, "x" * 4000):
        async with client_of(chat, {"Cookie": f"session={value}"}) as client:
            assert await client.close_code() == 4401


async def test_a_session_is_valid_only_unchanged(chat: Program) -> None:
    headers = await session(chat.port, "Ada")
    content, _, signature = headers["Cookie"].removeprefix("session=").partition(".")
    for changed in (f"{content}.{signature[:-1]}", f"{content[1:]}.{signature}", content, f"{content}=.{signature}"):
        async with client_of(chat, {"Cookie": f"session={changed}"}) as client:
            assert await client.close_code() == 4401
    async with client_of(chat, headers) as client:
        assert await client.receive_json() == {"you": "Ada", "history": []}


async def test_a_bad_name_or_password_makes_no_account(chat: Program) -> None:
    for name in ("", " ", "x" * 33, "<b>", "a\nb", "\0"):
        assert await session(chat.port, name) == {"Cookie": ""}
    for password in ("", "short", "x" * 201):
        assert await session(chat.port, "Ada", password) == {"Cookie": ""}
    # So the name is still free.
    assert await session(chat.port, "Ada") != {"Cookie": ""}


async def test_a_login_that_is_no_form_of_ours_is_refused(chat: Program) -> None:
    form = urlencode({"name": "Ada", "password": PASSWORD})
    kind = "application/x-www-form-urlencoded"
    assert (await asyncio.to_thread(post, chat.port, "/login", "{}", Content_Type="application/json")).status == 400
    assert (await asyncio.to_thread(post, chat.port, "/login", b"name=%ff", Content_Type=kind)).status == 400
    foreign = {"Content_Type": kind, "Sec_Fetch_Site": "cross-site"}
    assert (await asyncio.to_thread(post, chat.port, "/login", form, **foreign)).status == 403


BAD = [
    ("no JSON", 1007),
    ("[" * 16_000, 1007),
    ("null", 4400),
    ('{"key": "1", "text": ""}', 4400),
    ('{"key": "", "text": "hello"}', 4400),
    ('{"key": 1, "text": "hello"}', 4400),
    ('{"key": "1", "text": ["hello"]}', 4400),
    (json.dumps({"key": "1", "text": "x" * 2001}), 4400),
    (json.dumps({"key": "1", "text": "x" * 16_384}), 1009),
]


async def test_a_bad_message_costs_only_its_sender(chat: Program) -> None:
    headers = await session(chat.port, "Ada")
    async with client_of(chat, headers) as good:
        await good.receive_json()
        for number, (message, code) in enumerate(BAD):
            async with client_of(chat, headers) as bad:
                await bad.send(message)
                assert await bad.close_code() == code, message[:100]
            await says(good, str(number), "still here")
            assert (await good.receive_json())["text"] == "still here"


async def test_a_name_of_a_room_is_limited(chat: Program) -> None:
    async with client_of(chat, await session(chat.port, "Ada"), "x" * 41) as client:
        assert await client.close_code() == 4404


async def test_a_flood_does_not_hold_up_others(chat: Program) -> None:
    headers = await session(chat.port, "Ada")
    async with client_of(chat, headers) as flooding, client_of(chat, headers) as good:
        await good.receive_json()
        for number in range(200):
            await says(flooding, str(number), "flood")
        await says(good, "good", "let me through")
        received: list[str] = []
        while not received or received[-1] != "let me through":
            received.append((await good.receive_json())["text"])
        # A pause follows each message of a connection, so most of the flood is still to come.
        assert len(received) < 100
        flooding.connection.transport.abort()


async def test_a_message_that_is_sent_again_is_stored_once(chat: Program) -> None:
    ada, grace = await session(chat.port, "Ada"), await session(chat.port, "Grace")
    async with client_of(chat, ada) as client:
        await client.receive_json()
        for _ in range(2):
            await says(client, "1", "once")
        assert await client.receive_json() == await client.receive_json()
    async with client_of(chat, grace) as client:
        # Keys belong to their authors.
        await says(client, "1", "mine")
        (stored,) = (await client.receive_json())["history"]
        assert (stored["author"], stored["text"]) == ("Ada", "once")
        assert (await client.receive_json())["text"] == "mine"


async def test_the_history_has_the_last_50_messages(chat: Program) -> None:
    headers = await session(chat.port, "Ada")
    clients = [client_of(chat, headers) for _ in range(4)]
    async with clients[0] as one, clients[1] as two, clients[2] as three:
        # Each connection has to pause after its messages, so several share the work.
        for client in (one, two, three):
            await client.receive_json()
        for number in range(18):
            for name, client in zip("abc", (one, two, three), strict=True):
                await says(client, f"{name}{number}", f"{name}{number}")
        live = [await one.receive_json() for _ in range(54)]
        async with clients[3] as late:
            history = (await late.receive_json())["history"]
    assert [message["id"] for message in history] == sorted(message["id"] for message in live)[-50:]


@runs_apart
async def test_people_on_two_workers_are_in_one_room(chat: Program) -> None:
    headers = await session(chat.port, "Ada")
    async with client_of(chat, headers) as one, client_of(chat, headers) as two:
        async with AsyncPublisher(port=chat.port) as publisher:
            members = await publisher.members("room lobby")
            infos = [await publisher.info(fd) for fd in members]
        check_apart(infos)
        for client in (one, two):
            await client.receive_json()
        await says(one, "1", "from one")
        await says(two, "2", "from two")
        for client in (one, two):
            assert {(await client.receive_json())["text"] for _ in range(2)} == {"from one", "from two"}
