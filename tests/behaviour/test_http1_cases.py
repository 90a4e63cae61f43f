"""Which HTTP/1.1 requests are answered, refused, or waited for: the 33 cases of h1spec (uNetworking/h1spec).

The cases are h1spec's, the code is ours. The application answers every method with the body that it receives.
"""

import asyncio

import pytest
from application import Note
from asgi_application import App, Receive, Scope, Send, answer, read_body
from running import ServeApp

WHOLE = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEGINNINGS = {
    "within-the-method": "G",
    "after-the-method": "GET ",
    "within-the-path": "GET /hello",
    "after-the-path": "GET /hello ",
    "within-the-version": "GET /hello HTTP",
    "after-the-version": "GET /hello HTTP/1.1",
    "within-the-end-of-the-first-line": "GET /hello HTTP/1.1\r",
    "after-the-first-line": "GET /hello HTTP/1.1\r\n",
    "within-a-name": "GET /hello HTTP/1.1\r\nHos",
    "after-a-colon": "GET /hello HTTP/1.1\r\nHost:",
    "before-a-value": "GET /hello HTTP/1.1\r\nHost: ",
    "after-a-value": "GET /hello HTTP/1.1\r\nHost: localhost",
    "within-the-end-of-a-header": "GET /hello HTTP/1.1\r\nHost: localhost\r",
    "after-the-last-header": "GET /hello HTTP/1.1\r\nHost: localhost\r\n",
    "within-the-empty-line": "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r",
}

GET = "GET / HTTP/1.1\r\nHost: example.com\r\n"
POST = "POST / HTTP/1.1\r\nHost: example.com\r\n"
CHUNKS = "c\r\nHellO world1\r\n0\r\n\r\n"

ANSWERED = {
    "get": (f"{GET}\r\n", b""),
    "odd-but-valid-headers": ("GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n", b""),
    "a-header-of-a-space": (f"{GET}X-Empty-Header: \r\n\r\n", b""),
    "expect": (f"{GET}Expect: 100-continue\r\n\r\n", b""),
    "body-by-length": (f"{POST}Content-Length: 5\r\n\r\nhello", b"hello"),
    "body-in-chunks": (f"{POST}Transfer-Encoding: chunked\r\n\r\n{CHUNKS}", b"HellO world1"),
}

REFUSED = {
    "no-version": "GET / \r\n\r\n",
    "brackets-in-a-name": f"{GET}X-Invalid[]: test\r\n\r\n",
    "no-host": "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    "two-hosts": f"{GET}Host: example.org\r\n\r\n",
    "negative-length-that-overflows": f"{GET}Content-Length: -123456789123456789123456789\r\n\r\n",
    "negative-length": f"{GET}Content-Length: -1234\r\n\r\n",
    "length-of-letters": f"{GET}Content-Length: abc\r\n\r\n",
    "control-character": f"{GET}X-Bad-Control-Char: test\x07\r\n\r\n",
    "version-9.9": "GET / HTTP/9.9\r\nHost: example.com\r\n\r\n",
    "text-before-the-method": f"Extra line{GET}\r\n",
    "carriage-return-alone": f"{GET}\rSome-Header: Test\r\n\r\n",
    # h1spec would accept the body in chunks too, but the next reader might go by the length (RFC 9112 §6.1).
    "length-and-chunks": f"{POST}content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n{CHUNKS}",
}


def mirror(note: Note) -> App:
    """Make the application."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note(scope["path"])
        await answer(send, await read_body(receive))

    return app


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
async def test_the_rest_of_a_head_is_waited_for(serve_app_here: ServeApp, beginning: str) -> None:
    running = await serve_app_here(mirror)
    async with running.raw() as client, running.raw() as other:
        client.send(beginning)
        # The server has read the beginning before it answers another client.
        other.ask("/other")
        assert (await other.answer()).status == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.some(), 0.1)
        client.send(WHOLE.removeprefix(beginning))
        assert (await client.answer()).status == 200
    assert running.notes.all == [("/other",), ("/hello",)]


@pytest.mark.parametrize(("request_", "body"), ANSWERED.values(), ids=ANSWERED)
async def test_a_valid_request_is_answered(serve_app_here: ServeApp, request_: str, body: bytes) -> None:
    running = await serve_app_here(mirror)
    async with running.raw() as client:
        client.send(request_)
        answered = await client.answer()
        if answered.status == 100:
            answered = await client.answer()
        assert (answered.status, answered.body) == (200, body)


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
async def test_an_invalid_request_is_refused(serve_app_here: ServeApp, request_: str) -> None:
    running = await serve_app_here(mirror)
    async with running.raw() as client:
        client.send(request_)
        assert 400 <= (await client.answer()).status < 600
        assert await client.rest() == b""
    assert running.notes.all == []
