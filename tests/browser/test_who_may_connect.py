"""A page may connect to its own server and to no other, and can read why it was refused."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from hubbub import Refuse, Request, Server

PAGE = "<!doctype html><title>a page</title>"

# Opens a WebSocket, and returns the result: the subprotocol, the close code, and the greeting or the reason.
TRY = """([url, protocols]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    let greeting = "";
    socket.onmessage = (event) => { greeting = event.data; socket.close(4000); };
    socket.onclose = (event) => resolve([socket.protocol, event.code, greeting || event.reason]);
})"""
GREETED = ["", 4000, "welcome"]
# Recent Chromium itself keeps pages of other machines from connecting to this one; other browsers do not.
UNGUARDED = ("--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",)
# A browser tells a page only this about a failed handshake.
FAILED = ["", 1006, ""]


def site(**settings: Any) -> Server:
    """Return a server with a page, which greets its clients, and refuses those that request the path /refused."""
    server = Server(port=0, control=None, **settings)

    @server.on("handshake")
    def on_handshake(server: Server, request: Request) -> Refuse | None:
        return Refuse(4401, "log in first") if request.path == "/refused" else None

    server.on("request", lambda server: PAGE)
    server.on("open", lambda server, request: server.push(request.fd, "welcome"))
    return server


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Runs servers until the end of the test."""
    async with AsyncExitStack() as stack:
        yield stack


async def try_from(page: Page, server: Server, path: str = "/", protocols: tuple[str, ...] = ()) -> list[object]:
    """Connect from the page, and return the result of `TRY`."""
    result = await page.evaluate(TRY, [f"ws://127.0.0.1:{server.port}{path}", list(protocols)])
    assert isinstance(result, list)
    return result


async def test_a_page_may_connect_to_its_own_server_and_no_other_one(page: Page, stack: AsyncExitStack) -> None:
    own, other, open_to_all = site(), site(), site(origins="*")
    for server in (own, other, open_to_all):
        await stack.enter_async_context(server)
    await page.goto(f"http://127.0.0.1:{own.port}/")
    assert await try_from(page, own) == GREETED
    assert await try_from(page, other) == FAILED
    assert other.stats()["accepted"] == 0
    assert await try_from(page, open_to_all) == GREETED


@pytest.mark.parametrize(("allowed_hosts", "seen"), [(None, GREETED), (["localhost", "127.0.0.1"], FAILED)])
async def test_a_page_whose_own_name_resolves_to_the_server(
    browser: Callable[..., AbstractAsyncContextManager[Browser]],
    stack: AsyncExitStack,
    allowed_hosts: list[str] | None,
    seen: list[object],
) -> None:
    server = await stack.enter_async_context(site(allowed_hosts=allowed_hosts))
    opened = await stack.enter_async_context(browser("--host-resolver-rules=MAP rebound.example 127.0.0.1", *UNGUARDED))
    page = await opened.new_page()
    # The page came from the attacker's machine, while the name still resolved to that machine.
    url = f"http://rebound.example:{server.port}/"
    await page.route(url, lambda route: route.fulfill(body=PAGE, content_type="text/html"))
    await page.goto(url)
    assert await page.evaluate(TRY, [url.replace("http", "ws"), []]) == seen


async def test_a_page_may_connect_if_its_origin_is_listed(page: Page, stack: AsyncExitStack) -> None:
    own = await stack.enter_async_context(site())
    friend = await stack.enter_async_context(site(origins=[f"http://127.0.0.1:{own.port}"]))
    stranger = await stack.enter_async_context(site(origins=["https://app.example.com"]))
    await page.goto(f"http://127.0.0.1:{own.port}/")
    assert await try_from(page, friend) == GREETED
    assert await try_from(page, stranger) == FAILED


@pytest.mark.parametrize(
    # With the flag, Chromium treats files as Electron does.
    ("flags", "greeters"),
    [([], ["null"]), (["--allow-file-access-from-files"], ["file://"])],
)
async def test_a_page_of_a_file_may_connect_if_its_origin_is_listed(
    browser: Callable[..., AbstractAsyncContextManager[Browser]],
    stack: AsyncExitStack,
    tmp_path: Path,
    flags: list[str],
    greeters: list[str],
) -> None:
    page = await (await stack.enter_async_context(browser(*flags))).new_page()
    (tmp_path / "page.html").write_text(PAGE)
    await page.goto((tmp_path / "page.html").as_uri())
    for origin in ("null", "file://"):
        server = await stack.enter_async_context(site(origins=[origin]))
        assert await try_from(page, server) == (GREETED if origin in greeters else FAILED)


async def test_a_page_can_read_why_it_was_refused(page: Page, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(site())
    await page.goto(f"http://127.0.0.1:{server.port}/")
    assert await try_from(page, server, "/refused") == ["", 4401, "log in first"]


async def test_a_page_gets_the_subprotocol_that_the_server_prefers(page: Page, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(site(subprotocols=["chat.v2", "chat.v1"]))
    await page.goto(f"http://127.0.0.1:{server.port}/")
    assert await try_from(page, server, "/", ("chat.v1", "chat.v2")) == ["chat.v2", 4000, "welcome"]
    # Refuse has to send the subprotocol too: without it a browser would fail the handshake, and report no code.
    assert await try_from(page, server, "/refused", ("chat.v1",)) == ["chat.v1", 4401, "log in first"]
    # A browser that offers subprotocols rejects an answer without one.
    assert await try_from(page, server, "/", ("unknown",)) == FAILED
