"""The handshake: which clients are accepted, and which answers the others get."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import KINDS, Note, add, interrupted
from running import Running, Serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from hubbub import Accept, Refuse, Request, Response, Server
from ports import refuses_connections

ANSWERS: dict[str, Any] = {
    "/none": None,
    "/true": True,
    "/false": False,
    "/accept": Accept(),
    "/accept-with": Accept("chat.v1", {"Set-Cookie": "session=1"}),
    "/not-offered": Accept("chat.v9"),
    "/response": Response("pay first", status=402, headers={"X-Price": "1"}),
    "/refuse": Refuse(4401, "log in"),
    "/nonsense": "welcome",
}


def doorkeeper(server: Server, note: Note, kind: str = "sync") -> None:
    def on_handshake(server: Server, request: Request) -> Any:
        if request.path == "/raise":
            raise LookupError("in handshake")
        return ANSWERS[request.path]

    add(server, "handshake", kind, on_handshake)
    server.on("open", lambda server, request: note("open", request.path))
    server.on("close", lambda server, fd, code: note("close", code))


async def refusal(running: Running, path: str = "/", **options: Any) -> Any:
    """Return the response to a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await running.connect(path, **options)
    return refused.value.response


@pytest.fixture(params=KINDS)
async def doorkept(serve: Serve, request: pytest.FixtureRequest) -> Running:
    """A server with a doorkeeper of each kind."""
    kind = request.param
    return await serve(lambda server, note: doorkeeper(server, note, kind))


async def test_accepted(doorkept: Running) -> None:
    for path in ("/none", "/true", "/accept"):
        async with doorkept.connect(path) as client:
            assert await doorkept.noted() == ("open", path)
            assert client.subprotocol is None
        assert await doorkept.noted() == ("close", 1000)


async def test_accepted_with_a_subprotocol_and_headers(doorkept: Running) -> None:
    offered = [Subprotocol("chat.v2"), Subprotocol("chat.v1")]
    async with doorkept.connect("/accept-with", subprotocols=offered) as client:
        assert client.subprotocol == "chat.v1"
        assert client.response is not None
        assert client.response.headers["Set-Cookie"] == "session=1"


async def test_a_client_that_does_not_offer_the_subprotocol_is_refused(doorkept: Running) -> None:
    for offered in (None, [Subprotocol("chat.v1")]):
        assert (await refusal(doorkept, "/not-offered", subprotocols=offered)).status_code == 400
    await doorkept.log.tells("GET /not-offered: 400 by the handshake handler")
    await doorkept.stop()
    assert "failed" not in doorkept.log.text


async def test_false_is_403(doorkept: Running) -> None:
    assert (await refusal(doorkept, "/false")).status_code == 403


async def test_a_response_is_the_answer(doorkept: Running) -> None:
    response = await refusal(doorkept, "/response")
    assert response.status_code == 402
    assert response.headers["X-Price"] == "1"
    assert response.body == b"pay first"


async def test_refuse_upgrades_and_closes_with_that_code(doorkept: Running) -> None:
    async with doorkept.connect("/refuse") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4401, "log in")
    await doorkept.stop()
    assert doorkept.notes.all == []


async def test_an_exception_or_a_wrong_answer_is_500(doorkept: Running) -> None:
    for path in ("/raise", "/nonsense"):
        assert (await refusal(doorkept, path)).status_code == 500
        await doorkept.log.tells(f"the handshake handler failed ({path})")
    async with doorkept.connect("/none"):
        assert await doorkept.noted() == ("open", "/none")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_exception_that_is_no_error_is_500_too(serve: Serve, kind: str) -> None:
    assert (await refusal(await serve(interrupted("handshake", kind)))).status_code == 500


async def test_a_refused_connection_has_no_events_and_counts_as_refused(serve: Serve) -> None:
    running = await serve(doorkeeper)
    for path in ("/false", "/response", "/raise"):
        await refusal(running, path)
    async with running.connect("/refuse") as client:
        await client.wait_closed()
    stats = await running.server.stats()
    assert (stats["accepted"], stats["refused"], stats["connections"]) == (0, 4, 0)
    await running.stop()
    assert running.notes.all == []


