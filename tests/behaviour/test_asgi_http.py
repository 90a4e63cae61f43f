"""HTTP requests to an ASGI application: what it receives, and what the client gets."""

import asyncio
import contextlib
import functools
import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from application import Note
from asgi_application import App, MakeApp, Message, Receive, Scope, Send, answer, begin, end, part, read_body
from multi_process import serve_in_processes
from raw_client import RawClient
from running import Running, ServeApp, time_passes
from ways import serving, serving_apps

from hubbub import Endpoint, Response, Server

BIG = bytes(16 * 1024 * 1024)
"""More than the buffers of a connection hold."""
PIECE = bytes(1024 * 1024)
SMALL_BUFFER = 4096


def echo(note: Note) -> App:
    """Make an application that answers with what it has received of the request, as JSON."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        await answer(send, json.dumps({"path": scope["path"], "body": body.decode()}).encode())

    return app


async def echoed(client: RawClient) -> dict[str, Any]:
    answer = await client.answer()
    assert answer.status == 200
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def fixed(body: bytes = b"", status: int = 200, headers: Any = ()) -> MakeApp:
    """Return what makes an application that always answers the same."""

    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answer(send, body, status, headers)

        return app

    return make


# ---- receiving --------------------------------------------------------------------------------------------------


async def test_each_request_of_a_connection_has_a_channel_of_its_own(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.raw() as client:
        for number in range(5):
            client.ask(f"/{number}", "Content-Length: 6", method="POST")
            client.send(f"body-{number}")
            assert await echoed(client) == {"path": f"/{number}", "body": f"body-{number}"}


async def test_pipelined_requests_are_answered_in_order(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    head = "POST /{0} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nbody-{0}"
    async with running.raw() as client:
        client.send("".join(head.format(number) for number in range(5)))
        for number in range(5):
            assert await echoed(client) == {"path": f"/{number}", "body": f"body-{number}"}


async def test_a_body_in_chunks_arrives_without_their_framing(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.raw() as client:
        client.ask("/", "Transfer-Encoding: chunked", method="POST")
        client.send("3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n")
        assert (await echoed(client))["body"] == "abcdefg"
        client.ask("/next")
        assert await echoed(client) == {"path": "/next", "body": ""}


async def test_after_the_body_receive_waits_for_the_disconnect_and_repeats_it(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive)
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            note("waits", not waiting.done())
            note(*[(await each)["type"] for each in (waiting, receive(), receive())])

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 2", method="POST")
        client.send("ab")
        assert await running.noted() == ("waits", True)
    assert await running.noted() == ("http.disconnect",) * 3


async def test_receive_says_disconnect_after_the_whole_answer(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # Half of the application waits from the beginning, as middleware does.
            await read_body(receive)
            watching = asyncio.ensure_future(receive())
            await answer(send, b"done")
            note((await watching)["type"], (await receive())["type"])

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).body == b"done"
        assert await running.noted() == ("http.disconnect", "http.disconnect")
        client.ask()
        assert (await client.answer()).body == b"done"


async def test_an_application_that_streams_learns_that_the_client_has_left(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive)
            await begin(send)
            await part(send, b"first")
            note((await receive())["type"])
            for _ in range(2):
                try:
                    await part(send, b"second")
                except OSError as error:
                    note("send raises", isinstance(error, OSError))

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        await client.head()
        assert await client.chunk() == b"first"
    assert await running.noted() == ("http.disconnect",)
    assert await running.noted() == ("send raises", True)
    assert await running.noted() == ("send raises", True)


async def test_an_application_that_waits_in_send_learns_that_the_client_has_left(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send)
            await part(send, BIG)
            sending = asyncio.ensure_future(part(send, b"more"))
            await asyncio.sleep(0)
            note("waits", not sending.done())
            try:
                await sending
            except OSError:
                note("left")

        return app

    running = await serve_app(make)
    async with running.raw(SMALL_BUFFER) as client:
        client.ask()
        assert await running.noted() == ("waits", True)
        client.reset()
    assert await running.noted() == ("left",)


async def test_an_answer_to_a_client_that_has_left_raises_oserror(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("asked")
            while (await receive())["type"] != "http.disconnect":
                pass
            await begin(send)
            try:
                await end(send, b"too late")
            except OSError:
                note("left")
                raise

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        assert await running.noted() == ("asked",)
    assert await running.noted() == ("left",)
    await running.stop()
    assert "the application failed" not in running.log.text


async def test_the_end_of_an_answer_whose_announced_length_was_sent_raises_nothing(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive)
            await begin(send, headers=[(b"content-length", b"4")])
            await part(send, b"bo")
            await part(send, b"dy")
            note((await receive())["type"])
            await end(send)
            note("ended")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).body == b"body"
    assert await running.noted() == ("http.disconnect",)
    assert await running.noted() == ("ended",)


@pytest.mark.parametrize("then", ["returns", "raises", "streams", "answers"])
async def test_a_client_that_leaves_before_the_answer_leaves_nothing_behind(
    serve_app_here: ServeApp, then: str
) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("asked")
            while (await receive())["type"] != "http.disconnect":
                pass
            note("left")
            if then == "raises":
                raise LookupError("in the application")
            if then != "returns":
                await begin(send)
            if then == "streams":
                await part(send, b"")
            if then == "answers":
                await end(send)

        return app

    running = await serve_app_here(make, shutdown_timeout=50)
    async with running.raw() as client:
        client.ask()
        assert await running.noted() == ("asked",)
    assert await running.noted() == ("left",)
    # It would wait for a connection that nobody has closed.
    await asyncio.wait_for(running.stop(), 10)
    assert "the application returned" not in running.log.text
    assert ("the application failed" in running.log.text) == (then == "raises")


async def test_an_error_that_comes_from_the_disconnect_is_not_the_applications_failure(serve_app: ServeApp) -> None:
    class ClientHasLeft(Exception):
        """Frameworks translate our error into one of their own."""

    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send)
            await part(send, b"first")
            while (await receive())["type"] != "http.disconnect":
                pass
            note("left")
            try:
                await part(send, b"second")
            except OSError:
                raise ClientHasLeft  # noqa: B904 - as Starlette does it

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        await client.head()
    assert await running.noted() == ("left",)
    await running.log.tells("the client disconnected before the end (/): ")
    await running.stop()
    assert "the application failed" not in running.log.text
    assert "Traceback" not in running.log.text


async def test_a_client_that_ends_its_half_of_the_connection_gets_its_answer(serve_app: ServeApp) -> None:
    running = await serve_app(echo)
    async with running.raw() as client:
        if running.tls:
            pytest.skip("with TLS, the end of the stream is the end of the connection")
        client.ask("/half")
        client.end()
        assert await echoed(client) == {"path": "/half", "body": ""}


# ---- connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", ["client", "application"])
async def test_nothing_is_answered_after_connection_close(serve_app: ServeApp, asks: str) -> None:
    headers = [(b"connection", b"close")] if asks == "application" else []
    running = await serve_app(fixed(b"once", headers=headers))
    async with running.raw() as client:
        client.ask("/first", *(["Connection: close"] if asks == "client" else []))
        client.ask("/second")
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"once", "close")
        assert await client.rest() == b""


async def test_http_1_0_closes_unless_asked_to_stay(serve_app: ServeApp) -> None:
    running = await serve_app(fixed(b"old"))
    async with running.raw() as client:
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).body == b"old"
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).body == b"old"
        assert await client.rest() == b""


async def test_a_stream_to_http_1_0_lasts_until_the_connection_closes(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note(scope["http_version"])
            await begin(send)
            await part(send, b"one ")
            await part(send, b"two ")
            await end(send, b"three")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        status, headers = await client.head()
        assert await client.rest() == b"one two three"
    assert (status, headers["connection"]) == (200, "close")
    assert not {"content-length", "transfer-encoding"} & headers.keys()
    assert await running.noted() == ("1.0",)


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Space : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nX-No: host\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Nul: \x00\r\n\r\n",
    ],
    ids=[
        "length-and-chunked",
        "two-lengths",
        "signed-length",
        "chunked-not-last",
        "chunked-in-http-1.0",
        "negative-chunk",
        "folded",
        "space-before-colon",
        "two-hosts",
        "no-host",
        "nul",
    ],
)
async def test_ambiguous_requests_never_reach_the_application(serve_app_here: ServeApp, head: str) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("request", scope["path"])
            # The framing of a body is checked while it arrives, which the application sees as a disconnect.
            while (message := await receive())["type"] == "http.request":
                if not message["more_body"]:
                    note("body")
                    await answer(send)

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        client.send(head)
        assert (await client.answer()).status == 400
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.rest() == b""
    assert ("request", "/smuggled") not in running.notes.all
    assert ("body",) not in running.notes.all


async def test_what_follows_a_rejected_upgrade_is_not_a_request(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note(scope["type"], scope["path"])
            await receive()
            await send({"type": "websocket.close"})

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        client.ask_for_upgrade(f"Content-Length: {len(smuggled)}", path="/upgrade")
        client.send(smuggled)
        status, _ = await client.head()
        rest = await client.rest()
    assert status in (400, 403)
    assert b"HTTP/1.1" not in rest
    await running.stop()
    assert running.notes.all in ([], [("websocket", "/upgrade")])


# ---- scopes -----------------------------------------------------------------------------------------------------


def scopes(note: Note) -> App:
    """Make an application that notes its scopes, without what cannot be pickled."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note({name: value for name, value in scope.items() if name != "state"})
        await answer(send)

    return app


