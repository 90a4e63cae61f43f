"""The programs of docs/recipes.md, with two workers: no recipe may depend on which worker has a connection."""

import asyncio
import http.client
import json
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import jwt
import psycopg
import pytest
from as_process import Running, output_of, serving
from listening import events
from playwright.async_api import Page, expect
from postgres import directory_of_programs, serving_postgres
from snippets import Snippet, shows, snippets_of
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from apart import check_apart, runs_apart
from hubbub import Publisher

PAGE = "docs/recipes.md"
TWO_WORKERS = {"HUBBUB_WORKERS": "2"}
SECRET = "a secret of more than thirty-two bytes"

# Installing a program may take longer than a test is given.
pytestmark = pytest.mark.timeout(60, func_only=True)


async def received(client: ClientConnection) -> Any:
    """Wait for a message, and decode it."""
    return json.loads(await client.recv())


async def until(client: ClientConnection, expected: object) -> None:
    """Wait for this message, after any others."""
    while await received(client) != expected:
        pass


async def close_code(client: ClientConnection) -> int:
    """Wait until the server closes the connection."""
    with suppress(ConnectionClosed):
        while True:
            await client.recv()
    assert client.close_code
    return client.close_code


def check_both_workers_have_some(port: int) -> None:
    """Check that the connections are in both workers, so that a test shows what it should."""
    with Publisher(port=port) as hub:
        check_apart(hub.info(fd) for fd in hub.connections())


async def until_subscribed(port: int, topic: str, count: int) -> None:
    """Poll until that many connections are subscribed: nothing announces that."""
    with Publisher(port=port) as hub:
        found = hub.subscribers(topic)
        while found != count:
            await asyncio.sleep(0.01)
            found = hub.subscribers(topic)


@shows(PAGE, "Who is online")
@runs_apart
async def test_each_page_shows_who_is_online(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ=TWO_WORKERS) as running:
        async with running.connect("/?name=ada") as ada:
            await until(ada, {"online": ["ada"]})
            async with running.connect("/?name=grace") as grace, running.connect("/?name=grace") as tab:
                check_both_workers_have_some(running.port)
                for client in (ada, grace, tab):
                    await until(client, {"online": ["ada", "grace"]})
                async with running.connect("/?name=ada") as again:
                    assert await received(again) == {"online": ["ada", "grace"]}
            await until(ada, {"online": ["ada"]})
        async with running.connect("/?name=") as nobody:
            assert await close_code(nobody) == 4400


@shows(PAGE, "A room with a history")
async def test_a_page_gets_what_it_has_missed(snippets: list[Snippet], page: Page) -> None:
    files = {"room.html": block_of("html")}
    async with serving(*snippets, environ=TWO_WORKERS, files=files) as running, running.connect() as speaker:
        await speaker.send('{"join": "tea", "since": null}')
        assert (await received(speaker))["recovered"] is False
        for text in ("one", "two"):
            await speaker.send(json.dumps({"say": text}))
            assert (await received(speaker))["data"] == {"text": text}
        (own,) = connections(running.port)
        await page.goto(f"http://127.0.0.1:{running.port}/")
        await expect(page.locator("li")).to_have_text(["one", "two"])
        await page.locator("#text").fill("three")
        await page.keyboard.press("Enter")
        await expect(page.locator("li")).to_have_text(["one", "two", "three"])
        texts = ["one", "two", "three"]
        with Publisher(port=running.port) as hub:
            for number in range(3):
                for fd in connections(running.port) - {own}:
                    hub.disconnect(fd, 1012)
                texts.append(f"while away {number}")
                await speaker.send(json.dumps({"say": texts[-1]}))
                await expect(page.locator("li")).to_have_text(texts)


def connections(port: int) -> set[int]:
    """Return the ids of all connections."""
    with Publisher(port=port) as hub:
        return set(hub.connections())


@shows(PAGE, "Who is in the room")
@runs_apart
async def test_each_page_knows_who_is_in_the_room(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ=TWO_WORKERS) as running:
        async with running.connect("/?name=ada") as ada:
            ((ada_id, info),) = (await received(ada))["people"].items()
            assert info == {"name": "ada"}
            async with running.connect("/?name=grace") as grace:
                check_both_workers_have_some(running.port)
                people = (await received(grace))["people"]
                assert {each["name"] for each in people.values()} == {"ada", "grace"}
                came = await received(ada)
                assert (str(came["came"]) in people, came["name"]) == (True, "grace")
            assert await received(ada) == {"went": came["came"], "name": "grace"}
            assert str(came["came"]) != ada_id
        async with running.connect("/?name=") as nobody:
            assert await close_code(nobody) == 4400


