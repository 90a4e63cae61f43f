"""The browser client in a real browser, with a server that is killed and comes back."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, WebSocket

APPLICATION = Path(__file__).with_name("client_app.py")

# In the page: the socket, everything it received, and its states.
CONNECT = """([url, options]) => {
    globalThis.received = [];
    globalThis.states = [];
    globalThis.socket = connect(url, options);
    socket.onmessage = ({ data }) => received.push(data);
    socket.addEventListener("state", ({ detail }) => states.push(detail));
}"""


class RunningServer:
    def __init__(self, process: asyncio.subprocess.Process, port: str) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    async def kill(self) -> None:
        """End it like a crash: it gets no signal that it could handle, and the kernel closes its sockets."""
        if self.process.returncode is None:
            self.process.kill()
        # Its workers also hold the other end of its output; they die with it.
        await self.process.communicate()


@asynccontextmanager
async def running_server(port: str = "0") -> AsyncIterator[RunningServer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(APPLICATION),
        env=os.environ | {"HUBBUB_PORT": port},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    server = RunningServer(process, port)
    try:
        async with asyncio.timeout(30):
            printed = (await process.stdout.readline()).decode().strip()
        assert printed.isdecimal(), f"the server printed {printed!r} instead of its port"
        yield RunningServer(process, printed)
    finally:
        await server.kill()


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    async with running_server() as server:
        yield server


@pytest.fixture
def connections(page: Page) -> list[list[str | bytes]]:
    """The messages sent by the page, a list for each connection, as its developer tools would show them."""
    connections: list[list[str | bytes]] = []

    def on_websocket(websocket: WebSocket) -> None:
        sent: list[str | bytes] = []
        connections.append(sent)
        websocket.on("framesent", lambda payload: sent.append(payload))

    page.on("websocket", on_websocket)
    return connections


async def visit(page: Page, server: RunningServer) -> None:
    await page.goto(server.url)
    await page.wait_for_function("'connect' in globalThis")


async def connect(page: Page, url: str, **options: Any) -> None:
    await page.evaluate(CONNECT, [url, options])


async def send(page: Page, *texts: str) -> None:
    assert await page.evaluate("(texts) => texts.map((text) => socket.send(text))", texts) == [True] * len(texts)


async def receives(page: Page, *texts: str) -> None:
    """Wait until this many messages have arrived, and assert that they are these."""
    await page.wait_for_function("(count) => received.length >= count", arg=len(texts))
    assert await page.evaluate("received") == list(texts)


async def test_what_is_sent_while_the_server_is_away_arrives_once_and_in_order(
    page: Page, connections: list[list[str | bytes]]
) -> None:
    async with running_server() as server:
        await visit(page, server)
        await connect(page, "/echo", backoffBase=0.1, backoffCap=0.5)
        await send(page, "first")
        await receives(page, "first")
        await server.kill()
        await page.wait_for_function("socket.state !== 'open'")
        await send(page, *map(str, range(100)))

    async with running_server(server.port):
        await receives(page, "first", *map(str, range(100)))
        await send(page, "last")
        await receives(page, "first", *map(str, range(100)), "last")
    # The unanswered attempts in between are connections too.
    assert [sent for sent in connections if sent] == [["first"], [*map(str, range(100)), "last"]]


async def test_a_refusal_can_be_read_and_is_not_tried_again(
    page: Page, server: RunningServer, connections: list[list[str | bytes]]
) -> None:
    await visit(page, server)
    await page.clock.install()
    code, reason, is_close_event = await page.evaluate(
        """() => new Promise((resolve) => {
            globalThis.socket = connect("/private");
            socket.onclose = (event) => resolve([event.code, event.reason, event instanceof CloseEvent]);
        })"""
    )
    assert (code, reason, is_close_event) == (4401, "log in first: 请登录", True)
    assert await page.evaluate("[socket.state, socket.readyState]") == ["closed", 3]
    await page.clock.run_for("01:00:00")
    assert len(connections) == 1


async def test_a_page_that_waits_long_connects_at_once_when_the_network_comes_back(page: Page) -> None:
    async with running_server() as server:
        await visit(page, server)
        await connect(page, "/echo", backoffBase=1e6, backoffCap=1e6)
        await page.wait_for_function("socket.state === 'open'")
        await server.kill()
        await page.wait_for_function("socket.state === 'waiting'")

    async with running_server(server.port):
        await page.context.set_offline(True)
        await page.context.set_offline(False)
        await page.wait_for_function("socket.state === 'open'")
    assert (await page.evaluate("states"))[:4] == ["open", "waiting", "connecting", "open"]


async def test_binary_data_of_each_kind_goes_there_and_back(page: Page, server: RunningServer) -> None:
    await visit(page, server)
    await connect(page, "/echo")
    await page.evaluate(
        """() => {
            const bytes = new Uint8Array([0, 1, 2, 255]);
            const kinds = [bytes, bytes.buffer, new DataView(bytes.buffer, 1), new Blob([bytes])];
            for (const data of kinds) socket.send(data);
            bytes.fill(7);
        }"""
    )
    await page.wait_for_function("received.length === 4")
    assert await page.evaluate("received.every((data) => data instanceof Blob)")
    contents = "Promise.all(received.map(async (data) => [...new Uint8Array(await data.arrayBuffer())]))"
    assert await page.evaluate(contents) == [[0, 1, 2, 255], [0, 1, 2, 255], [1, 2, 255], [0, 1, 2, 255]]

    await page.evaluate("socket.binaryType = 'arraybuffer'")
    await page.evaluate("socket.send(new Uint8Array([3]))")
    await page.wait_for_function("received.length === 5")
    assert await page.evaluate("received[4] instanceof ArrayBuffer")


async def test_close_is_the_closing_handshake(page: Page, server: RunningServer) -> None:
    await visit(page, server)
    await connect(page, "/echo")
    await send(page, "last words")
    await receives(page, "last words")
    outcome = await page.evaluate(
        """() => new Promise((resolve) => {
            socket.onclose = ({ code, wasClean }) => resolve([code, wasClean]);
            socket.close(4000, "bye");
        })"""
    )
    assert outcome == [4000, True]


async def test_it_works_in_a_worker(page: Page, server: RunningServer) -> None:
    await visit(page, server)
    answer = await page.evaluate(
        """() => new Promise((resolve, reject) => {
            const worker = new Worker("/worker.js", { type: "module" });
            worker.onmessage = ({ data }) => resolve(data);
            worker.onerror = ({ message }) => reject(message);
        })"""
    )
    assert answer == [f"ws://127.0.0.1:{server.port}/echo", "from a worker"]