async def scope_of(running: Running, path: str, *headers: str, method: str = "GET") -> Scope:
    async with running.raw() as client:
        client.ask(path, *headers, method=method)
        assert (await client.answer()).status == 200
        (scope,) = await running.noted()
        assert isinstance(scope, dict)
        return scope


async def test_the_scope_has_what_asgi_names(serve_app: ServeApp) -> None:
    running = await serve_app(scopes)
    async with running.raw() as client:
        client.ask("/a/b?c=d&e", "X-One: 1", "x-two: \xe9", "X-One: 2", method="PATCH")
        assert (await client.answer()).status == 200
        (scope,) = await running.noted()
        address = client.address.split(":")
    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "PATCH"
    assert scope["scheme"] == running.scheme
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b", b"/a/b", b"c=d&e")
    assert scope["root_path"] == ""
    assert [tuple(pair) for pair in scope["headers"]] == [
        (b"host", b"localhost"),
        (b"x-one", b"1"),
        (b"x-two", "\xe9".encode()),
        (b"x-one", b"2"),
    ]
    host, port = scope["client"]
    assert [host, *([str(port)] if port else [])] == address
    assert tuple(scope["server"]) == ((running.uds, None) if running.uds else ("127.0.0.1", running.port))


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/a%20b", "/a b", b"/a%20b", b""),
        ("/caf%C3%A9?q=%C3%A9", "/café", b"/caf%C3%A9", b"q=%C3%A9"),
        ("/a%2Fb", "/a/b", b"/a%2Fb", b""),
        ("/a+b", "/a+b", b"/a+b", b""),
        ("/%ff", "/\ufffd", b"/%ff", b""),
        ("/a%3Fb?c?d", "/a?b", b"/a%3Fb", b"c?d"),
        ("//double//", "//double//", b"//double//", b""),
        ("/..%2f..", "/../..", b"/..%2f..", b""),
        ("/?", "/", b"/", b""),
        ("http://localhost/absolute?x=1", "/absolute", b"/absolute", b"x=1"),
    ],
)
async def test_paths_are_decoded_and_kept_as_they_came(
    serve_app_here: ServeApp, target: str, path: str, raw_path: bytes, query: bytes
) -> None:
    running = await serve_app_here(scopes)
    scope = await scope_of(running, target)
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


