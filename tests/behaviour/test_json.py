"""A `dict` or `list` is sent as JSON text, and received JSON is decoded."""

import asyncio
import json
import math
from collections import OrderedDict, defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from application import KINDS, Note, add
from running import Serve
from websockets.exceptions import ConnectionClosedError

from hubbub import CloseCode, Frame, Opcode, Request, Server

PATIENCE = 20


class Rows(list[int]):
    """A list of our own."""


ENCODED: list[tuple[Any, str]] = [
    ({}, "{}"),
    ([], "[]"),
    ({"text": "größer 🙂", "count": 1, "none": None}, '{"text":"größer 🙂","count":1,"none":null}'),
    ([1, 2.5, True, "é", {"deep": [[]]}], '[1,2.5,true,"é",{"deep":[[]]}]'),
    ({1: "a", None: "b", 1.5: "c", False: "d"}, '{"1":"a","null":"b","1.5":"c","false":"d"}'),
    (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
    (defaultdict(int, a=1), '{"a":1}'),
    (Rows([1, 2]), "[1,2]"),
    ({"tuple": (1, 2)}, '{"tuple":[1,2]}'),
]


def not_encodable() -> list[Any]:
    """Values that JSON, or UTF-8, cannot express."""
    circular: dict[str, Any] = {}
    circular["self"] = circular
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return [
        {"object": object()},
        {"set": {1}},
        [b"bytes"],
        {("a", "tuple"): 1},
        [math.nan],
        {"inf": -math.inf},
        circular,
        deep,
        ["\ud800"],
        {"\udfff": 1},
    ]


def tells_open(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))


@pytest.mark.parametrize(("value", "text"), ENCODED)
async def test_a_dict_or_list_goes_as_compact_text(serve_here: Serve, value: Any, text: str) -> None:
    running = await serve_here(tells_open)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        assert await running.server.push(await running.opened(), value)
        assert await client.recv() == text


async def test_every_way_of_sending_takes_one(serve: Serve) -> None:
    running = await serve(tells_open)
    value = {"n": [1, "ü"]}
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        fd = await running.opened()
        assert await running.server.subscribe(fd, "news")
        server = running.server
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("push", (fd, value)),
            ("send", (fd, value)),
            ("publish", ("news", value)),
            ("broadcast", (value,)),
            ("push", (fd, value, Opcode.TEXT)),
        ]
        for method, arguments in calls:
            await getattr(server, method)(*arguments)
            assert await client.recv() == '{"n":[1,"ü"]}'
        await server.push(fd, value, Opcode.BINARY)
        assert await client.recv() == '{"n":[1,"ü"]}'.encode()