@shows(PAGE, "Who is typing")
@runs_apart
async def test_the_others_see_who_is_typing(snippets: list[Snippet]) -> None:
    async with (
        serving(*snippets, environ=TWO_WORKERS) as running,
        running.connect("/?name=ada") as ada,
        running.connect("/?name=grace") as grace,
    ):
        check_both_workers_have_some(running.port)
        await until_subscribed(running.port, "typing:garden", 2)
        await ada.send('{"typing": true}')
        typing = await received(grace)
        assert (typing["typing"], typing["name"]) == (True, "ada")
        await ada.send('{"say": "hello"}')
        said = {"who": typing["who"], "name": "ada", "text": "hello"}
        # Her own page gets what she says, and not that she types.
        assert await received(ada) == await received(grace) == said
        async with running.connect() as late:
            assert await received(late) == said


@shows(PAGE, "One user in several tabs")
@runs_apart
async def test_a_user_is_in_all_tabs(snippets: list[Snippet]) -> None:
    ada: dict[str, Any] = {"additional_headers": {"Cookie": "session=secret-of-ada"}}
    grace: dict[str, Any] = {"additional_headers": {"Cookie": "session=secret-of-grace"}}
    async with (
        serving(*snippets, environ=TWO_WORKERS) as running,
        running.connect(**ada) as first,
        running.connect(**ada) as second,
        running.connect(**grace) as other,
    ):
        check_both_workers_have_some(running.port)
        await until_subscribed(running.port, "user ada", 2)
        await first.send('{"type": "draft", "text": "dear"}')
        assert await received(second) == {"type": "draft", "text": "dear"}
        await second.send('{"type": "logout"}')
        assert [await close_code(first), await close_code(second)] == [4401, 4401]
        with Publisher(port=running.port) as hub:
            hub.publish("user ada", "nobody is there")
            hub.publish("user grace", '"news"')
        assert await received(other) == "news"
        async with running.connect() as stranger:
            assert await close_code(stranger) == 4401


@shows(PAGE, "JSON messages with a type")
async def test_messages_go_to_their_commands(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ=TWO_WORKERS) as running, running.connect() as client:
        for sent, answer in (
            ({"type": "add", "id": 1, "a": 1, "b": 2}, {"type": "answer", "id": 1, "sum": 3}),
            ({"type": "rename", "name": "Ada"}, {"type": "answer", "id": None, "name": "Ada"}),
            (
                {"type": "add", "id": 2, "a": "1"},
                {"type": "error", "id": 2, "text": "add needs two whole numbers, a and b"},
            ),
            (
                {"type": "add", "id": 2, "a": 1, "b": 10**4000},
                {"type": "error", "id": 2, "text": "add needs two whole numbers, a and b"},
            ),
            ({"type": "?", "id": 3}, {"type": "error", "id": None, "text": "type is one of rename, add"}),
            ([], {"type": "error", "id": None, "text": "type is one of rename, add"}),
        ):
            await client.send(json.dumps(sent))
            assert await received(client) == answer
        await client.send("no JSON")
        assert await close_code(client) == 1007


def token(seconds: float, secret: str = SECRET, **claims: object) -> str:
    return jwt.encode({"sub": "ada", "exp": time.time() + seconds, **claims}, secret, algorithm="HS256")


@shows(PAGE, "Login with a JWT")
async def test_who_has_a_token_is_let_in_until_it_expires(snippets: list[Snippet]) -> None:
    # A token that is valid for a minute ends after a second, and even on a slow machine not before the handshake.
    earlier = {"request.state.expires - time.time()": "request.state.expires - time.time() - 59"}
    environ = {**TWO_WORKERS, "JWT_SECRET": SECRET}
    async with serving(*snippets, environ=environ, replacing=earlier) as running:
        bearer = {"Authorization": f"Bearer {token(60)}"}
        async with running.connect(additional_headers=bearer) as by_header:
            assert await by_header.recv() == "hello ada"
        async with running.connect(f"/?token={token(60)}") as by_query:
            assert await by_query.recv() == "hello ada"
            assert await close_code(by_query) == 4401
        without_end = jwt.encode({"sub": "ada"}, SECRET, algorithm="HS256")
        for bad in (token(-1), token(60, "another secret of thirty-two bytes"), without_end, "", "x"):
            async with running.connect(f"/?token={bad}") as stranger:
                assert await close_code(stranger) == 4401
        assert not any("Traceback" in line for line in running.lines)