async def test_the_root_path_is_in_the_scope_and_in_the_path(serve_app: ServeApp) -> None:
    running = await serve_app(scopes, root_path="/api")
    scope = await scope_of(running, "/a%20b?c")
    assert (scope["root_path"], scope["path"]) == ("/api", "/api/a b")
    assert (scope["raw_path"], scope["query_string"]) == (b"/api/a%20b", b"c")


async def test_a_trusted_proxy_names_the_client_and_the_scheme(serve_app: ServeApp) -> None:
    running = await serve_app(scopes)
    scope = await scope_of(running, "/", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
    assert (tuple(scope["client"]), scope["scheme"]) == (("192.0.2.7", 0), "https")


async def test_nobody_else_names_the_client_or_the_scheme(serve_app_here: ServeApp) -> None:
    running = await serve_app_here(scopes, trusted_proxies=())
    scope = await scope_of(running, "/", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
    assert scope["client"][0] == "127.0.0.1"
    assert scope["scheme"] == "http"


async def test_state_is_copied_for_each_request(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                scope["state"].update(shared=[], number=0)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            state = scope["state"]
            state["shared"].append(1)
            state["number"] += 1
            await answer(send, json.dumps([len(state["shared"]), state["number"], "mine" in state]).encode())
            state["mine"] = True

        return app

    running = await serve_app(make, lifespan="on")
    async with running.raw() as client:
        for count in (1, 2, 3):
            client.ask()
            assert json.loads((await client.answer()).body) == [count, 1, False]


async def test_context_variables_of_the_startup_are_seen_and_those_of_a_request_are_not(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        from contextvars import ContextVar

        at_startup, in_request = ContextVar("at_startup", default="unset"), ContextVar("in_request", default="unset")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await receive()
                at_startup.set("set")
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            seen = at_startup.get(), in_request.get()
            in_request.set(scope["path"])
            at_startup.set(scope["path"])
            await asyncio.sleep(0)
            await answer(send, json.dumps(seen).encode())

        return app

    running = await serve_app(make, lifespan="on")
    async with running.raw() as client:
        for path in ("/1", "/2"):
            client.ask(path)
            assert json.loads((await client.answer()).body) == ["set", "unset"]


# ---- answers ----------------------------------------------------------------------------------------------------


async def test_answers_have_a_length_and_those_in_parts_have_chunks(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/whole":
                await answer(send, b"whole", headers=[(b"X-Mixed", b"case")])
            elif scope["path"] == "/parts":
                await begin(send)
                await part(send, b"one ")
                await part(send, b"")
                await part(send, b"two")
                await end(send)
            else:
                await begin(send, headers=[(b"content-length", b"7")])
                await part(send, b"one ")
                await end(send, b"two")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/whole")
        whole = await client.answer()
        assert (whole.body, whole.headers["content-length"], whole.headers["x-mixed"]) == (b"whole", "5", "case")
        assert "date" in whole.headers
        client.ask("/parts")
        parts = await client.answer()
        assert (parts.body, parts.headers["transfer-encoding"]) == (b"one two", "chunked")
        assert "content-length" not in parts.headers
        client.ask("/announced")
        announced = await client.answer()
        assert (announced.body, announced.headers["content-length"]) == (b"one two", "7")
        assert "transfer-encoding" not in announced.headers


@pytest.mark.parametrize("in_parts", [False, True])
async def test_head_204_and_304_have_no_body(serve_app: ServeApp, in_parts: bool) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            status = int(scope["query_string"])
            await begin(send, status, [(b"content-length", b"4")] if status == 200 else [])
            if in_parts:
                await part(send, b"bo")
                await end(send, b"dy")
            else:
                await end(send, b"body")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/?200", method="HEAD")
        head = await client.answer(has_body=False)
        assert (head.status, head.headers["content-length"]) == (200, "4")
        for status in (204, 304):
            client.ask(f"/?{status}")
            bodiless = await client.answer(has_body=False)
            assert bodiless.status == status
            assert not {"content-length", "transfer-encoding"} & bodiless.headers.keys()
        client.ask("/?200")
        assert (await client.answer()).body == b"body"


async def test_an_answer_to_head_may_leave_the_body_out(serve_app: ServeApp) -> None:
    running = await serve_app(fixed(headers=[(b"content-length", b"1234")]))
    async with running.raw() as client:
        for _ in range(2):
            client.ask(method="HEAD")
            head = await client.answer(has_body=False)
            assert (head.status, head.headers["content-length"]) == (200, "1234")


async def test_an_answer_to_head_without_a_length_announces_none(serve_app: ServeApp) -> None:
    running = await serve_app(fixed())
    async with running.raw() as client:
        for _ in range(2):
            client.ask(method="HEAD")
            head = await client.answer(has_body=False)
            assert head.status == 200
            assert "content-length" not in head.headers
        client.ask()
        assert (await client.answer()).headers["content-length"] == "0"


async def test_the_applications_own_framing_is_ignored(serve_app: ServeApp) -> None:
    headers = [(b"transfer-encoding", b"chunked"), (b"Connection", b"keep-alive"), (b"x-kept", b"1")]
    running = await serve_app(fixed(b"body", headers=headers))
    async with running.raw() as client:
        for _ in range(2):
            client.ask()
            status, sent = await client.head()
            assert (status, sent["content-length"], sent["x-kept"]) == (200, "4", "1")
            assert "transfer-encoding" not in sent
            assert await client.exactly(4) == b"body"


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("announced", "sent"), [(3, b"long"), (9, b"short")])
async def test_a_body_of_another_length_ends_the_connection_and_is_logged(
    serve_app: ServeApp, announced: int, sent: bytes, in_parts: bool
) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send, headers=[(b"content-length", b"%d" % announced)])
            if in_parts:
                await part(send, sent[:2])
                await end(send, sent[2:])
            else:
                await end(send, sent)

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        client.ask("/second")
        _, headers = await client.head()
        body = await client.rest()
    assert headers["content-length"] == str(announced)
    assert len(body) != announced
    assert sent.startswith(body)
    await running.log.tells("Content-Length")


WRONG: dict[str, list[Message]] = {
    "header": [{"type": "http.response.start", "status": 200, "headers": [(b"x\n", b"1")]}],
    "value": [{"type": "http.response.start", "status": 200, "headers": [(b"x", b"1\r\ny: 2")]}],
    "length": [{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"many")]}],
    "status": [{"type": "http.response.start", "status": 101, "headers": []}],
    "large-status": [{"type": "http.response.start", "status": 70_000, "headers": []}],
    "not-begun": [],
    "twice": [{"type": "http.response.start", "status": 200, "headers": []}] * 2,
    "unknown": [{"type": "http.response.nonsense"}],
    "body-type": [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "text"}],
}


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_event_before_anything_is_sent_is_500(
    serve_app_here: ServeApp, what: str, in_parts: bool
) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/good":
                await answer(send, b"good")
                return
            for message in WRONG[what]:
                await send(message)
            await send({"type": "http.response.body", "body": b"body", "more_body": in_parts})

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        client.ask("/wrong")
        assert (await client.answer()).status == 500
        client.ask("/good")
        assert (await client.answer()).body == b"good"
    await running.log.tells("the application failed")


