"""The chat, as people use it: `hubbub demo` with two workers, and real pages."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, WebSocket, expect
from programs import CHAT, Program, running

import hubbub
from hubbub import AsyncPublisher, Refuse, Request, Response, Server, StaticFiles, client_path

PAGE = Path(hubbub.__file__).parent / "demo" / "page"
GREETING = "你好,WebSocket!"
MARKUP = "<img src=x onerror=document.title=1>"
MAX_CHARACTERS = 2000

# Installing a browser may take longer than a test's timeout.
pytestmark = pytest.mark.timeout(90, func_only=True)


@pytest.fixture
async def chat() -> AsyncIterator[Program]:
    async with running(*CHAT) as program:
        yield program


async def join(page: Page, url: str, nickname: str) -> Page:
    """Open the page and type the nickname; the focus must be in the right field before and after."""
    await page.goto(url)
    await expect(page.get_by_role("dialog", name="What is your nickname?")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Nickname")).to_be_focused()
    await page.keyboard.type(nickname)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(message_field(page)).to_be_focused()
    # It shows who is in the room, so this page is in it.
    await expect(page.locator("#people")).not_to_be_empty()
    return page


async def join_too(page: Page, url: str, nickname: str) -> Page:
    """Join in another page, which shares no storage with the first."""
    browser = page.context.browser
    assert browser is not None
    return await join(await browser.new_page(), url, nickname)


async def say(page: Page, text: str) -> None:
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")


def message_field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def texts(page: Page) -> Locator:
    """Return the texts of the messages, without names and times."""
    return page.get_by_role("log").locator(".text")


async def settled(page: Page) -> None:
    """Wait until the server has sent back everything that this page has said."""
    await expect(page.get_by_text("Waiting to be sent", exact=True)).to_have_count(0)


async def worker_of_new(publisher: AsyncPublisher, known: set[int]) -> int:
    """Return the worker of the connection that is not among the known ones, and add it to them."""
    (fd,) = set(await publisher.connections()) - known
    known.add(fd)
    info = await publisher.info(fd)
    assert info is not None
    return info.worker_id


async def test_a_person_joins_and_says_hello(page: Page, chat: Program) -> None:
    async with page.expect_console_message(lambda message: "is open" in message.text):
        await join(page, chat.url, "Ada")
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await expect(page.get_by_text("Only you are here")).to_be_visible()
    await say(page, GREETING)
    await expect(texts(page)).to_have_text([GREETING])
    await settled(page)
    item = page.get_by_role("log").get_by_role("listitem")
    await expect(item).to_contain_text("You")
    await expect(item.locator("time")).to_have_text(re.compile(r"^\d+:\d\d( [AP]M)?$"))
    await expect(message_field(page)).to_have_value("")
    await expect(message_field(page)).to_be_focused()


async def test_people_on_two_workers_see_the_same(page: Page, chat: Program) -> None:
    known: set[int] = set()
    writers: list[asyncio.StreamWriter] = []
    async with AsyncPublisher(port=chat.port) as publisher:
        ada = await join(page, chat.url, "Ada")
        worker = await worker_of_new(publisher, known)
        for number in range(1, 9):
            bob = await join_too(page, chat.url, f"Bob {number}")
            if await worker_of_new(publisher, known) != worker:
                break
            # The master alternates between workers. If a page opens an even number of connections, open one more.
            _, writer = await asyncio.open_connection("127.0.0.1", chat.port)
            writers.append(writer)
        else:
            pytest.fail("all pages are served by one worker")
    await expect(ada.get_by_role("log")).to_contain_text(f"Bob {number} joined")
    for each in (ada, bob):
        await expect(each.get_by_text(f"{number + 1} people are here")).to_be_visible()

    await bob.keyboard.type("Hello")
    await expect(ada.get_by_text(f"Bob {number} is typing")).to_be_visible()
    await bob.keyboard.press("Enter")
    await expect(texts(ada)).to_have_text(["Hello"])
    await expect(ada.get_by_text("is typing")).to_be_hidden()
    await say(ada, GREETING)
    for each in (ada, bob):
        await expect(texts(each)).to_have_text(["Hello", GREETING])
    await expect(ada.get_by_role("listitem").filter(has_text="Hello").locator(".name")).to_have_text(f"Bob {number}")
    await expect(bob.get_by_role("listitem").filter(has_text=GREETING).locator(".name")).to_have_text("Ada")

    for writer in writers:
        writer.close()
    await bob.close()
    await expect(ada.get_by_role("log")).to_contain_text(f"Bob {number} left")
    await expect(ada.get_by_text(f"{number} people are here" if number > 1 else "Only you are here")).to_be_visible()


async def test_many_messages_of_two_people_stand_in_the_same_order_for_both(page: Page, chat: Program) -> None:
    ada = await join(page, chat.url, "Ada")
    bob = await join_too(page, chat.url, "Bob")
    for number in range(5):
        await say(ada, f"a{number}")
        await say(bob, f"b{number}")
    for each in (ada, bob):
        await expect(texts(each)).to_have_count(10)
        await settled(each)
    order = await texts(ada).all_text_contents()
    assert await texts(bob).all_text_contents() == order
    for name in "ab":
        assert [text for text in order if text[0] == name] == [f"{name}{number}" for number in range(5)]


async def test_what_is_typed_while_the_server_is_away_arrives_once(page: Page) -> None:
    async with running(*CHAT) as program:
        ada = await join(page, program.url, "Ada")
        bob = await join_too(page, program.url, "Bob")
        await say(ada, "before")
        await expect(texts(bob)).to_have_text(["before"])
        await settled(ada)
        await program.kill()
    for each in (ada, bob):
        await expect(each.get_by_role("status")).to_contain_text("Connection lost")
    await say(ada, "one")
    await say(ada, "two")
    await expect(ada.get_by_role("status")).to_contain_text("2 messages are waiting to be sent")
    await expect(ada.get_by_text("Waiting to be sent", exact=True)).to_have_count(2)
    await say(bob, "three")
    await expect(bob.get_by_role("status")).to_contain_text("1 message is waiting to be sent")

    async with running(*CHAT, port=program.port):
        for each in (ada, bob):
            await expect(each.locator("#banner")).to_be_empty()
            await expect(each.get_by_text("Connected", exact=True)).to_be_visible()
            await expect(each.get_by_text("2 people are here")).to_be_visible()
            await settled(each)
            # The new server does not know what was said before, and what was said after that on the old one.
            await expect(each.get_by_text("Some messages may be missing here")).to_be_visible()
        await say(ada, "after")
        await settled(ada)
        for each in (ada, bob):
            shown = texts(each)
            await expect(shown).to_have_count(5)
            # Messages typed offline get the time at which they were sent, whichever page reconnected first.
            order = await shown.all_text_contents()
            assert order[0] == "before"
            assert order[-1] == "after"
            assert sorted(order[1:-1]) == ["one", "three", "two"]
            assert order.index("one") < order.index("two")


async def test_names_and_messages_survive_the_death_of_each_worker(page: Page, chat: Program) -> None:
    ada = await join(page, chat.url, "Ada")
    bob = await join_too(page, chat.url, "Bob")
    await say(bob, "hello")
    await expect(texts(ada)).to_have_text(["hello"])
    said = ["hello"]
    for worker_id in (0, 1):
        chat.kill_worker(worker_id)
        # One of the pages has lost its connection, and is back after a moment.
        for name, each in (("Ada", ada), ("Bob", bob)):
            said.append(f"{name} after {worker_id}")
            await say(each, said[-1])
            await settled(each)
        for each, other in ((ada, "Bob"), (bob, "Ada")):
            await expect(each.locator("#people")).to_have_text(f"2 people are here: you, {other}")
            await expect(texts(each)).to_have_count(len(said))
            assert sorted(await texts(each).all_text_contents()) == sorted(said)
            await expect(each.get_by_text("may be missing")).to_have_count(0)
    late = await join_too(page, chat.url, "Late")
    await expect(texts(late)).to_have_count(len(said))
    await expect(late.locator("#people")).to_have_text(re.compile("^3 people are here: you, (Ada, Bob|Bob, Ada)$"))


async def test_a_message_that_was_lost_on_its_way_is_sent_again(page: Page, chat: Program) -> None:
    """The connection breaks after a message was sent, and before the server has sent it back."""
    lost: list[str] = []

    async def between(route: Any) -> None:
        server = route.connect_to_server()

        async def from_page(text: str) -> None:
            if json.loads(text)["type"] == "say" and not lost:
                lost.append(text)
                # The server gets it, but its answer does not arrive.
                server.on_message(lambda answer: None)
                server.send(text)
                await route.close(code=1001)
            else:
                server.send(text)

        route.on_message(from_page)

    bob = await join_too(page, chat.url, "Bob")
    await page.route_web_socket("**/chat", between)
    ada = await join(page, chat.url, "Ada")
    await say(ada, "once")
    await settled(ada)
    assert len(lost) == 1
    await say(ada, "more")
    for each in (ada, bob):
        await expect(texts(each)).to_have_text(["once", "more"])


async def test_a_page_that_is_refused_reads_why_and_does_not_come_back(page: Page) -> None:
    server = Server(port=0, control=None)
    asked: list[str] = []

    @server.on("handshake")
    def on_handshake(server: Server, request: Request) -> Refuse:
        asked.append(request.path)
        return Refuse(4401, "log in first")

    @server.on("request")
    def on_request(server: Server, request: Request) -> Response:
        return (StaticFiles(client_path().parent) if request.path == "/hubbub.js" else StaticFiles(PAGE))(
            server, request
        )

    async with server:
        await page.clock.install()
        await page.goto(f"http://127.0.0.1:{server.port}/")
        await expect(page.get_by_role("status")).to_contain_text("log in first (4401)")
        # Longer than the longest wait between two attempts.
        await page.clock.run_for(300_000)
        await page.evaluate("dispatchEvent(new Event('online'))")
        await expect(page.get_by_text("Not connected")).to_be_visible()
        assert asked == ["/chat"]


async def test_markup_in_a_name_and_in_a_message_stays_text(page: Page, chat: Program) -> None:
    nickname = "<img src=x onerror=alert(1)>"
    ada = await join(page, chat.url, "Ada")
    mallory = await join_too(page, chat.url, nickname)
    await mallory.keyboard.type(MARKUP)
    await expect(ada.get_by_text("is typing")).to_have_text(f"{nickname} is typing")
    await mallory.keyboard.press("Enter")
    await expect(texts(ada)).to_have_text([MARKUP])
    await expect(ada.get_by_role("log")).to_contain_text(f"{nickname} joined")
    for each in (ada, mallory):
        await expect(each.get_by_role("log").locator("img")).to_have_count(0)
        await expect(each).to_have_title("#lobby · Hubbub chat")


async def test_the_page_may_load_and_run_only_what_is_the_servers_own(page: Page, chat: Program) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    await join(page, chat.url, "Ada")
    await page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'title=1'}))")
    await page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=document.title=1>')")
    await expect(page).to_have_title("#lobby · Hubbub chat")
    assert any("Content Security Policy" in text for text in refused)


async def test_devtools_shows_the_frames_that_are_meant(page: Page, chat: Program) -> None:
    sent: list[dict[str, Any]] = []
    received: list[dict[str, Any]] = []

    def watch(socket: WebSocket) -> None:
        assert socket.url == f"ws://127.0.0.1:{chat.port}/chat"
        socket.on("framesent", lambda text: sent.append(json.loads(text)))
        socket.on("framereceived", lambda text: received.append(json.loads(text)))

    page.on("websocket", watch)
    await join(page, chat.url, "Ada")
    await say(page, GREETING)
    await settled(page)
    assert [frame["type"] for frame in sent] == ["join", "typing", "say"]
    assert sent[0] == {"type": "join", "room": "lobby", "name": "Ada", "back": False, "since": None}
    assert sent[2]["text"] == GREETING
    limits, joined, envelope = received
    assert (limits["type"], limits["text"]) == ("limits", MAX_CHARACTERS)
    assert (joined["type"], joined["recovered"], joined["position"][1]) == ("joined", False, 0)
    assert joined["people"] == {str(joined["who"]): {"name": "Ada", "back": False}}
    assert (envelope["topic"], [envelope["epoch"], envelope["offset"]]) == ("room:lobby", [joined["position"][0], 1])
    said = {"type": "said", "room": "lobby", "name": "Ada", "who": joined["who"], "time": envelope["data"]["time"]}
    assert envelope["data"] == sent[2] | said


async def test_a_message_that_is_too_long_is_refused_with_a_word_why(page: Page, chat: Program) -> None:
    await join(page, chat.url, "Ada")
    # JavaScript would count each character outside the basic plane as two.
    await message_field(page).fill("🌱" * (MAX_CHARACTERS + 1))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("it has 2,001 characters, and 2,000 are allowed")
    await expect(message_field(page)).to_have_attribute("aria-invalid", "true")
    await expect(texts(page)).to_have_count(0)
    await page.keyboard.press("Backspace")
    await expect(page.locator("#problem")).to_be_empty()
    await page.keyboard.press("Enter")
    await settled(page)
    await expect(texts(page)).to_have_text(["🌱" * MAX_CHARACTERS])


async def test_rooms_hear_only_their_own(page: Page, chat: Program) -> None:
    ada = await join(page, f"{chat.url}#tea", "Ada")
    bob = await join_too(page, chat.url, "Bob")
    await expect(bob.get_by_role("heading", level=1)).to_have_text("#lobby")
    await say(bob, "in the lobby")
    await settled(bob)
    await bob.evaluate("location.hash = 'tea'")
    await expect(ada.get_by_role("log")).to_contain_text("Bob joined")
    await expect(bob.get_by_role("heading", level=1)).to_have_text("#tea")
    await expect(bob.get_by_text("2 people are here")).to_be_visible()
    await say(bob, "in the tea room")
    for each in (ada, bob):
        await expect(texts(each)).to_have_text(["in the tea room"])


async def test_the_title_counts_what_came_while_nobody_looked(page: Page, chat: Program) -> None:
    ada = await join(page, chat.url, "Ada")
    bob = await join_too(page, chat.url, "Bob")
    look = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await ada.evaluate(look, True)
    await say(bob, "one")
    await say(bob, "two")
    await expect(ada).to_have_title("(2) #lobby · Hubbub chat")
    await ada.evaluate(look, False)
    await expect(ada).to_have_title("#lobby · Hubbub chat")


async def test_who_reads_further_up_is_left_there(page: Page, chat: Program) -> None:
    ada = await join(page, chat.url, "Ada")
    bob = await join_too(page, chat.url, "Bob")
    await message_field(bob).fill("\n".join(map(str, range(200))))
    await bob.keyboard.press("Enter")
    last = "position => position.scrollHeight - position.scrollTop - position.clientHeight"
    log = ada.get_by_role("log")
    await expect(texts(ada)).to_have_count(1)
    assert await log.evaluate(last) < 2
    await log.evaluate("log => new Promise(done => { log.onscroll = done; log.scrollTop = 0; })")
    await say(bob, "below")
    await expect(texts(ada)).to_have_count(2)
    assert await log.evaluate("log => log.scrollTop") == 0
    await ada.get_by_role("button", name="1 new message").click()
    await expect(ada.get_by_role("button", name="new message")).to_be_hidden()
    assert await log.evaluate(last) < 2


async def test_enter_that_ends_an_input_methods_composition_sends_nothing(page: Page, chat: Program) -> None:
    await join(page, chat.url, "Ada")
    await page.keyboard.type("ni")
    await message_field(page).dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("hao")
    await page.keyboard.press("Enter")
    await settled(page)
    await expect(texts(page)).to_have_text(["ni\nhao"])


async def test_everything_can_be_reached_and_seen_by_keyboard(page: Page, chat: Program) -> None:
    await join(page, chat.url, "Ada")
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.labels[0].textContent"
    outlined = "getComputedStyle(document.activeElement).outlineStyle"
    order = []
    for key in ("Shift+Tab", "Tab", "Tab"):
        await page.keyboard.press(key)
        order.append(await page.evaluate(focused))
        assert await page.evaluate(outlined) == "solid"
    assert order == ["Messages", "Message", "Send"]
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.type("by button")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(texts(page)).to_have_text(["by button"])
    await expect(message_field(page)).to_be_focused()


async def test_escape_instead_of_a_nickname_makes_a_guest(page: Page, chat: Program) -> None:
    await join(page, chat.url, "Ada")
    bob = await join_too(page, chat.url, "Bob")
    await page.reload()
    await expect(page.get_by_role("textbox", name="Nickname")).to_have_value("Ada")
    await page.get_by_role("textbox", name="Nickname").fill("")
    await page.keyboard.press("Escape")
    await expect(message_field(page)).to_be_focused()
    await expect(bob.get_by_role("log")).to_contain_text(re.compile(r"Guest \d{3} joined"))


async def test_text_runs_in_its_own_direction_and_never_out_of_the_page(page: Page, chat: Program) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    await join(page, f"{chat.url}#{'room' * 10}", "ليلى")
    await say(page, "صباح الخير")
    await expect(texts(page)).to_have_css("direction", "rtl")
    await message_field(page).fill("W" * 500)
    await page.keyboard.press("Enter")
    await expect(texts(page)).to_have_count(2)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await page.get_by_role("log").evaluate("log => log.scrollWidth === log.clientWidth")