class Visitor:
    """A browser that keeps one cookie and follows no redirect."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cookie = ""

    async def get(self, path: str) -> tuple[int, str]:
        """Return the status, and the body."""
        return await asyncio.to_thread(self._ask, "GET", path, None)

    async def post(self, path: str, **form: str) -> tuple[int, str]:
        """Send a form; return the status, and the body or the address of the redirect."""
        return await asyncio.to_thread(self._ask, "POST", path, urlencode(form))

    def _ask(self, method: str, path: str, form: str | None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, form, headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        if cookie := answer.getheader("Set-Cookie"):
            self.cookie = cookie.split(";")[0]
        return answer.status, answer.getheader("Location") or body


@shows(PAGE, "Login with a form and a session cookie")
async def test_a_form_logs_in_and_out(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ={**TWO_WORKERS, "SESSION_SECRET": SECRET}) as running:
        visitor = Visitor(running.port)
        assert 'action="/login"' in (await visitor.get("/"))[1]
        assert (await visitor.post("/login", user="ada", password="guessed"))[0] == 403
        assert (await visitor.post("/login", user="nobody", password=""))[0] == 403
        assert await visitor.post("/login", user="ada", password="lovelace") == (303, "/")
        assert "Hello ada" in (await visitor.get("/"))[1]
        async with running.connect("/live", additional_headers={"Cookie": visitor.cookie}) as client:
            assert await client.recv() == "hello ada"
        for changed in (visitor.cookie.replace("ada", "eve"), f"{visitor.cookie}0", "session=é", ""):
            async with running.connect("/live", additional_headers={"Cookie": changed}) as stranger:
                assert await close_code(stranger) == 4401
        assert await visitor.post("/logout") == (303, "/")
        assert 'action="/login"' in (await visitor.get("/"))[1]
        assert (await visitor.get("/elsewhere"))[0] == 404


async def until_all_have_left(port: int) -> None:
    """Poll until the server has no connection: nothing announces that."""
    with Publisher(port=port) as hub:
        left = hub.connections()
        while left:
            await asyncio.sleep(0.01)
            left = hub.connections()


@shows(PAGE, "Limit what a client may send")
async def test_a_fast_client_is_slowed_down(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ=TWO_WORKERS) as running:
        async with running.connect() as client:
            begin = time.monotonic()
            for number in range(25):
                await client.send(str(number))
            assert [await client.recv() for _ in range(25)] == [str(number) for number in range(25)]
            # Twenty at once, and the others at ten a second. A slower machine takes longer.
            assert time.monotonic() - begin > 0.4
        await until_all_have_left(running.port)
        clients = []
        for _ in range(5):
            clients.append(await running.connect())
            await clients[-1].send("hello")
            assert await clients[-1].recv() == "hello"
        async with running.connect() as one_too_many:
            assert await close_code(one_too_many) == 4429
        for client in clients:
            await client.send("still here")
            assert await client.recv() == "still here"
            await client.close()


@shows(PAGE, "The last value for new subscribers")
@runs_apart
async def test_a_new_subscriber_gets_the_last_value(snippets: list[Snippet]) -> None:
    server, sends = snippets
    async with serving(server, environ=TWO_WORKERS) as running, running.connect("/prices/tea") as first:
        await sending(sends, running)
        assert await received(first) == {"value": 3.2}
        async with running.connect("/prices/tea") as second, running.connect("/prices/milk"):
            check_both_workers_have_some(running.port)
            assert await received(second) == {"value": 3.2}
            await until_subscribed(running.port, "price:tea", 2)
            await sending(sends, running, {"3.2": "3.3"})
            assert await received(first) == {"value": 3.3}
            assert await received(second) == {"value": 3.3}


async def sending(program: Snippet, running: Running, values: Mapping[str, str] = {}) -> None:
    """Run a program that sends something to the server."""
    assert await output_of(program, replacing={"port=9501": f"port={running.port}", **values}) == ""


def block_of(language: str) -> str:
    """Return the page's one block in another language than Python."""
    (block,) = [snippet.text for snippet in snippets_of(PAGE) if snippet.language == language]
    return block


@asynccontextmanager
async def relaying(relay: Snippet, running: Running, begin: str = "", **environ: str) -> AsyncIterator[Path]:
    """Run a program that passes changes on to the server until the end of the block, which gets its directory."""
    port = {"port=9501": f"port={running.port}"}
    async with serving(relay, replacing=port, port=running.port, begin=begin, environ=environ) as program:
        yield program.directory


