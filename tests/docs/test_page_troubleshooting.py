"""docs/troubleshooting.md: the messages that it quotes are those of the code, and most of them are produced here."""

import ast
import asyncio
import errno
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from snippets import ROOT
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import Endpoint, NotRunning, Refuse, Server

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")

# A piece with fewer letters could be anywhere in the code.
FEWEST_LETTERS = 4


def quoted() -> list[str]:
    """Return the messages of the page: all code in the first column of its tables, other than an exception's name."""
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|")]
    found = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    return [message for message in found if not re.fullmatch(r"[A-Z]\w+", message)]


def pieces_of(message: str) -> list[str]:
    """Return the parts of a message that do not change, without the punctuation at which the code may join them."""
    parts = [part.strip() for part in re.split(r"…|[:;,()]", message)]
    return [part for part in parts if sum(map(str.isalpha, part)) >= FEWEST_LETTERS]


@cache
def texts() -> str:
    """Return the strings of the code and of the system, a line each; `\\0` stands where a value is put in."""
    found = [text for path in (ROOT / "python/hubbub").rglob("*.py") for text in python_strings(path)]
    for path in (ROOT / "crates").rglob("src/**/*.rs"):
        literals = re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text(encoding="utf-8"))
        found += [re.sub(r"\{[^{}]*\}", "\0", re.sub(r"\\\n\s*", "", literal)) for literal in literals]
    found += [os.strerror(number) for number in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)]
    with pytest.raises(socket.gaierror) as unknown:
        socket.getaddrinfo("no number", None, flags=socket.AI_NUMERICHOST)
    return "\n".join([*found, unknown.value.strerror or ""])


