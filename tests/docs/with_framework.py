"""The programs of docs/with: run with two workers, as no program may depend on which worker has a connection."""

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote

from as_process import Running, serving
from snippets import Snippet

from apart import check_apart, runs_apart
from hubbub import Publisher

HUBBUB_RUN = ("-m", "hubbub", "run", "app:app")
OF_SERVER = ("-m", "hubbub", "run", "app:server")
PROGRAM = ("app.py",)


@asynccontextmanager
async def served(
    *snippets: Snippet,
    arguments: Sequence[str] = HUBBUB_RUN,
    workers: int = 2,
    replacing: Mapping[str, str] = {},
    files: Mapping[str, str] = {},
) -> AsyncIterator[Running]:
    """Run an application as its page says, until the end of the block; nothing may fail in it.

    The arguments are those of `serving`.
    """
    environ = {"HUBBUB_WORKERS": str(workers)}
    async with serving(*snippets, arguments=arguments, replacing=replacing, files=files, environ=environ) as running:
        yield running
    errors = [line for line in running.lines if "Traceback" in line or ("hubbub" in line and "ERROR" in line)]
    assert not errors, "\n".join(running.lines)


async def ask(running: Running, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Send a request; return the status and the body of its answer."""

    def send() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(send)


async def post(running: Running, path: str, text: str) -> int:
    """Send a text as the page's routes take it; return the status."""
    status, _ = await ask(running, "POST", f"{path}?text={quote(text)}")
    return status


def check_both_workers_have_some(running: Running) -> None:
    """Check that the connections are in both workers, so that a test shows what it should."""
    with Publisher(port=running.port) as hub:
        check_apart(hub.info(fd) for fd in hub.connections())


async def until_subscribed(running: Running, topic: str, count: int) -> None:
    """Poll until that many connections are subscribed: nothing announces that."""
    with Publisher(port=running.port) as hub:
        found = hub.subscribers(topic)
        while found != count:
            await asyncio.sleep(0.01)
            found = hub.subscribers(topic)


@runs_apart
async def rooms_work(running: Running, *, at: str = "/rooms", sends_text: bool = True) -> None:
    """Check a page's room: its clients in both workers hear each other and the route, and those of another room do not.

    Args:
        running: The program of the page.
        at: The path of its WebSockets; its routes are at `/rooms`.
        sends_text: Whether the route takes the text as its body, and answers "sent"; otherwise as `post` sends it.
    """

    async def say(room: str, text: str) -> None:
        if sends_text:
            assert await ask(running, "POST", f"/rooms/{room}", text) == (200, "sent")
        else:
            assert await post(running, f"/rooms/{room}", text) == 201

    async with (
        running.connect(f"{at}/garden") as ada,
        running.connect(f"{at}/garden") as grace,
        running.connect(f"{at}/kitchen") as edsger,
    ):
        for client in (ada, grace, edsger):
            assert await client.recv() == "welcome"
        check_both_workers_have_some(running)
        await ada.send("hello")
        assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
        await say("garden", "tea is ready")
        assert [await ada.recv(), await grace.recv()] == ["tea is ready", "tea is ready"]
        await say("kitchen", "for you")
        assert await edsger.recv() == "for you"
