"""Plain HTTP requests on the port of the WebSockets."""

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from application import KINDS, Note, add, interrupted
from raw_client import RawClient
from running import Remote, Running, Serve, refuses_connections, time_passes

from hubbub import Frame, Request, Response, Server

ANSWERS: dict[str, Any] = {
    "/response": Response(b"made", status=201, headers={"X-By": "hand"}, content_type="text/plain"),
    "/json": Response.json({"a": [1, None]}),
    "/redirect": Response.redirect("/elsewhere"),
    "/str": "<h1>é</h1>",
    "/bytes": b"\x00\x01",
    "/none": None,
    "/nonsense": 42,
}


def site(server: Server, note: Note, kind: str = "sync") -> None:
    def on_request(server: Server, request: Request) -> Any:
        if request.path == "/raise":
            raise LookupError("in request")
        return ANSWERS[request.path]

    add(server, "request", kind, on_request)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_handler_returns_is_the_answer(serve: Serve, kind: str) -> None:
    running = await serve(lambda server, note: site(server, note, kind))
    for path, status, content_type, body in (
        ("/response", 201, "text/plain", b"made"),
        ("/json", 200, "application/json", b'{"a":[1,null]}'),
        ("/str", 200, "text/html; charset=utf-8", "<h1>é</h1>".encode()),
        ("/bytes", 200, "application/octet-stream", b"\x00\x01"),
    ):
        async with running.raw() as client:
            client.ask(path)
            answer = await client.answer()
        assert (answer.status, answer.headers["content-type"], answer.body) == (status, content_type, body)


@pytest.mark.parametrize("kind", KINDS)
async def test_none_is_404_and_failures_are_500(serve: Serve, kind: str) -> None:
    running = await serve(lambda server, note: site(server, note, kind))
    async with running.raw() as client:
        statuses = []
        for path in ("/none", "/raise", "/nonsense", "/str"):
            client.ask(path)
            statuses.append((await client.answer()).status)
    assert statuses == [404, 500, 500, 200]
    await running.log.tells("LookupError: in request")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_exception_that_is_no_error_is_500_too(serve: Serve, kind: str) -> None:
    running = await serve(interrupted("request", kind))
    async with running.raw() as client:
        client.ask()
        assert (await client.answer()).status == 500
        client.ask("/health")
        assert (await client.answer()).status == 200


async def test_headers_and_redirects(serve: Serve) -> None:
    running = await serve(site)
    async with running.raw() as client:
        client.ask("/response")
        answer = await client.answer()
        assert answer.headers["x-by"] == "hand"
        assert "date" in answer.headers
        client.ask("/redirect")
        answer = await client.answer()
        assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")


async def test_head_has_the_headers_of_get_and_no_body(serve: Serve) -> None:
    running = await serve(site)
    async with running.raw() as client:
        client.ask("/response", method="HEAD")
        answer = await client.answer(has_body=False)
        assert (answer.status, answer.headers["content-length"]) == (201, "4")
        client.ask("/bytes")
        assert (await client.answer()).body == b"\x00\x01"