def python_strings(path: Path) -> Iterator[str]:
    """Yield the strings of a module, formatted ones as wholes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[-\d.]*[a-z]", "\0", node.value)


@pytest.mark.parametrize("message", quoted())
def test_each_message_is_in_the_code(message: str) -> None:
    pieces = pieces_of(message)
    assert pieces
    assert [piece for piece in pieces if piece not in texts()] == []


def is_in(message: str, text: str) -> bool:
    """Whether a message of the page is in a text, with something where the page has `…`."""
    assert message in quoted(), f"the page does not have {message!r}"
    return bool(re.search(".*".join(map(re.escape, message.split("…"))), text))


# ---- at the start ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """A program, `app.py`, and how it ends."""

    message: str
    program: str
    status: int = 1
    arguments: tuple[str, ...] = ("app.py",)
    environ: tuple[tuple[str, str], ...] = ()


RUN = ("-m", "hubbub", "run", "--port", "0")
STOPS_AT_ONCE = 'server.on("start", lambda server: server.shutdown())\nserver.start()'
APPLICATION = "async def app(scope, receive, send):\n  pass\n"
STARTS = [
    Start("cannot listen on … port …: Address already in use", "Server(port=TAKEN).start()"),
    Start("cannot listen on … port …: Cannot assign requested address", "Server('192.0.2.1', port=0).start()"),
    Start("cannot listen on …: there is a file that is not a socket", "Server(uds=__file__).start()"),
    Start("…: unknown setting (…); did you mean …?", "Server(max_mesage_size=1)"),
    Start("…: … (…) is not allowed; allowed is …", "Server(max_message_size='much')"),
    Start("ssl_keyfile: missing, although ssl_certfile is set; allowed is both or neither", "Server(ssl_certfile='a')"),
    Start("there is no module …", "", arguments=(*RUN, "ap:server")),
    Start("there is no … in the module …", "", arguments=(*RUN, "app:serve")),
    Start(
        "… is neither a Server nor an ASGI application: …",
        "def server(): return Server()",
        arguments=(*RUN, "app:server"),
    ),
    Start("app must be an ASGI application: …", "Server(app=1)"),
    Start(
        "the app gets everything that no endpoint matches, so a … handler needs an Endpoint",
        f"{APPLICATION}Server(app=app).on('message')",
    ),
    Start(
        "the application cannot start: …",
        f"{APPLICATION}  await send({{'type': 'lifespan.startup.failed'}})\nServer(port=0, app=app).start()",
        status=3,
    ),
    Start(
        "the application failed to start",
        f"{APPLICATION}  1 / 0\nServer(port=0, app=app, lifespan='on').start()",
        status=3,
    ),
    Start(
        "the application does not support lifespan (…), and is served without it",
        f"{APPLICATION}server = Server(port=0, workers=1, app=app)\n{STOPS_AT_ONCE}",
        status=0,
    ),
    Start(
        "workers have to run this program again, but it came from standard input, which can be read only once",
        "Server(port=0, workers=2).start()",
        arguments=("-",),
    ),
    Start(
        "start() runs an event loop of its own: within one, use …",
        "import asyncio\nasync def main(): Server(port=0).start()\nasyncio.run(main())",
    ),
    Start(
        "the worker_start handler failed",
        "server = Server(port=0)\n@server.on('worker_start')\ndef fail(server, number): 1 / 0\nserver.start()",
        status=3,
    ),
    Start(
        "… before it was ready: it never reached start(), or was terminated while worker_start ran",
        "import os\nif not os.path.exists('was here'):\n"
        "  open('was here', 'w').close()\n  Server(port=0, workers=1).start()",
        status=3,
    ),
    Start("unknown event …; known events: …", "Server(port=0).on('mesage', print)"),
    Start(
        "the … handler receives (…) or the first of these; there is no argument for its parameter …",
        "Server(port=0).on('message', lambda server, frame, more: None)",
    ),
    Start(
        "the variable … is not a setting and is ignored: …",
        f"server = Server(port=0, workers=1)\n{STOPS_AT_ONCE}",
        status=0,
        environ=(("HUBBUB_MAX_MESAGE_SIZE", "1"),),
    ),
    Start(
        "the limit of … open files is too low for max_connections=…",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
        f"server = Server(port=0, workers=1)\n{STOPS_AT_ONCE}",
        status=0,
    ),
    Start(
        "no control socket: …; set …",
        f"import tempfile\ntempfile.tempdir = '/dev/null'\nserver = Server(port=0, workers=1)\n{STOPS_AT_ONCE}",
        status=0,
    ),
]


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.message[:40])
async def test_what_a_program_says_that_cannot_start(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = start.program.replace("TAKEN", str(taken.getsockname()[1]))
        program = f"from hubbub import Server\n{program}\n"
        (tmp_path / "app.py").write_text(program)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *start.arguments),
            cwd=tmp_path,
            env={**os.environ, **dict(start.environ)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate(program.encode())
    assert is_in(start.message, printed.decode()), printed.decode()
    assert process.returncode == start.status


# ---- refused ---------------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[str], bool]:
    """Whether a message of the page has been logged."""
    caplog.set_level("INFO", "hubbub")
    return lambda message: is_in(message, caplog.text)


def address(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


@dataclass(frozen=True)
class Refusal:
    """A handshake that a server refuses."""

    message: str
    status: int
    settings: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str = "/"


def failing(server: Server) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(
            "pages of this origin may not connect here, see the setting …", 403, {}, {"Origin": "http://elsewhere"}
        ),
        Refusal("… by the handshake handler", 403, {}, {}, "/no"),
        Refusal(
            "this host is not served here: … is not in allowed_hosts", 400, {"allowed_hosts": ["chat.example.com"]}, {}
        ),
        Refusal("not found", 404, {}, {}, "/nowhere"),
        Refusal("the request head is too large", 431, {"max_header_size": 1024}, {"Cookie": "a" * 2000}),
        Refusal("too many connections", 503, {"max_connections": 1}, {}),
    ],
    ids=lambda refusal: refusal.message[:30],
)
async def test_why_a_client_is_refused(refusal: Refusal, log: Callable[[str], bool]) -> None:
    server = Server(port=0, **refusal.settings)
    for path in ("/", "/no"):
        endpoint = Endpoint(path)
        endpoint.on("handshake", lambda server, request: request.path == "/")
        server.include(endpoint)
    async with server:
        first = await connect(address(server), proxy=None) if refusal.status == 503 else None
        with pytest.raises(InvalidStatus) as refused:
            await connect(address(server, refusal.path), additional_headers=refusal.headers, proxy=None)
        assert refused.value.response.status_code == refusal.status
        if first:
            await first.close()
    assert log(refusal.message)


async def test_a_refused_client_may_be_told_a_close_code(log: Callable[[str], bool]) -> None:
    server = Server(port=0)
    server.on("handshake", lambda server, request: Refuse(4401, "log in first"))
    async with server, connect(address(server), proxy=None) as client:
        await client.wait_closed()
    assert log("close code … …")
    assert log("refused … …: …")


async def answer_to(server: Server, sent: bytes) -> str:
    """Send bytes, and return everything that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer.decode(errors="replace")


def request_with(*lines: str, method: str = "GET", body: str = "") -> bytes:
    head = (f"{method} / HTTP/1.1", "Host: 127.0.0.1", *lines, "Connection: close", "", body)
    return "\r\n".join(head).encode()


@pytest.mark.parametrize(
    ("message", "sent", "status"),
    [
        (
            "the Connection header does not name upgrade",
            request_with("Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}=="),
            400,
        ),
        ("this is a WebSocket server", request_with(), 426),
        ("the request body is too large", request_with("Content-Length: 2000000", method="POST"), 413),
    ],
)
async def test_what_a_plain_request_is_answered(message: str, sent: bytes, status: int) -> None:
    server = Server(port=0)
    if status == 413:
        server.on("request", lambda server, request: "fine")
    async with server:
        answer = await answer_to(server, sent)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert is_in(message, answer)


async def test_a_failed_handler_is_answered() -> None:
    server = Server(port=0)
    server.on("request", failing)
    async with server:
        answer = await answer_to(server, request_with())
    assert answer.startswith("HTTP/1.1 500 ")
    assert is_in("the server failed to answer", answer)