async def test_open_is_given_the_request_of_handshake_and_what_was_found_there(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        seen: list[Request] = []

        @server.on("handshake")
        def on_handshake(server: Server, request: Request) -> None:
            assert request.fd == 0
            request.state.user = "Ada"
            seen.append(request)

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(request is seen[0], request.fd > 0, request.state.user)

    running = await serve(application)
    async with running.connect():
        assert await running.noted() == (True, True, "Ada")


async def test_the_request_tells_what_the_client_sent(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(request.method, request.path, request.query_string, dict(request.query), request.query_all)
            note(request.headers["x-twice"], request.cookies["a"], request.subprotocols, request.scheme)
            note(*request.client, request.body, request.origin)

    running = await serve(application, origins="*", subprotocols=["y"])
    headers = [("X-Twice", "1"), ("X-Twice", "2"), ("Cookie", "a=b")]
    async with running.connect(
        "/caf%C3%A9?a=1&a=2&b=%20",
        additional_headers=headers,
        subprotocols=[Subprotocol("x"), Subprotocol("y")],
        origin="https://app.example.com",
    ) as client:
        pairs = [("a", "1"), ("a", "2"), ("b", " ")]
        assert await running.noted() == ("GET", "/café", "a=1&a=2&b=%20", {"a": "2", "b": " "}, pairs)
        assert await running.noted() == ("1, 2", "b", ["x", "y"], running.scheme)
        assert await running.noted() == (*running.address_of(client), b"", "https://app.example.com")


async def test_a_trusted_proxy_tells_who_the_client_is(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            info = server.info(request.fd)
            assert info is not None
            note(request.client, request.scheme, info.client)

    forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    running = await serve(application)
    async with running.connect(additional_headers=forwarded):
        assert await running.noted() == (("192.0.2.7", 0), "https", ("192.0.2.7", 0))

    running = await serve(application, trusted_proxies=[])
    async with running.connect(additional_headers=forwarded) as client:
        assert await running.noted() == (running.address_of(client), running.scheme, running.address_of(client))


# Subprotocols.


async def test_the_servers_order_of_subprotocols_decides(serve: Serve) -> None:
    running = await serve(lambda server, note: None, subprotocols=["best", "good"])
    for offered, chosen in (
        (["good", "best"], "best"),
        (["other", "good"], "good"),
        (["other"], None),
        ([], None),
    ):
        subprotocols = [Subprotocol(name) for name in offered] or None
        async with running.connect(subprotocols=subprotocols) as client:
            assert client.subprotocol == chosen


async def test_accept_without_a_subprotocol_leaves_the_choice_to_the_settings(serve: Serve) -> None:
    running = await serve(doorkeeper, subprotocols=["chat.v2"])
    offered = [Subprotocol("chat.v1"), Subprotocol("chat.v2")]
    async with running.connect("/accept", subprotocols=offered) as client:
        assert client.subprotocol == "chat.v2"
    async with running.connect("/accept-with", subprotocols=offered) as client:
        assert client.subprotocol == "chat.v1"


# Origins.


@pytest.mark.parametrize(
    ("origins", "allowed", "refused"),
    [
        (
            "same",
            [
                None,
                "SCHEME://chat.example.com:9501",
                "https://chat.example.com:9501",
                "SCHEME://CHAT.example.com:9501",
            ],
            ["SCHEME://chat.example.com", "SCHEME://chat.example.com:9502", "SCHEME://evil.example.com:9501", "null"],
        ),
        (
            ["https://app.example.com", "https://*.example.org", "http://localhost:8000"],
            [
                None,
                "https://app.example.com",
                "https://app.example.com:443",
                "https://a.example.org",
                "https://a.b.example.org",
                "http://localhost:8000",
            ],
            [
                "http://app.example.com",
                "https://app.example.com:8443",
                "https://app.example.com.evil.net",
                "https://example.org",
                "https://evilexample.org",
                "null",
            ],
        ),
        (["http://[0:0:0:0:0:0:0:1]:9741"], ["http://[::1]:9741"], ["http://[::1]", "http://[::2]:9741"]),
        (["null"], ["null"], ["http://localhost"]),
        ("*", ["https://anyone.example.net", "null", None], []),
        ([], [None], ["https://app.example.com"]),
    ],
)
async def test_pages_of_which_origins_may_connect(
    serve: Serve,
    subtests: pytest.Subtests,
    origins: str | list[str],
    allowed: list[str | None],
    refused: list[str | None],
) -> None:
    running = await serve(lambda server, note: None, origins=origins)
    for origin in allowed + refused:
        with subtests.test(origin=origin):
            sent = origin and origin.replace("SCHEME", running.scheme)
            assert await is_let_in(running, "chat.example.com:9501", sent) is (origin in allowed)


async def test_the_same_origin_has_the_default_port_of_its_scheme(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(lambda server, note: None)
    for origin, host, allowed in (
        ("http://chat.example.com", "chat.example.com", running.tls is None),
        ("http://chat.example.com", "chat.example.com:80", running.tls is None),
        ("https://chat.example.com", "chat.example.com:443", True),
        ("https://chat.example.com", "chat.example.com", True),
        ("https://chat.example.com", "chat.example.com:80", False),
    ):
        with subtests.test(origin=origin, host=host):
            assert await is_let_in(running, host, origin) is allowed


async def test_a_page_that_came_without_tls_is_foreign_where_the_server_speaks_tls(serve: Serve) -> None:
    running = await serve(lambda server, note: None)
    host = "chat.example.com:9501"
    assert await is_let_in(running, host, f"https://{host}")
    assert await is_let_in(running, host, f"http://{host}") is (running.tls is None)


async def is_let_in(running: Running, host: str, origin: str | None) -> bool:
    """Tell whether a page of this origin may connect to this host."""
    async with running.raw() as client:
        client.send(
            f"GET / HTTP/1.1\r\nHost: {host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        client.send(f"Origin: {origin}\r\n\r\n" if origin else "\r\n")
        status = (await client.answer()).status
    assert status in (101, 403)
    return status == 101


async def test_a_foreign_origin_is_refused_before_the_handler_is_asked(serve: Serve) -> None:
    running = await serve(lambda server, note: server.on("handshake", lambda server: note("asked")))
    response = await refusal(running, origin="https://evil.example.com")
    assert response.status_code == 403
    await running.stop()
    assert running.notes.all == []


async def test_a_foreign_origin_is_judged_before_what_else_is_wrong(serve: Serve) -> None:
    running = await serve(lambda server, note: None)
    async with running.raw() as client:
        offers = "Sec-WebSocket-Protocol: " + ",".join(f"p{number}" for number in range(1000))
        assert (await client.upgrade("Origin: https://evil.example.com", offers)).status == 403
    async with running.raw() as client:
        assert (await client.upgrade(offers)).status == 400


# Room.


async def test_above_max_connections_503_with_retry_after(serve: Serve) -> None:
    running = await serve(lambda server, note: server.on("close", lambda server: note("close")), max_connections=2)
    async with running.connect(), running.connect():
        response = await refusal(running)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
    await running.noted()
    async with running.connect():
        pass


async def test_room_that_is_lost_while_the_handler_decides_is_503(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("handshake")
        async def on_handshake(server: Server, request: Request) -> None:
            note("asked")
            await note.goes_on.wait()

    running = await serve(application, max_connections=1)
    async with running.raw() as first, running.raw() as second:
        first.ask_for_upgrade()
        second.ask_for_upgrade()
        await running.noted()
        await running.noted()
        await running.go_on()
        answers = [await first.answer(), await second.answer()]
    assert sorted(answer.status for answer in answers) == [101, 503]


# Requests that are not a handshake of RFC 6455 (the unit tests of the protocol cover them all).


async def test_what_is_no_handshake_is_told_so(serve: Serve) -> None:
    running = await serve(lambda server, note: None)
    for request_text, status in (
        ("POST / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 426),
        ("GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
    ):
        async with running.raw() as client:
            client.send(request_text)
            answer = await client.answer()
            assert answer.status == status
            if status == 426:
                assert answer.headers["sec-websocket-version"] == "13"
            assert await client.rest() == b""


# Slow handlers.


def hesitates(server: Server, note: Note, kind: str) -> None:
    """Let the handshakes of /slow wait for `Running.go_on`, in a task or in a thread."""

    async def wait() -> None:
        note("asked")
        await note.goes_on.wait()
        note("decided")

    loops: list[asyncio.AbstractEventLoop] = []

    @server.on("worker_start")
    async def on_worker_start(server: Server) -> None:
        loops.append(asyncio.get_running_loop())

    async def in_task(server: Server, request: Request) -> None:
        if request.path == "/slow":
            await wait()

    def in_thread(server: Server, request: Request) -> None:
        if request.path == "/slow":
            asyncio.run_coroutine_threadsafe(wait(), loops[0]).result()

    server.on("handshake", in_task if kind == "async" else in_thread, threaded=kind == "threaded")
    server.on("open", lambda server, request: note("open", request.path))
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
    server.on("close", lambda server, fd, code: note("close", code))


@pytest.fixture(params=["async", "threaded"])
async def hesitating(serve: Serve, request: pytest.FixtureRequest) -> Running:
    """A server with a handshake handler that hesitates."""
    kind = request.param
    return await serve(lambda server, note: hesitates(server, note, kind), shutdown_timeout=0.5)


async def test_a_slow_handler_holds_up_nobody(hesitating: Running) -> None:
    async with AsyncExitStack() as stack:
        # That is some for each worker, and fewer than there are threads.
        slow = [await stack.enter_async_context(hesitating.raw()) for _ in range(6)]
        for client in slow:
            client.ask_for_upgrade(path="/slow")
            assert await hesitating.noted() == ("asked",)
        for number in range(10):
            async with hesitating.connect("/quick") as quick:
                assert await hesitating.noted() == ("open", "/quick")
                await quick.send(str(number))
                assert await quick.recv() == str(number)
            assert await hesitating.noted() == ("close", 1000)
        await hesitating.go_on()
        assert [(await client.answer()).status for client in slow] == [101] * 6


async def test_a_client_that_leaves_while_the_handler_decides(hesitating: Running) -> None:
    async with hesitating.raw() as client:
        client.ask_for_upgrade(path="/slow")
        await hesitating.noted()
    await hesitating.go_on()
    assert await hesitating.noted() == ("decided",)
    # The handshake is accepted as if the client were still there; only then does the server notice that it has left.
    assert await hesitating.noted() == ("open", "/slow")
    assert await hesitating.noted() == ("close", 1006)


async def test_a_stop_waits_for_the_handler_and_then_answers_503(serve_here: Serve) -> None:
    running = await serve_here(lambda server, note: hesitates(server, note, "async"))
    async with running.raw() as client:
        client.ask_for_upgrade(path="/slow")
        assert await running.noted() == ("asked",)
        stopping = asyncio.create_task(running.stop())
        await refuses_connections(running.port)
        await running.go_on()
        answer = await client.answer()
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    await stopping
    assert running.notes.all == [("asked",), ("decided",)]


async def test_a_stop_cancels_a_handler_that_does_not_end(hesitating: Running) -> None:
    async with hesitating.raw() as client:
        client.ask_for_upgrade(path="/slow")
        assert await hesitating.noted() == ("asked",)
        await hesitating.stop()
        # A thread cannot be cancelled, so if the handler runs in one, there is no answer.
        assert (await client.rest()).partition(b"\r\n")[0] in (b"HTTP/1.1 503 Service Unavailable", b"")
    assert "handshake handler failed" not in hesitating.log.text
    assert hesitating.notes.all == [("asked",)]
