"""What the log reports about clients and handlers: requests, refusals, slow handlers."""

import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from application import Note
from multi_process import serve_in_processes
from running import Running, Serve

from hubbub import Accept, Frame, Refuse, Request, Response, Server
from hubbub.worker import Worker

FOREIGN = "Origin: https://evil.example"


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Leave the loggers of this process as they were."""
    loggers = [logging.getLogger(name) for name in ("hubbub", "hubbub.access")]
    levels = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


def nothing(server: Server, note: Note) -> None:
    """An application without a handler."""


def doorkeeper(server: Server, note: Note) -> None:
    @server.on("handshake")
    def on_handshake(server: Server, request: Request) -> Any:
        return {
            "/no": False,
            "/pay": Response("pay first", status=402),
            "/login": Refuse(4401, "log in"),
            "/yes": Accept(),
        }[request.path]


def waiting(server: Server, note: Note) -> None:
    """Answer once the test calls `Running.go_on`."""

    async def wait(server: Server, request: Request) -> None:
        note(request.path)
        await note.goes_on.wait()

    server.on("handshake", wait)
    server.on("request", wait)


# ---- refused clients -------------------------------------------------------------------------------------------------


async def test_a_refused_handshake_is_told_with_client_path_and_reason(serve: Serve) -> None:
    running = await serve(nothing)
    async with running.raw() as client:
        assert (await client.upgrade(FOREIGN, path="/chat?token=secret")).status == 403
        await running.log.tells(
            f"refused {client.address} GET /chat: 403 pages of this origin may not connect here, "
            "see the setting origins (origin https://evil.example)\n"
        )
    assert "secret" not in running.log.text


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("nonsense\r\n\r\n", ": 400 "),
        ("GET / HTTP/1.1\r\n\r\n", ": 400 no Host header"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 300, ": 431 "),
        ("GET / HT", ": 408 "),
    ],
)
async def test_a_head_that_is_none_is_told(serve: Serve, request_: str, words: str) -> None:
    running = await serve(nothing, max_header_size=256, handshake_timeout=0.1)
    async with running.raw() as client:
        client.send(request_)
        await running.log.tells(f"refused {client.address}{words}")


async def test_one_for_whom_there_is_no_room_is_told(serve: Serve) -> None:
    running = await serve(nothing, max_connections=1)
    async with running.connect(), running.raw() as client:
        assert (await client.upgrade(path="/chat")).status == 503
        await running.log.tells(f"refused {client.address} GET /chat: 503 too many connections\n")


async def test_one_for_whom_there_is_no_room_any_more_is_told_too(serve_here: Serve) -> None:
    running = await serve_here(waiting, max_connections=1)
    async with running.raw() as one, running.raw() as other:
        for client in (one, other):
            client.ask_for_upgrade(path="/chat")
            assert await running.noted() == ("/chat",)
        await running.go_on()
        assert {(await one.answer()).status, (await other.answer()).status} == {101, 503}
        await running.log.tells(" GET /chat: 503 too many connections\n")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/no", "403 by the handshake handler"),
        ("/pay", "402 by the handshake handler"),
        ("/login", "close code 4401 log in"),
    ],
)
async def test_what_a_handshake_handler_refuses_is_told(serve: Serve, path: str, words: str) -> None:
    running = await serve(doorkeeper)
    async with running.raw() as client:
        await client.upgrade(path=path)
        await running.log.tells(f"refused {client.address} GET {path}: {words}\n")


async def test_the_client_is_whom_a_trusted_proxy_names(serve: Serve) -> None:
    running = await serve(doorkeeper)
    async with running.raw() as client:
        await client.upgrade("X-Forwarded-For: 192.0.2.7", path="/no")
        await running.log.tells("refused 192.0.2.7 GET /no: 403")


async def test_a_flood_of_refusals_is_ten_lines_and_a_number(serve_here: Serve) -> None:
    running = await serve_here(doorkeeper)
    for _ in range(10):
        async with running.raw() as client:
            assert (await client.upgrade(path="/no")).status == 403
        async with running.raw() as client:
            assert (await client.upgrade(FOREIGN)).status == 403
    await running.stop()
    assert running.log.text.count("refused 127.0.0.1") == 10
    assert "... and refused 10 more\n" in running.log.text


async def test_what_is_only_counted_is_not_looked_at(serve_here: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing the data of a refused client may take time."""
    made: list[Request] = []
    on_refused = Worker.on_refused

    def refused(worker: Worker, client: tuple[str, int], request: Request | None, *others: Any) -> None:
        if request:
            made.append(request)
        on_refused(worker, client, request, *others)

    monkeypatch.setattr(Worker, "on_refused", refused)
    running = await serve_here(nothing)
    for _ in range(15):
        async with running.raw() as client:
            assert (await client.upgrade(FOREIGN)).status == 403
    await running.stop()
    assert len(made) == 10
    assert "... and refused 5 more\n" in running.log.text