@pytest.fixture
async def postgres(installed: Callable[..., str], unavailable: Callable[[str], NoReturn]) -> AsyncIterator[str]:
    """The connection string of a PostgreSQL server."""
    installed("psql", package="postgresql")
    programs = directory_of_programs()
    if programs is None:
        unavailable("there is a psql, but no PostgreSQL server")
    async with serving_postgres(programs) as address:
        yield address


async def until_somebody_listens(database: psycopg.AsyncConnection[Any]) -> None:
    """Poll until a program has said LISTEN."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN orders'"
    count = await (await database.execute(asked)).fetchone()
    while count != (1,):
        await asyncio.sleep(0.01)
        count = await (await database.execute(asked)).fetchone()


MAKE_ORDERS = """
import sqlite3
sqlite3.connect("shop.db").execute("CREATE TABLE orders (item TEXT)")
"""


@shows(PAGE, "Messages from a database")
async def test_pages_learn_of_each_change(snippets: list[Snippet], postgres: str) -> None:
    listen, poll, server = snippets
    async with (
        serving(server, environ=TWO_WORKERS) as running,
        running.connect() as one,
        running.connect() as two,
        await psycopg.AsyncConnection.connect(postgres, autocommit=True) as database,
    ):
        await database.execute("CREATE TABLE orders (id serial, item text)")
        await database.execute(block_of("sql").encode())
        async with relaying(listen, running, DATABASE=postgres):
            await until_somebody_listens(database)
            await database.execute("INSERT INTO orders (item) VALUES ('tea')")
            for client in (one, two):
                assert await received(client) == {"id": 1, "item": "tea"}
        async with relaying(poll, running, MAKE_ORDERS) as directory:
            for number, item in enumerate(("milk", "sugar"), 1):
                await asyncio.to_thread(order, directory / "shop.db", item)
                for client in (one, two):
                    assert await received(client) == {"number": number, "item": item}


def order(path: Path, item: str) -> None:
    """Insert a row once the trigger is there."""
    database = sqlite3.connect(path, isolation_level=None)
    while not database.execute("SELECT 1 FROM sqlite_master WHERE type = 'trigger'").fetchone():
        time.sleep(0.01)
    database.execute("INSERT INTO orders VALUES (?)", (item,))
    database.close()


@shows(PAGE, "Server-sent events")
async def test_a_page_listens_to_events_until_it_leaves(snippets: list[Snippet]) -> None:
    async with serving(*snippets, environ=TWO_WORKERS) as running:
        async with events(running, "/time") as first, events(running, "/time") as second:
            told = [await anext(first) for _ in range(2)]
            assert await anext(second)
        for event, data in told:
            assert event == "time"
            assert re.fullmatch(r"\d\d:\d\d:\d\d", data)
        for _ in range(2):
            await running.printed("the client has left")


@shows(PAGE, "Server-sent events")
async def test_a_browser_listens_to_events(snippets: list[Snippet], page: Page) -> None:
    (script,) = (each.text for each in snippets_of(PAGE) if "EventSource" in each.text)
    # A page of the same server, whose `request` handler answers all other paths with 404.
    async with serving(*snippets, environ=TWO_WORKERS) as running:
        await page.goto(f"http://127.0.0.1:{running.port}/")
        await page.set_content('<p id="clock"></p>')
        await page.add_script_tag(content=script)
        await expect(page.locator("#clock")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
        await page.goto("about:blank")
        await running.printed("the client has left")


@shows(PAGE, "Restart without refusing anybody")
async def test_a_reload_replaces_the_code(snippets: list[Snippet]) -> None:
    hubbub_run = ("-m", "hubbub", "run", "app:server")
    async with serving(*snippets, arguments=hubbub_run, environ=TWO_WORKERS) as running, running.connect() as client:
        assert await client.recv() == "welcome to version 1"
        app = running.directory / "app.py"
        app.write_text(app.read_text().replace("VERSION = 1", "VERSION = 2"))
        running.process.send_signal(signal.SIGHUP)
        assert await close_code(client) == 1012
        await running.printed("reloaded")
        async with running.connect() as again:
            assert await again.recv() == "welcome to version 2"
        printed = "\n".join(running.lines)
        assert "worker 0 of version 1 ends" in printed
        app.write_text("a mistake")
        running.process.send_signal(signal.SIGHUP)
        await running.printed("the reload failed")
        async with running.connect() as again:
            assert await again.recv() == "welcome to version 2"