async def test_a_wrong_file_header_is_500(serve_app_here: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send, headers=[(b"x", b"\n")])
            await send({"type": "http.response.pathsend", "path": __file__})

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).status == 500
        # The file is closed nevertheless.
        open_files = len(os.listdir("/dev/fd"))
        for _ in range(50):
            client.ask()
            assert (await client.answer()).status == 500
        assert len(os.listdir("/dev/fd")) < open_files + 25


async def test_a_wrong_trailer_cuts_the_answer(serve_app_here: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send, trailers=True)
            await end(send, b"body")
            await send({"type": "http.response.trailers", "headers": [(b"x", b"\n")]})

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        client.ask("/", "TE: trailers")
        await client.head()
        assert await client.rest() == b"4\r\nbody\r\n"


async def test_events_after_the_end_raise_and_do_not_reach_the_client(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answer(send, b"whole")
            for send_again in (begin(send), end(send, b"more")):
                try:
                    await send_again
                except RuntimeError:
                    note("raised")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        for _ in range(2):
            client.ask()
            assert (await client.answer()).body == b"whole"
            assert await running.noted() == ("raised",)
            assert await running.noted() == ("raised",)


async def test_an_exception_before_the_answer_is_500(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/begun":
                # The head goes out with the first part of the body.
                await begin(send, 201)
            if scope["path"] != "/fine":
                raise LookupError("in the application")
            await answer(send, b"fine")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        for path in ("/at-once", "/begun"):
            client.ask(path)
            answered = await client.answer()
            assert (answered.status, answered.body) == (500, b"Internal Server Error\n")
        client.ask("/fine")
        assert (await client.answer()).body == b"fine"
    await running.log.tells("LookupError: in the application")


@pytest.mark.parametrize("framing", ["chunks", "length", "until-close"])
async def test_an_exception_in_the_middle_is_visible_as_a_cut_answer(serve_app: ServeApp, framing: str) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send, headers=[(b"content-length", b"10")] if framing == "length" else [])
            await part(send, b"begin")
            note("begun")
            # It fails when the client has the part, because a reset may overtake what has been sent.
            await receive()
            raise LookupError("in the middle")

        return app

    running = await serve_app(make)
    if running.uds and framing == "until-close":
        pytest.skip("a Unix socket cannot be reset")
    async with running.raw() as client:
        version = "1.0" if framing == "until-close" else "1.1"
        client.send(f"POST / HTTP/{version}\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
        await client.head()
        begun = b"5\r\nbegin\r\n" if framing == "chunks" else b"begin"
        assert await client.exactly(len(begun)) == begun
        client.send("x")
        if framing == "until-close":
            # Only a reset tells it from a whole answer.
            with pytest.raises(ConnectionError):
                await client.rest()
        else:
            assert await client.rest() == b""
    await running.log.tells("LookupError: in the middle")


async def test_an_answer_that_the_application_does_not_end_is_cut(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await begin(send)
            await part(send, b"begin")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask()
        await client.head()
        assert await client.rest() == b"5\r\nbegin\r\n"
    await running.log.tells("returned without a whole answer")


async def test_work_after_the_answer_does_not_hold_up_the_client(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answer(send, scope["path"].encode())
            if scope["path"] == "/works-on":
                await note.goes_on.wait()
                note("worked on")

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        for path in ("/works-on", "/next"):
            client.ask(path)
            assert (await client.answer()).body == path.encode()
    await running.go_on()
    assert await running.noted() == ("worked on",)


# ---- Expect: 100-continue, and bodies that are not read ---------------------------------------------------------


async def test_the_body_is_asked_for_only_when_the_application_receives(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("asked")
            await note.goes_on.wait()
            await answer(send, await read_body(receive))

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 4", "Expect: 100-continue", method="POST")
        assert await running.noted() == ("asked",)
        asking = asyncio.ensure_future(client.head())
        await time_passes(0.05)
        assert not asking.done()
        await running.go_on()
        assert await asking == (100, {})
        client.send("body")
        assert (await client.answer()).body == b"body"


async def test_a_body_that_is_refused_is_not_asked_for(serve_app: ServeApp) -> None:
    running = await serve_app(fixed(b"no", 413))
    async with running.raw() as client:
        client.ask("/", "Content-Length: 4", "Expect: 100-continue", method="POST")
        answered = await client.answer()
        assert (answered.status, answered.headers["connection"]) == (413, "close")
        # The client may send the body nevertheless, or not: the connection cannot be used again.
        assert await client.rest() == b""


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_that_is_not_received_is_drained(serve_app: ServeApp, framing: str) -> None:
    running = await serve_app(fixed(b"answer"))
    async with running.raw() as client:
        if framing == "length":
            client.ask("/", "Content-Length: 100000", method="POST")
            assert (await client.answer()).body == b"answer"
            client.send(bytes(100_000))
        else:
            client.ask("/", "Transfer-Encoding: chunked", method="POST")
            client.send("5\r\nGET /\r\n")
            assert (await client.answer()).body == b"answer"
            client.send("5\r\nGET /\r\n0\r\n\r\n")
        client.ask("/next")
        assert (await client.answer()).body == b"answer"


async def test_a_large_body_that_is_not_received_closes_the_connection(serve_app: ServeApp) -> None:
    running = await serve_app(fixed(b"answer"))
    async with running.raw() as client:
        client.ask("/", "Content-Length: 1000000000", method="POST")
        answered = await client.answer()
        assert (answered.body, answered.headers["connection"]) == (b"answer", "close")


async def test_a_trickle_does_not_prolong_the_time_for_a_body(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while (message := await receive())["type"] == "http.request":
                pass
            note(message["type"])

        return app

    running = await serve_app(make, handshake_timeout=0.5)

    async def trickle() -> None:
        while True:
            client.send("x")
            await time_passes(0.02)

    async with running.raw() as client:
        client.ask("/", "Content-Length: 1000000", method="POST")
        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).status == 408
        trickling.cancel()
    assert await running.noted() == ("http.disconnect",)


# ---- extensions -------------------------------------------------------------------------------------------------


async def test_trailers_go_to_clients_that_take_them(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("http.response.trailers" in scope["extensions"])
            await begin(send, headers=[(b"trailer", b"x-sum, x-more")], trailers=True)
            await part(send, b"bo")
            await end(send, b"dy")
            first = [(b"x-sum", b"1")]
            await send({"type": "http.response.trailers", "headers": first, "more_trailers": True})
            await send({"type": "http.response.trailers", "headers": [(b"x-more", b"2")]})

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        for headers, trailers in ((["TE: trailers"], {"x-sum": "1", "x-more": "2"}), ([], {})):
            client.ask("/", *headers)
            assert (await client.answer()).body == b"body"
            assert client.trailers == trailers
            assert await running.noted() == (bool(trailers),)


async def test_a_file_is_sent_by_its_path(serve_app: ServeApp, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))
    (tmp_path / "empty").touch()

    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("http.response.pathsend" in scope["extensions"])
            await begin(send, headers=[(b"content-type", b"text/plain")])
            await send({"type": "http.response.pathsend", "path": str(tmp_path) + scope["path"]})

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/file")
        sent = await client.answer()
        assert sent.body == file.read_bytes()
        assert sent.headers["content-type"] == "text/plain"
        assert await running.noted() == (True,)
        client.ask("/file", method="HEAD")
        assert (await client.answer(has_body=False)).headers["content-length"] == "3000000"
        client.ask("/empty")
        assert (await client.answer()).body == b""
        client.ask("/missing")
        assert (await client.answer()).status == 500
        client.ask("/")
        assert (await client.answer()).status == 500


# ---- flow -------------------------------------------------------------------------------------------------------


async def test_an_application_that_does_not_receive_is_not_flooded(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("asked")
            await note.goes_on.wait()
            length, largest = 0, 0
            while True:
                message = await receive()
                length += len(message["body"])
                largest = max(largest, len(message["body"]))
                if not message["more_body"]:
                    break
            note(length, largest < 4 * 1024 * 1024)
            await answer(send)

        return app

    running = await serve_app(make)
    async with running.raw() as client:
        client.ask("/", f"Content-Length: {len(BIG)}", method="POST")
        assert await running.noted() == ("asked",)

        async def send_all() -> None:
            for _ in range(len(BIG) // len(PIECE)):
                client.send(PIECE)
                await client.sent()

        sending = asyncio.ensure_future(send_all())
        await time_passes(0.1)
        assert not sending.done()
        await running.go_on()
        await sending
        assert (await client.answer()).status == 200
    assert await running.noted() == (len(BIG), True)


LARGE = 300 * 1024 * 1024


def peak_memory(server: Server, note: Note) -> int:
    """Return the most memory that the process has used, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def takes_much(note: Note) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        length = 0
        while True:
            message = await receive()
            length += len(message["body"])
            if not message["more_body"]:
                break
        await answer(send, b"%d" % length)

    return app


def gives_much(note: Note) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        for _ in range(LARGE // len(PIECE)):
            await part(send, PIECE)
        await end(send)

    return app


@pytest.fixture
async def serve_app_in_a_process() -> AsyncIterator[ServeApp]:
    async with serving(functools.partial(serve_in_processes, 1)) as serve:
        yield serving_apps(serve)


async def test_a_large_upload_needs_little_memory(serve_app_in_a_process: ServeApp) -> None:
    running = await serve_app_in_a_process(takes_much)
    before = await running.workers[0].run(peak_memory)
    async with running.raw() as client:
        client.ask("/", f"Content-Length: {LARGE}", method="POST")
        for _ in range(LARGE // len(PIECE)):
            client.send(PIECE)
            await client.sent()
        assert int((await client.answer()).body) == LARGE
    assert await running.workers[0].run(peak_memory) - before < 32 * 1024 * 1024


async def test_a_large_download_needs_little_memory(serve_app_in_a_process: ServeApp) -> None:
    running = await serve_app_in_a_process(gives_much)
    before = await running.workers[0].run(peak_memory)
    async with running.raw() as client:
        client.ask()
        await client.head()
        length = 0
        while chunk := await client.chunk():
            length += len(chunk)
    assert length == LARGE
    assert await running.workers[0].run(peak_memory) - before < 32 * 1024 * 1024


async def test_a_client_that_reads_slowly_costs_nobody_else_anything(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/slow":
                await begin(send)
                with contextlib.suppress(OSError):
                    for _ in range(2):
                        await part(send, BIG)
                        note("sent")
            else:
                await answer(send, b"quick")

        return app

    running = await serve_app(make)
    async with running.raw(SMALL_BUFFER) as slow:
        slow.ask("/slow")
        assert await running.noted() == ("sent",)
        async with running.raw() as quick:
            for _ in range(20):
                assert len(await slow.some(1)) == 1
                quick.ask()
                assert (await quick.answer()).body == b"quick"
        assert running.notes.all == [("sent",)]


async def test_a_stop_ends_streaming_answers_with_a_disconnect(serve_app: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(receive)
            await begin(send)
            await part(send, b"begin")
            note((await receive())["type"])
            try:
                await part(send, b"more")
            except OSError:
                note("send raises")

        return app

    running = await serve_app(make, shutdown_timeout=0.2)
    async with running.raw() as client:
        client.ask()
        await client.head()
        assert await client.chunk() == b"begin"
        await running.stop()
        assert await client.rest() == b""
    assert running.notes.all == [("http.disconnect",), ("send raises",)]


async def test_a_stop_lets_answers_end(serve_app_here: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note("asked")
            await note.goes_on.wait()
            await answer(send, b"ended")

        return app

    running = await serve_app_here(make)
    async with running.raw() as client:
        client.ask()
        assert await running.noted() == ("asked",)
        stopping = asyncio.ensure_future(running.stop())
        await asyncio.sleep(0)
        await running.go_on()
        answered = await client.answer()
        assert (answered.body, answered.headers["connection"]) == (b"ended", "close")
        await stopping


# ---- beside callbacks -------------------------------------------------------------------------------------------


async def test_endpoints_are_served_beside_the_application(serve_app: ServeApp) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/callback/{name}")
        endpoint.on("request", lambda server, request: Response(request.path_params["name"].encode()))
        endpoint.on("message", lambda server, frame: server.push(frame.fd, frame.data))
        server.include(endpoint)

    running = await serve_app(echo, application)
    async with running.raw() as client:
        client.ask("/callback/one")
        assert (await client.answer()).body == b"one"
        client.ask("/app")
        assert await echoed(client) == {"path": "/app", "body": ""}
    async with running.connect("/callback/two") as websocket:
        await websocket.send("text")
        assert await websocket.recv() == "text"


# ---- limits, and the log --------------------------------------------------------------------------------


async def test_more_requests_than_the_limit_get_503(serve_app_here: ServeApp) -> None:
    def make(note: Note) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            note(scope["type"])
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                await receive()
                return
            if scope["path"] == "/wait":
                await note.goes_on.wait()
            await answer(send, b"done")

        return app

    running = await serve_app_here(make, limit_concurrency=2)
    async with running.raw() as waiting, running.raw() as other, running.connect() as web_socket:
        assert await running.noted() == ("websocket",)
        waiting.ask("/wait")
        assert await running.noted() == ("http",)
        for _ in range(2):
            other.ask()
            refused = await other.answer()
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert (await other.upgrade()).status == 503
        # Each that ends makes room for another.
        await running.go_on()
        assert (await waiting.answer()).body == b"done"
        waiting.ask()
        assert (await waiting.answer()).body == b"done"
        await web_socket.close()


async def test_the_access_log_has_uvicorns_fields(serve_app: ServeApp) -> None:
    running = await serve_app(fixed(status=201), access_log=True)
    async with running.raw() as client:
        client.ask("/some%20where?q=1", method="POST")
        await client.answer()
        port = client.address.rpartition(":")[2] if ":" in client.address else "0"
        await running.log.tells(f'127.0.0.1:{port} - "POST /some%20where?q=1 HTTP/1.1" 201')
