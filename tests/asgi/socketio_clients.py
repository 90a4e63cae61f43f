"""What clients of python-socketio do on a live server, over each transport; `socketio_suite.py` runs this."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import socketio  # type: ignore[import-untyped]
import websockets
from engineio.payload import Payload  # type: ignore[import-untyped]
from live_servers import serving

pytestmark = pytest.mark.anyio

POLLING, WEBSOCKET, UPGRADED = ("polling",), ("websocket",), ("polling", "websocket")
over_each = pytest.mark.parametrize("transports", [POLLING, WEBSOCKET, UPGRADED], ids="-".join)
MANY = 300
# By default, a client in Python gives up when it polls and more than 16 packets wait.
Payload.max_decode_packets = 2 * MANY
QUICK = {"ping_interval": 1, "ping_timeout": 1}
"""A client that polls leaves once its last request is answered, at the next ping or when none is answered."""


@pytest.fixture
def anyio_backend() -> str:
    """Run everything with asyncio."""
    return "asyncio"


class Site:
    """A Socket.IO server, and what its handlers have seen."""

    def __init__(self, **options: Any) -> None:
        self.sio = socketio.AsyncServer(async_mode="asgi", **options)
        self.app = socketio.ASGIApp(self.sio)
        self.port = 0
        self.seen: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        for handler in (self.connect, self.disconnect, self.echo, self.join, self.leave, self.say, self.count):
            self.sio.on(handler.__name__, handler)
        self.sio.on("echo", self.echo, namespace="/other")
        self.sio.on("sign", self.sign)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def connect(self, sid: str, environ: Any, auth: Any) -> None:
        """Let everybody in but one."""
        if auth == {"name": "mallory"}:
            raise socketio.exceptions.ConnectionRefusedError("not you")
        await self.sio.save_session(sid, {"name": (auth or {}).get("name"), "agent": environ.get("HTTP_USER_AGENT")})
        self.seen.put_nowait(("connect", sid))

    def disconnect(self, sid: str, reason: str) -> None:
        """Note that a client has gone."""
        self.seen.put_nowait(("disconnect", sid, reason))

    async def echo(self, sid: str, *data: Any) -> Any:
        """Acknowledge with a list of the same data."""
        return [*data]

    async def join(self, sid: str, room: str) -> str:
        """Enter a room."""
        await self.sio.enter_room(sid, room)
        return room

    async def leave(self, sid: str, room: str) -> str:
        """Leave a room."""
        await self.sio.leave_room(sid, room)
        return room

    async def say(self, sid: str, room: str, text: str) -> None:
        """Say something to the others in a room."""
        await self.sio.emit("said", text, room=room, skip_sid=sid)

    async def count(self, sid: str, number: int) -> None:
        """Send so many numbers."""
        for each in range(number):
            await self.sio.emit("number", each, to=sid)

    async def sign(self, sid: str) -> Any:
        """Answer with the session."""
        return await self.sio.get_session(sid)


@contextlib.asynccontextmanager
async def site(**options: Any) -> AsyncIterator[Site]:
    """Serve until the end of the block."""
    made = Site(**options)
    async with serving(made.app) as made.port:
        yield made


class Client:
    """A client, and what it hears."""

    def __init__(self, **options: Any) -> None:
        self.sio = socketio.AsyncClient(**{"reconnection": False, **options})
        self.heard: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        for namespace in ("/", "/other"):
            self.sio.on("*", lambda event, *data: self.heard.put_nowait((event, *data)), namespace=namespace)
        self.sio.on("disconnect", lambda reason: self.heard.put_nowait(("disconnect", reason)))
        self.sio.on("connect", lambda: self.heard.put_nowait(("connect",)))


@contextlib.asynccontextmanager
async def client(at: Site, transports: tuple[str, ...], **options: Any) -> AsyncIterator[Client]:
    """Be connected until the end of the block."""
    made = Client()
    await made.sio.connect(at.url, transports=[*transports], **options)
    try:
        assert made.sio.transport() == transports[-1]
        if "/" in made.sio.namespaces:
            assert await made.heard.get() == ("connect",)
        yield made
    finally:
        # A client that polls would wait until its last request is answered.
        await made.sio.eio.disconnect(abort=True)


@over_each
async def test_events_are_acknowledged_in_both_directions(transports: tuple[str, ...]) -> None:
    async with site() as here, client(here, transports) as ada:
        for data in ["text", 7, {"a": [1, None, "ä"]}, ["list"]]:
            assert await ada.sio.call("echo", data) == [data]
        assert await ada.sio.call("echo", ("one", {"two": 2})) == ["one", {"two": 2}]
        ada.sio.on("ask", lambda question: f"{question}? yes")
        assert await here.sio.call("ask", "ready", to=ada.sio.get_sid()) == "ready? yes"


@over_each
async def test_binary_data_comes_back_as_it_was(transports: tuple[str, ...]) -> None:
    async with site() as here, client(here, transports) as ada:
        nested = {"first": b"\x00\xff" * 1000, "rest": [b"", "text", b"\r\n0\r\n\r\n"]}
        assert await ada.sio.call("echo", nested) == [nested]


@over_each
async def test_long_texts_come_back_as_they_were(transports: tuple[str, ...]) -> None:
    async with site() as here, client(here, transports) as ada:
        text = "grüße " * 50_000
        assert await ada.sio.call("echo", text) == [text]


@over_each
async def test_a_message_above_the_limit_ends_the_connection(transports: tuple[str, ...]) -> None:
    async with site(max_http_buffer_size=10_000) as here, client(here, transports) as ada:
        await ada.sio.emit("echo", "x" * 20_000)
        heard = await ada.heard.get()
        assert heard[0] == "disconnect"


@over_each
async def test_messages_stay_in_order_both_ways(transports: tuple[str, ...]) -> None:
    async with site() as here, client(here, transports) as ada:
        await ada.sio.emit("count", MANY)
        assert [await ada.heard.get() for _ in range(MANY)] == [("number", each) for each in range(MANY)]
        await ada.sio.call("join", "room")
        async with client(here, WEBSOCKET) as grace:
            for each in range(MANY):
                await grace.sio.emit("say", ("room", each))
            assert [await ada.heard.get() for _ in range(MANY)] == [("said", each) for each in range(MANY)]


async def test_messages_stay_in_order_while_the_transport_changes() -> None:
    async with site() as here:
        ada = Client()
        connecting = asyncio.ensure_future(ada.sio.connect(here.url, transports=[*UPGRADED]))
        _, sid = await here.seen.get()
        for each in range(MANY):
            await here.sio.emit("number", each, to=sid)
        await connecting
        numbers = [heard for _ in range(MANY + 1) if (heard := await ada.heard.get()) != ("connect",)]
        assert numbers == [("number", each) for each in range(MANY)]
        assert ada.sio.transport() == "websocket"
        await ada.sio.eio.disconnect(abort=True)


@over_each
async def test_only_a_room_hears_what_is_said_in_it(transports: tuple[str, ...]) -> None:
    async with (
        site() as here,
        client(here, transports) as ada,
        client(here, transports) as grace,
        client(here, transports) as edsger,
    ):
        for each, room in ((ada, "garden"), (grace, "garden"), (edsger, "kitchen")):
            assert await each.sio.call("join", room) == room
        await ada.sio.emit("say", ("garden", "hello"))
        assert await grace.heard.get() == ("said", "hello")
        await edsger.sio.call("join", "garden")
        await grace.sio.call("leave", "garden")
        await here.sio.emit("said", "to all in the garden", room="garden")
        for each in (ada, edsger):
            assert await each.heard.get() == ("said", "to all in the garden")
        await here.sio.close_room("garden")
        await here.sio.emit("said", "to nobody", room="garden")
        await here.sio.emit("said", "to all")
        # Whoever had heard anything else would have heard it before.
        for each in (ada, grace, edsger):
            assert await each.heard.get() == ("said", "to all")


async def test_a_crowd_with_all_transports_hears_everything() -> None:
    async with site() as here, contextlib.AsyncExitStack() as stack:
        crowd = [
            await stack.enter_async_context(client(here, transports))
            for transports in (POLLING, WEBSOCKET, UPGRADED)
            for _ in range(20)
        ]
        for number in range(20):
            await here.sio.emit("number", number)
        for each in crowd:
            assert [await each.heard.get() for _ in range(20)] == [("number", number) for number in range(20)]


@over_each
async def test_namespaces_share_a_connection(transports: tuple[str, ...]) -> None:
    async with site() as here, client(here, transports, namespaces=["/", "/other"]) as ada:
        assert await ada.sio.call("echo", "a") == ["a"]
        assert await ada.sio.call("echo", "b", namespace="/other") == ["b"]
        assert ada.sio.get_sid("/") != ada.sio.get_sid("/other")
        await here.sio.emit("number", 1, namespace="/other")
        assert await ada.heard.get() == ("number", 1)


@over_each
async def test_a_session_keeps_who_the_client_is(transports: tuple[str, ...]) -> None:
    headers = {"User-Agent": "a judge"}
    async with site() as here, client(here, transports, auth={"name": "ada"}, headers=headers) as ada:
        assert await ada.sio.call("sign") == {"name": "ada", "agent": "a judge"}


@over_each
async def test_a_client_that_is_refused_learns_why(transports: tuple[str, ...]) -> None:
    async with site(**QUICK) as here:
        mallory = Client()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await mallory.sio.connect(here.url, transports=[*transports], auth={"name": "mallory"})
        assert not mallory.sio.connected
        # Others may still come.
        async with client(here, transports) as ada:
            assert await ada.sio.call("echo", 1) == [1]


@over_each
async def test_the_server_learns_that_a_client_leaves(transports: tuple[str, ...]) -> None:
    async with site(**QUICK) as here, client(here, transports) as ada:
        _, sid = await here.seen.get()
        await ada.sio.disconnect()
        assert await here.seen.get() == ("disconnect", sid, "client disconnect")


@over_each
async def test_a_client_learns_that_the_server_disconnects_it(transports: tuple[str, ...]) -> None:
    async with site() as here, client(here, transports) as ada:
        _, sid = await here.seen.get()
        await here.sio.disconnect(sid)
        assert await ada.heard.get() == ("disconnect", "server disconnect")
        assert await here.seen.get() == ("disconnect", sid, "server disconnect")


async def test_the_server_learns_that_a_websocket_has_vanished() -> None:
    async with site() as here:
        url = f"ws://127.0.0.1:{here.port}/socket.io/?EIO=4&transport=websocket"
        async with websockets.connect(url, proxy=None) as vanishing:
            assert str(await vanishing.recv()).startswith("0{")
            await vanishing.send("40")
            assert str(await vanishing.recv()).startswith("40{")
            _, sid = await here.seen.get()
            vanishing.transport.abort()
            seen = await here.seen.get()
            assert seen[:2] == ("disconnect", sid)


async def test_the_server_learns_that_a_polling_client_has_vanished() -> None:
    async with site(ping_interval=0.2, ping_timeout=0.2) as here, aiohttp.ClientSession() as session:
        url = f"{here.url}/socket.io/?EIO=4&transport=polling"
        async with session.get(url) as answer:
            opened = await answer.text()
        eio = opened.split('"sid":"')[1].split('"')[0]
        async with session.post(f"{url}&sid={eio}", data="40") as answer:
            assert await answer.text() == "OK"
        _, sid = await here.seen.get()
        assert await here.seen.get() == ("disconnect", sid, "ping timeout")


@over_each
async def test_pings_keep_a_silent_client_connected(transports: tuple[str, ...]) -> None:
    async with site(ping_interval=0.1, ping_timeout=1) as here, client(here, transports) as ada:
        await asyncio.sleep(1.5)
        assert ada.heard.empty()
        assert await ada.sio.call("echo", "still here") == ["still here"]


@over_each
async def test_a_client_comes_back_to_a_server_that_was_restarted(transports: tuple[str, ...]) -> None:
    before, after = Site(), Site()
    ada = Client(reconnection=True, reconnection_delay=0.05, reconnection_delay_max=0.1)
    async with serving(before.app) as before.port:
        await ada.sio.connect(before.url, transports=[*transports])
        assert await ada.heard.get() == ("connect",)
    heard = await ada.heard.get()
    assert heard[0] == "disconnect"
    async with serving(after.app, before.port):
        assert await ada.heard.get() == ("connect",)
        assert await ada.sio.call("echo", "again") == ["again"]
        await ada.sio.eio.disconnect(abort=True)


@over_each
async def test_the_simple_clients_take_turns(transports: tuple[str, ...]) -> None:
    def in_a_thread(url: str) -> Any:
        with socketio.SimpleClient(reconnection=False) as sync:
            sync.connect(url, transports=[*transports])
            sync.emit("count", 3)
            numbers = [sync.receive(timeout=5) for _ in range(3)]
            return sync.transport, numbers, sync.call("echo", "sync")

    async with site(**QUICK) as here:
        numbers = [["number", each] for each in range(3)]
        found = await asyncio.to_thread(in_a_thread, here.url)
        assert found == (transports[-1], numbers, ["sync"])
        async with socketio.AsyncSimpleClient(reconnection=False) as simple:
            await simple.connect(here.url, transports=[*transports])
            await simple.emit("count", 3)
            assert [await simple.receive(timeout=5) for _ in range(3)] == numbers
            assert await simple.call("echo", "async") == ["async"]