async def test_tls_where_there_is_none(log: Callable[[str], bool]) -> None:
    async with Server(port=0) as server:
        # The beginning of a ClientHello.
        await answer_to(server, bytes.fromhex("16030100c8010000c40303") + bytes(200))
    assert log("the TLS handshake failed: this port speaks plain HTTP (there is no ssl_certfile)")


# ---- closed ----------------------------------------------------------------------------------------------


def decoding(server: Server, frame: Any) -> None:
    match frame.data:
        case "fail":
            raise ZeroDivisionError
        case "flood":
            while server.push(frame.fd, bytes(65536)):
                pass
        case _:
            frame.json()


@pytest.mark.parametrize(
    ("code", "message", "sent", "settings"),
    [
        (1000, "idle", None, {"idle_timeout": 0.2}),
        (1007, "the message is not JSON", "no JSON", {}),
        (1009, "message too big", "a" * 11, {"max_message_size": 10}),
        (1011, "the handler failed", "fail", {}),
        (1013, "slow consumer", "flood", {"send_queue_size": 1 << 20}),
    ],
)
async def test_why_a_connection_is_closed(code: int, message: str, sent: str | None, settings: dict[str, Any]) -> None:
    server = Server(port=0, **settings)
    server.on("message", decoding)
    async with server, connect(address(server), proxy=None) as client:
        with suppress(ConnectionClosed):
            if sent is not None:
                await client.send(sent)
            while True:
                await client.recv()
        assert (client.close_code, client.close_reason) == (code, message)
    assert f"{code} `{message}`" in PAGE


async def test_bytes_that_are_not_text() -> None:
    async with Server(port=0) as server, connect(address(server), proxy=None) as client:
        await client.send(b"\xff", text=True)
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1007, "text not UTF-8")
    assert "1007 `text not UTF-8`" in PAGE


async def test_the_end_of_the_server() -> None:
    async with Server(port=0) as server:
        client = await connect(address(server), proxy=None)
    await client.wait_closed()
    assert (client.close_code, client.close_reason) == (1001, "the server is stopping")
    assert "1001 `the server is stopping`" in PAGE


HANDSHAKE = request_with("Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}==").replace(
    b"Connection: close", b"Connection: Upgrade"
)


@pytest.mark.parametrize(
    ("message", "sent", "settings"),
    [
        ("frame not masked", b"\x81\x01a", {}),
        ("reserved bits set", b"\xf1\x80\0\0\0\0", {}),
        ("reserved opcode", b"\x83\x80\0\0\0\0", {}),
        ("the message was not finished in time", b"\x01\x80\0\0\0\0", {"message_timeout": 0.2}),
        ("keepalive ping timeout", b"", {"ping_interval": 0.2, "ping_timeout": 0.2}),
    ],
)
async def test_why_a_broken_client_is_closed(message: str, sent: bytes, settings: dict[str, Any]) -> None:
    async with Server(port=0, **settings) as server:
        assert is_in(message, await answer_to(server, HANDSHAKE + sent))


# ---- while it runs ---------------------------------------------------------------------------------------


async def test_what_is_logged_about_handlers(log: Callable[[str], bool]) -> None:
    server = Server(port=0, max_topics=1, workers=2)

    @server.on("message")
    def on_message(server: Server, frame: Any) -> None:
        for topic in ("one", "two"):
            server.subscribe(frame.fd, topic)
        time.sleep(0.15)
        raise ZeroDivisionError

    async with server, connect(address(server), proxy=None) as client:
        await client.send("hello")
        await client.wait_closed()
    assert log("the … handler failed (fd …)")
    assert log("slow: … (…) held the event loop for … ms")
    assert log("fd … has max_topics (…) subscriptions: further ones are refused")
    assert log("workers=… is ignored: an embedded server has one worker")


# ---- exceptions ------------------------------------------------------------------------------------------


def included(*paths: str) -> None:
    server = Server(port=0)
    for path in paths:
        server.include(Endpoint(path))


@pytest.mark.parametrize(
    ("message", "error", "call"),
    [
        (
            "… needs a running server: call it from a handler, or within …",
            NotRunning,
            lambda: Server(port=0).push(1, "hello"),
        ),
        ("the path … is served already, by …", ValueError, lambda: included("/a", "/a")),
        (
            "the path … would never be served: …, which is included before it, matches everything that it matches",
            ValueError,
            lambda: included("/{name}", "/a"),
        ),
    ],
)
def test_which_exceptions_say_it(message: str, error: type[Exception], call: Callable[[], object]) -> None:
    with pytest.raises(error) as raised:
        call()
    assert is_in(message, str(raised.value))


async def test_which_exceptions_a_running_server_raises() -> None:
    async with Server(port=0) as server:
        with pytest.raises(RuntimeError) as late:
            server.on("message", lambda server, frame: None)
        assert is_in("the … handler must be registered before the server starts", str(late.value))
        with pytest.raises(RuntimeError) as twice:
            await server.serve()
        assert is_in("the server is already running", str(twice.value))
