"""The fragments of docs/concepts.md, each with the server that its page takes for granted."""

import asyncio
import http.client
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from snippets import Snippet, execute, shows
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from hubbub import Server

PAGE = "docs/concepts.md"


@asynccontextmanager
async def served(snippets: list[Snippet], server: Server, **names: Any) -> AsyncIterator[Server]:
    """Serve with the handlers of a fragment."""
    execute(*snippets, server=server, asyncio=asyncio, **names)
    async with server:
        yield server


def client(server: Server, session: str | None = None, path: str = "/") -> connect:
    """Return a client, which may have a session."""
    headers = {"Cookie": f"session={session}"} if session else {}
    return connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, proxy=None)


@shows(PAGE, "Connections and their ids")
async def test_who_has_a_session_is_known_and_reached_by_name(snippets: list[Snippet]) -> None:
    async with served(snippets, Server(port=0), users={"secret": "Ada"}) as server:
        async with client(server, "secret") as one, client(server, "secret") as two:
            assert [await one.recv(), await two.recv()] == ["welcome, Ada"] * 2
            server.publish("user Ada", "news")
            assert [await one.recv(), await two.recv()] == ["news"] * 2
            for fd in server.connections:
                server.subscribe(fd, "room")
            await one.send("hello")
            assert [await one.recv(), await two.recv()] == ["Ada: hello"] * 2
        with pytest.raises(InvalidStatus) as refused:
            await client(server, "guessed")
        assert refused.value.response.status_code == 403


@shows(PAGE, "Endpoints")
async def test_each_endpoint_serves_its_path(snippets: list[Snippet]) -> None:
    async with served(snippets, Server(port=0)) as server:
        async with client(server, path="/chat/garden") as guest:
            await guest.send("hello")
            assert await guest.recv() == "you said hello"
            server.publish("room garden", "tea is ready")
            assert await guest.recv() == "tea is ready"
        with pytest.raises(InvalidStatus) as refused:
            await client(server, path="/")
        assert refused.value.response.status_code == 404
        url = f"http://127.0.0.1:{server.port}/users/7"
        with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
            assert answer.read() == b"user number 7"


def post(url: str, form: str) -> tuple[int, str | None, str | None]:
    """Send a form; return the status, the address of a redirect, and the cookie."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("POST", parts.path, form, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("Location"), answer.getheader("Set-Cookie")


@shows(PAGE, "HTTP on the same port")
async def test_a_form_sets_a_cookie_and_leads_back(
    snippets: list[Snippet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("<h1>A page</h1>")
    monkeypatch.chdir(tmp_path)
    async with served(snippets, Server(port=0)) as server:
        base = f"http://127.0.0.1:{server.port}"
        with await asyncio.to_thread(urllib.request.urlopen, f"{base}/") as answer:
            assert answer.read() == b"<h1>A page</h1>"
        status, location, cookie = await asyncio.to_thread(post, f"{base}/theme", "theme=dark")
        assert (status, location) == (303, "/")
        assert cookie == "theme=dark; Max-Age=31536000; Path=/; HttpOnly; SameSite=Lax"
        assert await asyncio.to_thread(post, f"{base}/theme", "theme=a,b") == (400, None, None)


@shows(PAGE, "Workers")
async def test_a_server_within_a_program(snippets: list[Snippet], capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(port=0)
    ports = []

    async def something_else() -> None:
        async with client(server):
            ports.append(server.port)

    # The fragment runs a loop of its own.
    await asyncio.to_thread(execute, *snippets, server=server, something_else=something_else)
    assert capsys.readouterr().out == f"serving on port {ports[0]}\n"


@shows(PAGE, "Data")
async def test_json_is_decoded_and_encoded(snippets: list[Snippet]) -> None:
    async with served(snippets, Server(port=0)) as server, client(server) as adder:
        await adder.send('{"add": [1, 2]}')
        assert await adder.recv() == '{"sum":3}'
        await adder.send("[1]")
        assert await adder.recv() == '{"unknown":[1]}'


async def subscribed(server: Server, count: int) -> None:
    """Wait until that many clients are in the garden; a client that is alone gets no message."""
    found = await server.subscribers("garden")
    while found != count:
        await asyncio.sleep(0.01)
        found = await server.subscribers("garden")


@shows(PAGE, "Topics")
async def test_who_joins_is_told_of_by_number(snippets: list[Snippet]) -> None:
    async with served(snippets, Server(port=0)) as server, client(server) as one, client(server) as two:
        await one.send("join garden")
        await subscribed(server, 1)
        await two.send("join garden")
        assert await one.recv() == "2 are here"
        await one.send("leave garden")
        await subscribed(server, 1)


@shows(PAGE, "Topics with memory")
async def test_whoever_comes_back_gets_what_was_missed(snippets: list[Snippet]) -> None:
    async def until(reader: ClientConnection, key: str) -> Any:
        """Return the next message with this key, in an envelope or not."""
        while True:
            message = json.loads(await reader.recv())
            content = message.get("data", message)
            if key in content:
                return message

    async with served(snippets, Server(port=0)) as server, client(server) as one:
        await one.send('{"join": "tea", "since": null}')
        assert (await until(one, "recovered"))["recovered"] is False
        assert (await until(one, "came"))["data"] == {"came": "Ada", "people": 1}
        await one.send('{"say": "hello", "in": "tea"}')
        said = await until(one, "text")
        assert said["topic"] == "room:tea"
        assert said["data"] == {"text": "hello"}
        await one.send('{"say": "tea is ready", "in": "tea"}')
        await until(one, "text")
        async with client(server) as two:
            since = [said["epoch"], said["offset"]]
            await two.send(json.dumps({"join": "tea", "since": since}))
            assert (await until(two, "text"))["data"] == {"text": "tea is ready"}
            assert (await until(two, "recovered"))["recovered"] is True
            assert (await until(one, "came"))["data"]["people"] == 2
        assert (await until(one, "left"))["data"] == {"left": "Ada"}
        server.publish("price:tea", "3.2", key="tea")


@shows(PAGE, "Clients that leave")
async def test_a_stream_ends_with_its_client(snippets: list[Snippet]) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def lines_about(topic: str) -> AsyncIterator[str]:
        try:
            yield f"all about {topic}"
            await asyncio.Event().wait()
        finally:
            ended.put_nowait(topic)

    async with served(snippets, Server(port=0), lines_about=lines_about) as server:
        async with client(server) as reader:
            await reader.send("gardens")
            assert await reader.recv() == "all about gardens"
            assert ended.empty()
        async with asyncio.timeout(20):
            assert await ended.get() == "gardens"


@shows(PAGE, "Back-pressure")
async def test_parts_that_do_not_fit_wait_for_the_client(snippets: list[Snippet]) -> None:
    parts = [bytes([number]) * 64 * 1024 for number in range(100)]
    server = Server(port=0, send_queue_size=1024 * 1024)
    async with served(snippets, server, parts_of=lambda text: parts) as server, client(server) as reader:
        await reader.send("all of it")
        assert [await reader.recv() for _ in parts] == parts
        assert server.stats()["slow_consumers_closed"] == 0