async def test_refusals_that_are_not_listed_are_counted(serve_here: Serve) -> None:
    """The reactor keeps a bounded list of those that it has refused in one turn."""
    running = await serve_here(nothing)
    clients = [running.raw() for _ in range(200)]
    for client in clients:
        await client.__aenter__()
        client.send("nonsense\r\n\r\n")
    # It does not matter in which turns they arrived.
    for client in clients:
        assert (await client.answer()).status == 400
        await client.__aexit__()
    assert (await running.server.stats())["refused"] == 200
    await running.stop()
    assert running.log.text.count("refused 127.0.0.1") == 10
    assert "... and refused 190 more\n" in running.log.text


# ---- log injection ---------------------------------------------------------------------------------------------------


class Hostile:
    """Text with which a client tries to forge log lines, or to control the terminal of the log's reader."""

    path = "/%0aINJECTED%1b[31m%E2%80%AE%c2%85"
    # A control character and a line end of latin-1, in which header values are read.
    headers = (
        b"Origin: https://evil\x85INJECTED\x9b31m",
        b"User-Agent: \x85INJECTED\xad",
        b"X-Forwarded-For: \x85INJECTED",
    )


async def hostile(running: Running, path: str = Hostile.path) -> None:
    """Send this text to the server, in a handshake and in a request."""
    for upgrade in (
        b"",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ):
        async with running.raw() as client:
            lines = [f"GET {path} HTTP/1.1".encode(), b"Host: localhost", *Hostile.headers]
            client.send(b"\r\n".join([*lines, upgrade + b"Sec-WebSocket-Version: 13", b"", b""]))
            await client.answer()


def assert_harmless(log: str) -> None:
    """Assert that the server began every line, and that each is printable."""
    assert all(line.isprintable() for line in log.split("\n"))
    assert not any(line.lstrip().startswith("INJECTED") for line in log.splitlines())