async def test_the_handler_is_given_the_request(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        def on_request(server: Server, request: Request) -> Response:
            return Response.json(
                {
                    "fd": request.fd,
                    "method": request.method,
                    "path": request.path,
                    "query": dict(request.query),
                    "host": request.headers["host"],
                    "cookies": dict(request.cookies),
                    "client": request.client,
                    "scheme": request.scheme,
                    "body": request.body.decode(),
                }
            )

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/a%20b?c=d", "Cookie: e=f", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
        assert json.loads((await client.answer()).body) == {
            "fd": 0,
            "method": "GET",
            "path": "/a b",
            "query": {"c": "d"},
            "host": "localhost",
            "cookies": {"e": "f"},
            "client": ["192.0.2.7", 0],
            "scheme": "https",
            "body": "",
        }


async def test_without_a_handler_426_names_the_protocol(serve: Serve) -> None:
    running = await serve(lambda server, note: None)
    async with running.raw() as client:
        client.ask("/")
        answer = await client.answer()
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


# The connection.


async def test_a_connection_is_kept_for_further_requests(serve: Serve) -> None:
    running = await serve(site)
    async with running.raw() as client:
        for _ in range(3):
            client.ask("/str")
            assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /str HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /str HTTP/1.0\r\nHost: h\r\n\r\n",
    ],
)
async def test_a_connection_is_closed_if_the_client_wants_it_so(serve: Serve, request_text: str) -> None:
    running = await serve(site)
    async with running.raw() as client:
        client.send(request_text)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server, request: Request) -> str:
            # The first takes longest.
            for _ in range(5 - int(request.query["number"])):
                await asyncio.sleep(0)
            return request.query["number"]

    running = await serve(application)
    async with running.raw() as client:
        for number in range(5):
            client.ask(f"/?number={number}")
        assert [(await client.answer()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_client_that_has_sent_its_last_still_reads_the_answer(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server, request: Request) -> str:
            note("asked")
            await note.goes_on.wait()
            return "answer"

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/")
        client.end()
        await running.noted()
        await running.go_on()
        assert (await client.answer()).body == b"answer"
        assert await client.rest() == b""


async def test_a_kept_connection_can_become_a_websocket(serve: Serve) -> None:
    running = await serve(site)
    async with running.raw() as client:
        client.ask("/str")
        assert (await client.answer()).status == 200
        assert (await client.upgrade()).status == 101


async def test_a_kept_connection_of_http_1_0(serve: Serve) -> None:
    running = await serve(site)
    async with running.raw() as client:
        for _ in range(2):
            client.send("GET /str HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


# Bodies.


def mirror(server: Server, note: Note) -> None:
    """Tells what it is asked for, and sends the body back."""

    @server.on("request")
    def on_request(server: Server, request: Request) -> bytes:
        note(request.method, request.path, len(request.body))
        return request.body


def in_chunks(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")


async def test_any_method_reaches_the_handler_with_its_body(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        for method in METHODS:
            client.ask("/", "Content-Length: 5", method=method)
            client.send(b"Hello")
            answer = await client.answer(has_body=method != "HEAD")
            assert (answer.status, answer.headers["content-length"]) == (200, "5")
            assert answer.body == (b"" if method == "HEAD" else b"Hello")
    assert [await running.noted() for _ in METHODS] == [(method, "/", 5) for method in METHODS]


async def test_tunnels_and_traces_are_501(serve: Serve) -> None:
    running = await serve(mirror)
    for line in ("CONNECT localhost:80", "CONNECT /", "TRACE /"):
        async with running.raw() as client:
            client.send(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.answer()).status == 501
            assert await client.rest() == b""


async def test_a_body_may_come_in_chunks(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        for chunks in ([], [b"Hello"], [b"Hello", b"\r\n0\r\n\r\n", b"x" * 100_000]):
            client.ask("/", "Transfer-Encoding: chunked", method="POST")
            client.send(in_chunks(*chunks))
            assert (await client.answer()).body == b"".join(chunks)


async def test_chunks_may_have_extensions_and_trailers(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/", "Transfer-Encoding: chunked", method="POST")
        client.send('5;a=b;c="d"\r\nHello\r\n0;e\r\nContent-Length: 3\r\nX: y\r\n\r\n')
        assert (await client.answer()).body == b"Hello"
        client.ask("/", "Content-Length: 1", method="POST")
        client.send("x")
        assert (await client.answer()).body == b"x"


async def test_a_body_may_come_byte_by_byte(serve: Serve) -> None:
    running = await serve(mirror)
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + in_chunks(b"Hello, ", b"world")
    counted = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nHello, world"
    async with running.raw() as client:
        for request in (chunked, counted):
            for byte in request:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.answer()).body == b"Hello, world"


async def test_pipelined_requests_with_bodies_are_told_apart_and_answered_in_order(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.send(
            b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\none"
            b"POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + in_chunks(b"tw", b"o") +
            b"HEAD /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nthree"
            b"GET /4 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
            b"POST /5 HTTP/1.0\r\nContent-Length: 4\r\n\r\nfive"
            b"GET /6 HTTP/1.1\r\nHost: h\r\n\r\n"
        )  # fmt: skip
        bodies = [(await client.answer(has_body=number != 3)).body for number in range(1, 6)]
        assert bodies == [b"one", b"two", b"", b"", b"five"]
        # HTTP/1.0 keeps no connection unless it is asked to.
        assert await client.rest() == b""
    assert [(await running.noted())[1] for _ in bodies] == ["/1", "/2", "/3", "/4", "/5"]


async def test_a_client_that_expects_100_gets_it_if_the_body_will_be_read(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        for headers in (["Content-Length: 5"], ["Transfer-Encoding: chunked"]):
            client.ask("/", *headers, "Expect: 100-Continue", method="POST")
            assert (await client.answer()).status == 100
            client.send(in_chunks(b"Hello") if "chunked" in headers[0] else b"Hello")
            assert (await client.answer()).body == b"Hello"
        # There is nothing to be read.
        client.ask("/", "Content-Length: 0", "Expect: 100-continue", method="POST")
        assert (await client.answer()).status == 200


async def test_http_1_0_has_no_expectations(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.send("POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nHello")
        assert (await client.answer()).body == b"Hello"


@pytest.mark.parametrize(
    ("header", "status"), [("Expect: 100-continue\r\nContent-Length: 1001", 413), ("Expect: a-reply", 417)]
)
async def test_an_expectation_that_is_not_met_is_told(serve: Serve, header: str, status: int) -> None:
    running = await serve(mirror, max_body_size=1000)
    async with running.raw() as client:
        client.ask("/", header, method="POST")
        assert (await client.answer()).status == status
        assert await client.rest() == b""


async def test_a_body_of_max_body_size_is_taken_and_a_longer_one_is_413(serve: Serve) -> None:
    running = await serve(mirror, max_body_size=100_000)
    body = b"x" * 100_000
    async with running.raw() as client:
        client.ask("/", "Content-Length: 100000", method="POST")
        client.send(body)
        assert (await client.answer()).body == body
        client.ask("/", "Transfer-Encoding: chunked", method="POST")
        client.send(in_chunks(body))
        assert (await client.answer()).body == body
        client.ask("/", "Transfer-Encoding: chunked", method="POST")
        client.send(b"186a0\r\n" + body + b"\r\n1\r\n")
        assert (await client.answer()).status == 413
        assert await client.rest() == b""


async def test_who_announces_too_much_is_told_so_though_all_of_it_is_sent(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 5000000", method="POST")
        client.send(b"x" * 5_000_000)
        assert (await client.answer()).status == 413
        assert await client.rest() == b""


async def test_no_body_at_all_may_be_taken(serve: Serve) -> None:
    running = await serve(mirror, max_body_size=0)
    async with running.raw() as client:
        client.ask("/")
        assert (await client.answer()).status == 200
        client.ask("/", "Content-Length: 1", method="POST")
        assert (await client.answer()).status == 413


@pytest.mark.parametrize("sent", ["", "Hell", "Hello, worl"])
async def test_a_body_must_be_there_within_handshake_timeout(serve: Serve, sent: str) -> None:
    running = await serve(mirror, handshake_timeout=0.2)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 12", method="POST")
        client.send(sent)
        assert (await client.answer()).status == 408
        assert await client.rest() == b""


async def test_a_trickle_does_not_prolong_the_time_for_a_body(serve: Serve) -> None:
    running = await serve(mirror, handshake_timeout=0.2)

    async def trickle() -> None:
        while True:
            client.send("1\r\nx\r\n")
            await asyncio.sleep(0.005)

    async with running.raw() as client:
        client.ask("/", "Transfer-Encoding: chunked", method="POST")
        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).status == 408
        trickling.cancel()


async def test_a_long_body_may_take_longer_than_handshake_timeout(serve: Serve) -> None:
    running = await serve(mirror, handshake_timeout=2)
    part, parts = b"x" * 100_000, 4
    async with running.raw() as client:
        client.ask("/", f"Content-Length: {parts * len(part)}", method="POST")
        for _ in range(parts):
            await time_passes(0.8)
            client.send(part)
        assert (await client.answer()).body == parts * part


async def test_who_has_sent_much_of_a_body_may_not_stop_for_long(serve: Serve) -> None:
    running = await serve(mirror, handshake_timeout=0.5)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 1000000", method="POST")
        client.send(b"x" * 999_999)
        assert (await client.answer()).status == 408


async def test_a_client_that_leaves_within_a_body_is_not_answered(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/gone", "Content-Length: 12", method="POST")
        client.send("Hello")
        client.end()
        assert await client.rest() == b""
    async with running.raw() as client:
        client.ask("/here")
        await client.answer()
    assert await running.noted() == ("GET", "/here", 0)


# What two readers could take for different requests (RFC 9112 §11.2).

HEAD = "POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
AMBIGUOUS = {
    "both a length and chunks": HEAD + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nHello",
    "the same length twice": HEAD + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nHello",
    "a list of lengths": HEAD + "Content-Length: 5, 5\r\n\r\nHello",
    "a length with a sign": HEAD + "Content-Length: +5\r\n\r\nHello",
    "a negative length": HEAD + "Content-Length: -5\r\n\r\nHello",
    "a hexadecimal length": HEAD + "Content-Length: 0x5\r\n\r\nHello",
    "a length with a gap": HEAD + "Content-Length: 1 0\r\n\r\nHello",
    "no length": HEAD + "Content-Length:\r\n\r\nHello",
    "a length of more than 64 bits": HEAD + "Content-Length: 18446744073709551621\r\n\r\nHello",
    "another coding": HEAD + "Transfer-Encoding: gzip\r\n\r\nHello",
    "chunked twice": HEAD + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not at the end": HEAD + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "nearly chunked": HEAD + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a vertical tab before chunked": HEAD + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no Host": "GET / HTTP/1.1\r\n\r\n",
    "two Hosts": "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    "a Host that is none": "GET / HTTP/1.1\r\nHost: h/@i\r\n\r\n",
    "bare LF in the head": "GET / HTTP/1.1\nHost: h\n\n",
    "bare LF behind one header": "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
    "bare CR in a header": "GET / HTTP/1.1\r\nHost: h\r\nX: y\rContent-Length: 5\r\n\r\n",
    "an empty line in front": "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "space before a colon": HEAD + "Content-Length : 5\r\n\r\nHello",
    "a tab before a colon": HEAD + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": HEAD + "Content-Length:\r\n 5\r\n\r\nHello",
    "a header that begins with a space": "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "a header without a name": HEAD + ": 5\r\n\r\n",
    "NUL in a header": HEAD + "X: \0\r\n\r\n",
    "two spaces in the request line": "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab in the request line": "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "no version": "GET /\r\nHost: h\r\n\r\n",
    "an empty chunk size": CHUNKED + "\r\nHello\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKED + "+5\r\nHello\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + "0x5\r\nHello\r\n0\r\n\r\n",
    "a chunk size with an underscore": CHUNKED + "0_5\r\nHello\r\n0\r\n\r\n",
    "space before a chunk size": CHUNKED + " 5\r\nHello\r\n0\r\n\r\n",
    "space behind a chunk size": CHUNKED + "5 \r\nHello\r\n0\r\n\r\n",
    "a chunk size of more than 64 bits": CHUNKED + "10000000000000005\r\nHello\r\n0\r\n\r\n",
    "bare LF behind a chunk size": CHUNKED + "5\nHello\r\n0\r\n\r\n",
    "bare LF in a chunk extension": CHUNKED + "5;a\nb\r\nHello\r\n0\r\n\r\n",
    "bare CR in a chunk extension": CHUNKED + "5;a\rb\r\nHello\r\n0\r\n\r\n",
    "a chunk extension without a name": CHUNKED + "5;\r\nHello\r\n0\r\n\r\n",
    "bare LF behind a chunk": CHUNKED + "5\r\nHello\n0\r\n\r\n",
    "nothing behind a chunk": CHUNKED + "5\r\nHello0\r\n\r\n",
    "a chunk that is longer than its size": CHUNKED + "5\r\nHello, world\r\n0\r\n\r\n",
    "bare LF behind the last chunk": CHUNKED + "0\n\n",
    "bare LF behind a trailer": CHUNKED + "0\r\nX: y\n\r\n",
    "space before a trailer's colon": CHUNKED + "0\r\nX : y\r\n\r\n",
    "a folded trailer": CHUNKED + "0\r\nX: y\r\n z\r\n\r\n",
}
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
AMBIGUOUS |= {
    "a handshake with a body": UPGRADE + "Content-Length: 5\r\n\r\nHello",
    "a handshake with chunks": UPGRADE + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


async def test_ambiguous_requests_are_400_and_what_follows_is_never_read(serve: Serve) -> None:
    running = await serve(mirror)
    answers = {}
    for name, request in AMBIGUOUS.items():
        async with running.raw() as client:
            client.send(request.encode("latin-1") + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await client.answer()
            answers[name] = (answer.status, answer.headers["connection"], await client.rest())
    assert answers == dict.fromkeys(AMBIGUOUS, (400, "close", b""))
    async with running.raw() as client:
        client.ask("/last")
        await client.answer()
    assert await running.noted() == ("GET", "/last", 0)


async def test_other_codings_are_501(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/", "Transfer-Encoding: gzip, chunked", method="POST")
        assert (await client.answer()).status == 501
        assert await client.rest() == b""


async def test_who_asks_for_a_head_is_refused_without_a_body(serve: Serve) -> None:
    running = await serve(site)
    async with running.raw() as client:
        client.ask("/", "Expect: nonsense", method="HEAD")
        assert (await client.answer(has_body=False)).status == 417
        assert await client.rest() == b""


# Long answers, slow readers, and the stop.

LONG = bytes(range(256)) * 40_000


def long_site(server: Server, note: Note) -> None:
    """Answers with 10 MB, and tells of each request."""

    @server.on("request")
    def on_request(server: Server, request: Request) -> bytes:
        note(request.path)
        return LONG if request.path == "/long" else request.path.encode()


async def test_a_long_answer_arrives_whole_and_the_next_request_waits_for_it(serve: Serve) -> None:
    running = await serve(long_site)
    async with running.raw(receive_buffer=4096) as client, running.raw() as other:
        client.ask("/long")
        client.ask("/next")
        assert await running.noted() == ("/long",)
        # Others are served meanwhile, and what stands behind the long answer is not.
        other.ask("/other")
        assert (await other.answer()).body == b"/other"
        assert await running.noted() == ("/other",)
        assert (await client.answer()).body == LONG
        assert (await client.answer()).body == b"/next"


@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: close"])
async def test_an_answer_under_way_still_goes_out_when_the_server_stops(serve: Serve, header: str) -> None:
    running = await serve(long_site)
    async with running.raw(receive_buffer=4096) as client:
        client.ask("/long", header)
        assert await running.noted() == ("/long",)
        stopping = asyncio.create_task(running.stop())
        await refuses_connections(running.port)
        assert (await client.answer()).body == LONG
        assert await client.rest() == b""
    await stopping


async def test_an_answer_whose_handler_still_runs_goes_out_when_the_server_stops(serve: Serve, tmp_path: Path) -> None:
    # A worker that stops runs no jobs of the test's any more.
    goes_on = tmp_path / "goes on"
    os.mkfifo(goes_on)

    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server, request: Request) -> str | bytes:
            if request.path == "/long":
                note(server.worker_id)
                await asyncio.to_thread(goes_on.read_bytes)
                return LONG
            return str(server.worker_id)

    running = await serve(application)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(running.raw())
        client.ask("/long")
        (worker_id,) = await running.noted()
        worker = running.workers[worker_id]
        balancer = await connection_to(running, worker, stack)
        stopping = asyncio.create_task(running.stop())
        await says_that_it_stops(balancer)
        goes_on.write_bytes(b"")
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (LONG, "close")
        assert await client.rest() == b""
    await stopping


async def test_a_body_that_is_still_to_come_is_503_when_the_server_stops(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 5", "Expect: 100-continue", method="POST")
        assert (await client.answer()).status == 100
        stopping = asyncio.create_task(running.stop())
        assert (await client.answer()).status == 503
        assert await client.rest() == b""
    await stopping


# Health.


async def test_health_path_answers_ok_with_and_without_a_handler(serve: Serve) -> None:
    for application in (site, lambda server, note: None):
        running = await serve(application)
        async with running.raw() as client:
            client.ask("/health?from=balancer")
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"ok")


async def test_health_path_answers_get_and_head_only(serve: Serve) -> None:
    running = await serve(lambda server, note: None)
    async with running.raw() as client:
        client.ask("/health", method="HEAD")
        assert (await client.answer(has_body=False)).status == 200
        client.ask("/health", method="POST")
        answer = await client.answer()
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_bytes_may_be_of_any_type_that_holds_them(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        kinds = {"/bytes": bytes, "/bytearray": bytearray, "/memoryview": memoryview}
        server.on("request", lambda server, request: kinds[request.path](b"12345"))

    running = await serve(application)
    async with running.raw() as client:
        for path in ("/bytes", "/bytearray", "/memoryview"):
            client.ask(path)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"12345")
            assert answer.headers["content-type"] == "application/octet-stream"


async def test_health_path_can_be_another_or_none(serve: Serve) -> None:
    running = await serve(lambda server, note: None, health_path="/alive")
    async with running.raw() as client:
        client.ask("/alive")
        assert (await client.answer()).status == 200
        client.ask("/health")
        assert (await client.answer()).status == 426
    running = await serve(lambda server, note: None, health_path=None)
    async with running.raw() as client:
        client.ask("/health")
        assert (await client.answer()).status == 426


async def test_health_path_answers_at_max_connections(serve: Serve) -> None:
    running = await serve(lambda server, note: None, max_connections=1)
    async with running.connect(), running.raw() as client:
        client.ask("/health")
        assert (await client.answer()).status == 200


async def test_health_path_is_503_on_connections_that_are_still_open_while_the_server_stops(
    serve: Serve,
) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note(frame.fd)
            await note.goes_on.wait()

        server.on("request", lambda server: str(server.worker_id))

    running = await serve(application)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(running.connect())
        await client.send("hello")
        worker = await running.owner(await running.opened())
        balancer = await connection_to(running, worker, stack)
        stopping = asyncio.create_task(running.stop())
        await says_that_it_stops(balancer)
        await worker.run(lambda server, note: note.goes_on.set())
        await client.wait_closed()
    await stopping


async def connection_to(running: Running, worker: Remote, stack: AsyncExitStack) -> RawClient:
    """Connect to the application, which answers with the number of its worker, until this one answers."""
    while True:
        client = await stack.enter_async_context(running.raw())
        client.ask("/")
        if (await client.answer()).body == str(worker.worker_id).encode():
            return client


async def says_that_it_stops(client: RawClient) -> None:
    """Ask a worker for its health until the answer is 503."""
    status, headers = 200, dict[str, str]()
    while status == 200:
        client.ask("/health")
        status, headers, _ = await client.answer()
    assert (status, headers["retry-after"]) == (503, "5")
