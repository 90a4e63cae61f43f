"""The bodies of requests, and input that two readers could take for different requests."""

import asyncio

import pytest
from application import Note
from running import Serve, time_passes

from hubbub import Request, Server


def mirror(server: Server, note: Note) -> None:
    """Note each request, and send its body back."""

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
        # Without a body there is nothing to wait for, so no 100 is sent.
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


async def test_without_max_body_size_a_body_may_be_of_any_length(serve: Serve) -> None:
    running = await serve(mirror, max_body_size=None)
    body = b"x" * 3_000_000
    async with running.raw() as client:
        client.ask("/", "Content-Length: 3000000", method="POST")
        client.send(body)
        assert (await client.answer()).body == body
        client.ask("/", "Transfer-Encoding: chunked", method="POST")
        client.send(in_chunks(body))
        assert (await client.answer()).body == body


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


async def test_a_body_that_is_still_to_come_is_503_when_the_server_stops(serve: Serve) -> None:
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/", "Content-Length: 5", "Expect: 100-continue", method="POST")
        assert (await client.answer()).status == 100
        stopping = asyncio.create_task(running.stop())
        assert (await client.answer()).status == 503
        assert await client.rest() == b""
    await stopping


# Input that two parsers could take for different requests (RFC 9112 §11.2).

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
    "an empty line before": "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
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
    running = await serve(mirror)
    async with running.raw() as client:
        client.ask("/", "Expect: nonsense", method="HEAD")
        assert (await client.answer(has_body=False)).status == 417
        assert await client.rest() == b""