async def test_nothing_that_a_client_sends_breaks_a_line(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("handshake")
        def on_handshake(server: Server, request: Request) -> Refuse:
            return Refuse(4000, request.path[:30] + "\n\x1b[31m")

    running = await serve(application, access_log=True, origins="*")
    await hostile(running)
    await running.log.tells("close code 4000")
    await running.stop()
    assert_harmless(running.log.text)


async def test_nor_does_it_where_the_reactor_refuses(serve: Serve) -> None:
    running = await serve(nothing, access_log=True)
    await hostile(running)
    await running.log.tells("may not connect here")
    await running.stop()
    assert_harmless(running.log.text)


async def test_nor_does_it_where_a_handler_fails(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        def fail(server: Server, request: Request) -> None:
            raise LookupError

        server.on("handshake", fail)
        server.on("request", fail)

    running = await serve(application, origins="*")
    await hostile(running)
    await running.stop()
    assert running.log.text.count(r"failed (/\nINJECTED\x1b[31m\u202e\x85)") == 2
    assert_harmless(running.log.text)


async def test_nor_does_an_exception_that_quotes_the_client() -> None:
    def application(server: Server, note: Note) -> None:
        def fail(server: Server, request: Request) -> None:
            raise ValueError(f"bad {request.path}")

        async def fail_too(server: Server, frame: Frame) -> None:
            raise ValueError(f"bad {frame.data!s}")

        server.on("request", fail)
        server.on("message", fail_too)

    async with serve_in_processes(1, application, {}) as running:
        async with running.raw() as client:
            client.ask(Hostile.path)
            assert (await client.answer()).status == 500
        async with running.connect() as websocket:
            await websocket.send("\nINJECTED\x1b[31m\u202e")
            await websocket.wait_closed()
        await running.log.tells(r"INJECTED\x1b[31m\u202e\x85")
        await running.stop()
    assert all(line.isprintable() for line in running.log.text.split("\n"))
    assert not any(line.startswith("INJECTED") for line in running.log.text.splitlines())
    assert running.log.text.count("ValueError: bad") == 2


async def test_a_handler_that_fails_again_and_again_is_ten_tracebacks_and_a_number(serve_here: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        def on_request(server: Server, request: Request) -> None:
            raise LookupError

        @server.on("close")
        async def on_close(server: Server) -> None:
            raise LookupError

    running = await serve_here(application)
    for _ in range(15):
        async with running.raw() as client:
            client.ask()
            assert (await client.answer()).status == 500
    async with running.connect():
        pass
    await running.stop()
    assert running.log.text.count("the request handler failed") == 10
    assert running.log.text.count("Traceback") == 11
    assert "on_request failed 5 more times\n" in running.log.text
    assert "the close handler failed" in running.log.text


# ---- the access log --------------------------------------------------------------------------------------------------


async def test_the_access_log_tells_of_each_handshake_and_request(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        doorkeeper(server, note)
        server.on("request", lambda server, request: Response(b"12345", status=201))

    running = await serve(application, access_log=True)
    for path, method, status, sent in (
        ("/page?a=%20b", "GET", 201, 5),
        ("/page", "HEAD", 201, 0),
        ("/health", "GET", 200, 2),
    ):
        async with running.raw() as client:
            client.ask(path, "User-Agent: test", "Origin: https://localhost", method=method)
            assert (await client.answer(has_body=method == "GET")).status == status
            await running.log.tells(f'{client.address} "{method} {path}" {status} {sent} ')
    for path, status in (("/yes?room=1", 101), ("/no", 403), ("/pay", 402), ("/login", 101)):
        async with running.raw() as client:
            assert (await client.upgrade(path=path)).status == status
            await running.log.tells(f'{client.address} "GET {path}" {status} ')
    async with running.raw() as client:
        assert (await client.upgrade(FOREIGN)).status == 403
        await running.log.tells(f'{client.address} "GET /" 403 ')
    async with running.raw() as client:
        client.send("nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        await running.log.tells(f'{client.address} "-" 400 ')


async def test_a_line_has_the_client_the_duration_the_origin_and_the_agent(serve: Serve) -> None:
    running = await serve(nothing, access_log=True)
    async with running.raw() as client:
        client.ask("/", "X-Forwarded-For: 192.0.2.7", 'User-Agent: a "b"', "Origin: https://app.example")
        assert (await client.answer()).status == 426
        await running.log.tells("192.0.2.7 ")
    (line,) = [line for line in running.log.text.splitlines() if "192.0.2.7" in line]
    _, _, rest = line.partition('"GET /" 426 ')
    sent, milliseconds, unit, origin, *agent = rest.split(" ")
    assert int(sent) > 0
    assert float(milliseconds) >= 0
    assert [unit, origin, " ".join(agent)] == ["ms", '"https://app.example"', r'"a \"b\""']


async def test_who_has_hung_up_before_the_answer_has_no_status(serve_here: Serve) -> None:
    running = await serve_here(waiting, access_log=True)
    async with running.raw() as client:
        client.ask("/slow")
        assert await running.noted() == ("/slow",)
        gone = client.address
    async with running.raw() as other:
        # When the server answers this client, it has noticed the end of the other one.
        other.ask("/health")
        assert (await other.answer()).status == 200
        await running.go_on()
        await running.log.tells(f'{gone} "GET /slow" - 0 ')


async def test_open_runs_as_ever_with_an_access_log(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("open", lambda server, request: note(request.path, server.exists(request.fd)))

    running = await serve(application, access_log=True)
    async with running.connect("/chat"):
        assert await running.noted() == ("/chat", True)


async def test_without_access_log_there_is_none(serve: Serve) -> None:
    running = await serve(nothing)
    async with running.connect():
        pass
    await running.stop()
    assert '"GET /' not in running.log.text


async def test_the_access_log_does_not_depend_on_log_level(serve_here: Serve) -> None:
    running = await serve_here(nothing, access_log=True, log_level="error")
    async with running.connect("/chat"):
        await running.log.tells('"GET /chat" 101 0 ')


# ---- slow handlers ---------------------------------------------------------------------------------------------------


def slow(server: Server, note: Note, event: Any, kind: str = "sync") -> None:
    """An application with a slow handler of an event."""

    def take_time(*arguments: Any) -> None:
        time.sleep(0.15)
        note("done")

    if kind == "async":

        async def at_once(*arguments: Any) -> None:
            take_time()
            await asyncio.sleep(0)

        server.on(event, at_once)
    else:
        server.on(event, take_time, threaded=kind == "threaded")


EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="NOT TESTED: Python 3.11 starts no task at once")


@pytest.mark.parametrize("kind", ["sync", pytest.param("async", marks=EAGER)])
@pytest.mark.parametrize("event", ["handshake", "open", "message", "close"])
async def test_a_handler_that_holds_the_event_loop_is_named(serve: Serve, event: str, kind: str) -> None:
    running = await serve(lambda server, note: slow(server, note, event, kind))
    async with running.connect() as client:
        await client.send("x")
    name = "take_time" if kind == "sync" else "at_once"
    await running.log.tells(f"slow.<locals>.{name} (the {event} handler) held the event loop for ")


async def test_a_request_handler_is_named_too(serve: Serve) -> None:
    running = await serve(lambda server, note: slow(server, note, "request"))
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).status == 404
    await running.log.tells("take_time (the request handler) held the event loop for ")


async def test_so_is_the_function_of_a_timer(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("worker_start", lambda server: server.after(0, time.sleep, 0.15))

    running = await serve(application)
    await running.log.tells("slow: time.sleep (a timer's function) held the event loop for ")


async def test_threads_hold_nothing(serve: Serve) -> None:
    running = await serve(lambda server, note: slow(server, note, "message", "threaded"))
    async with running.connect() as client:
        await client.send("x")
        assert await running.noted() == ("done",)
    await running.stop()
    assert "slow: " not in running.log.text


async def test_a_handler_is_not_blamed_for_the_one_before(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        slow(server, note, "handshake")
        server.on("open", lambda server, request: note("open"))
        server.on("message", lambda server, frame: note("message"))

    running = await serve(application)
    async with running.connect() as client:
        await client.send("x")
        assert [await running.noted() for _ in range(3)] == [("done",), ("open",), ("message",)]
    await running.stop()
    assert running.log.text.count("slow: ") == 1


async def test_a_handler_that_is_slow_again_and_again_is_told_once_with_a_number(serve_here: Serve) -> None:
    running = await serve_here(lambda server, note: slow(server, note, "message"))
    async with running.connect() as client:
        for _ in range(4):
            await client.send("x")
            assert await running.noted() == ("done",)
    await running.stop()
    assert running.log.text.count("held the event loop") == 1
    assert "slow.<locals>.take_time, 3 more times" in running.log.text