async def test_handlers_and_threads_send_and_receive_it(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("message", lambda server, frame: server.push(frame.fd, [frame.json()]), threaded=True)

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            server.push(request.fd, {"fd": request.fd})

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        assert "fd" in json.loads(await client.recv())
        for text, answer in (('{"a": "é"}', '[{"a":"é"}]'), (b'{"a": "\xc3\xa9"}', '[{"a":"é"}]'), ("5", "[5]")):
            await client.send(text)
            assert await client.recv() == answer


async def test_what_cannot_be_encoded_is_a_type_error_and_sends_nothing(serve_here: Serve) -> None:
    running = await serve_here(tells_open)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        fd = await running.opened()

        async def send_all(server: Server, note: Note) -> None:
            for value in not_encodable():
                refused = pytest.raises(TypeError, match="data must be encodable as JSON")
                with refused:
                    server.push(fd, value)
                with refused:
                    await server.send(fd, value)
                with refused:
                    server.publish("news", value)
                with refused:
                    server.broadcast(value)

        await running.server.run(send_all)
        for other in (5, None, (1, 2), {1}, object()):
            with pytest.raises(TypeError, match="data must be str, bytes-like, a dict or a list, not "):
                await running.server.push(fd, other)
        with pytest.raises(TypeError, match="data must be str or bytes-like"):
            await running.server.ping(fd, {})
        with pytest.raises(ValueError, match="larger than send_queue_size"):
            await running.server.push(fd, ["x" * (5 << 20)])
        await running.server.push(fd, "end")
        assert await client.recv() == "end"


NOT_JSON = [
    "",
    "hello",
    "{",
    "[NaN]",
    "[Infinity]",
    "[-Infinity]",
    "[1e400]",
    '{"a": -1E999}',
    "{'a': 1}",
    "[1,]",
    "\ufeff[]",
    "[" * 100_000,
    '["\\ud800"]',
    '["\\uDfff"]',
    "1" * 10_000,
    b"\xff\xfe[\x00]\x00",
    b"[\xff]",
]


@pytest.mark.parametrize("kind", KINDS)
async def test_text_that_is_not_json_closes_with_1007_unless_the_handler_catches_it(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "catch":
                try:
                    Frame(1, "{").json()
                except ValueError as error:
                    server.push(frame.fd, str(error))
                return
            frame.json()

        add(server, "message", kind, on_message)

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        await client.send("catch")
        assert str(await client.recv()).startswith("not JSON: ")
        await client.send("{")
        with pytest.raises(ConnectionClosedError) as closed:
            await client.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == CloseCode.INVALID_FRAME_PAYLOAD_DATA
    await running.log.tells("the message handler failed")


@pytest.mark.parametrize("kind", ["sync", "suspending"])
async def test_any_other_value_error_closes_with_1011(serve_here: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        def on_message(server: Server, frame: Frame) -> None:
            if frame.data == "int":
                int("x")
            if frame.data == "json":
                json.loads("{")
            try:
                frame.json()
            except ValueError as error:
                raise LookupError from error

        add(server, "message", kind, on_message)

    running = await serve_here(application)
    for text in ("int", "json", "wrapped"):
        async with asyncio.timeout(PATIENCE), running.connect() as client:
            await client.send(text)
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == CloseCode.INTERNAL_ERROR


@pytest.mark.parametrize("data", NOT_JSON)
def test_what_is_not_json_is_a_value_error(data: str | bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        Frame(1, data).json()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("{}", {}),
        (' [1, "é", null] ', [1, "é", None]),
        ('"text"', "text"),
        ("12345678901234567890", 12345678901234567890),
        ("[1.5e300, -0.25, 1e-400]", [1.5e300, -0.25, 0.0]),
        ('["\\ud83d\\ude42"]', ["🙂"]),
        ("é".join(['["', '"]']).encode(), ["é"]),
    ],
)
def test_json_is_decoded(data: str | bytes, value: Any) -> None:
    assert Frame(1, data).json() == value


async def test_the_body_of_a_request_is_decoded(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        def on_request(server: Server, request: Request) -> str:
            try:
                return repr(request.json())
            except ValueError as error:
                return str(error)[:8]

    running = await serve(application)
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        for body, answer in ((b'{"a": "\xc3\xa9"}', "{'a': 'é'}"), (b"", "not JSON"), (b"[\xff]", "not JSON")):
            client.ask("/", f"Content-Length: {len(body)}", method="POST")
            client.send(body)
            assert (await client.answer()).body.decode() == answer


# ---- another library -------------------------------------------------------------------------------------


class Marked:
    """Encodes like the standard library's, and says so."""

    def __init__(self, result: Any = None) -> None:
        self._result = result

    def dumps(self, value: Any) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result if self._result is not None else b"marked " + json.dumps(value).encode()

    def loads(self, data: str | bytes) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return ["marked", json.loads(data)]


async def test_another_library_encodes_and_decodes_everything(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("message", lambda server, frame: server.push(frame.fd, frame.json()))
        server.on("request", lambda server, request: repr(request.json()))
        server.on("open", lambda server, request: server.subscribe(request.fd, "news"))

    running = await serve(application, json=Marked())
    async with asyncio.timeout(PATIENCE), running.connect() as client, running.raw() as http:
        await client.send("{}")
        assert await client.recv() == 'marked ["marked", {}]'
        await running.server.publish("news", [1])
        assert await client.recv() == "marked [1]"
        http.ask("/", "Content-Length: 2", method="POST")
        http.send(b"[]")
        assert (await http.answer()).body == b"['marked', []]"


async def test_the_standard_librarys_own_module_is_what_is_used_without_one(serve_here: Serve) -> None:
    running = await serve_here(tells_open, json=json)
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        await running.server.push(await running.opened(), {"a": "é"})
        assert await client.recv() == '{"a":"é"}'


@pytest.mark.parametrize("result", [5, bytearray(b"{}"), "\ud800", b"\xff", RuntimeError("no"), KeyError("no")])
async def test_a_library_that_fails_or_returns_something_else_is_a_type_error(serve_here: Serve, result: Any) -> None:
    running = await serve_here(tells_open, json=Marked(result))
    async with asyncio.timeout(PATIENCE), running.connect():
        fd = await running.opened()
        for call in (
            lambda server, note: server.push(fd, {}),
            lambda server, note: server.send(fd, {}),
            lambda server, note: server.broadcast([]),
        ):
            with pytest.raises(TypeError):
                await running.server.run(call)


async def test_any_failure_to_decode_is_a_value_error(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            with pytest.raises(ValueError, match="not JSON: no"):
                frame.json()
            note("seen")

    running = await serve_here(application, json=Marked(RuntimeError("no")))
    async with asyncio.timeout(PATIENCE), running.connect() as client:
        await client.send("{}")
        assert await running.noted() == ("seen",)


@pytest.mark.parametrize(
    "library", [5, object(), SimpleNamespace(dumps=1, loads=1), SimpleNamespace(dumps=str), "json"]
)
def test_what_cannot_encode_is_refused_when_the_server_is_created(library: Any) -> None:
    with pytest.raises(TypeError, match="json must be a module or object with the functions dumps and loads"):
        Server(json=library)
