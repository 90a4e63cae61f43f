"""Responses whose bodies are made while they are sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from application import KINDS, Note, add
from raw_client import RawClient
from running import Serve

from hubbub import Request, Response, Server

Parts = Callable[[Request, Note], AsyncIterator[Any]]


def streaming(parts: Parts, kind: str = "sync", **options: Any) -> Callable[[Server, Note], None]:
    """An application that answers each request with these parts."""

    def application(server: Server, note: Note) -> None:
        def on_request(server: Server, request: Request) -> Response:
            return Response(parts(request, note), **options)

        add(server, "request", kind, on_request)

    return application


async def three_parts(request: Request, note: Note) -> AsyncIterator[Any]:
    yield "é"
    yield b""
    yield bytearray(b"two")
    await note.goes_on.wait()
    yield memoryview(b"three")


async def endless(request: Request, note: Note) -> AsyncIterator[bytes]:
    note("begun")
    try:
        while True:
            yield bytes(100_000)
    finally:
        note("closed")


async def silent(request: Request, note: Note) -> AsyncIterator[bytes]:
    try:
        yield b"begun"
        await asyncio.Event().wait()
    finally:
        note("closed")


async def failing(request: Request, note: Note) -> AsyncIterator[Any]:
    yield b"begun"
    if request.path == "/wrong":
        yield 42
    raise LookupError("in the middle")


async def head(client: RawClient) -> dict[str, str]:
    """The headers of an answer whose body is read in chunks."""
    answer = await client.answer(has_body=False)
    assert answer.status == 200
    return answer.headers


@pytest.mark.parametrize("kind", KINDS)
async def test_parts_are_sent_as_they_are_made(serve: Serve, kind: str) -> None:
    running = await serve(streaming(three_parts, kind, content_type="text/plain"))
    async with running.raw() as client:
        client.ask()
        headers = await head(client)
        assert headers["transfer-encoding"] == "chunked"
        assert headers["content-type"] == "text/plain"
        assert "content-length" not in headers
        assert [await client.chunk(), await client.chunk()] == ["é".encode(), b"two"]
        await running.go_on()
        assert [await client.chunk(), await client.chunk()] == [b"three", b""]
        # The connection is kept.
        client.ask()
        await head(client)
        assert await client.chunk() == "é".encode()


async def test_a_client_without_chunks_gets_the_parts_until_the_connection_is_closed(serve: Serve) -> None:
    running = await serve(streaming(three_parts))
    await running.go_on()
    async with running.raw() as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        answer = await client.answer(has_body=False)
        assert answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert await client.rest() == "étwothree".encode()


async def test_the_answer_to_head_asks_for_no_part(serve: Serve) -> None:
    running = await serve(streaming(endless))
    async with running.raw() as client:
        for _ in range(2):
            client.ask(method="HEAD")
            assert (await client.answer(has_body=False)).status == 200
    assert running.notes.all == []


async def test_a_generator_waits_for_a_client_that_does_not_read_and_is_closed_when_it_leaves(serve: Serve) -> None:
    running = await serve(streaming(endless))
    async with running.raw(receive_buffer=4096) as client:
        client.ask()
        assert await running.noted() == ("begun",)
        await head(client)
        # Others are served meanwhile.
        async with running.raw() as other:
            other.ask()
            assert await running.noted() == ("begun",)
            await head(other)
            assert await other.chunk() == bytes(100_000)
        assert await running.noted() == ("closed",)
    assert await running.noted() == ("closed",)


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_generator_that_waits_is_closed_when_its_client_leaves(serve: Serve, how: str) -> None:
    running = await serve(streaming(silent))
    async with running.raw() as client:
        client.ask()
        await head(client)
        assert await client.chunk() == b"begun"
        getattr(client, how)()
        assert await running.noted() == ("closed",)


@pytest.mark.parametrize("path", ["/wrong", "/raised"])
async def test_a_generator_that_fails_is_logged_and_its_answer_cut(serve: Serve, path: str) -> None:
    running = await serve(streaming(failing))
    async with running.raw() as client:
        client.ask(path)
        await head(client)
        assert await client.chunk() == b"begun"
        assert await client.rest() == b"", "the last chunk is missing"
    await running.log.tells(f"a streamed answer failed ({path})")


async def test_a_handshake_cannot_be_refused_with_a_stream(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("handshake", lambda server, request: Response(silent(request, note), status=403))

    running = await serve(application)
    async with running.raw() as client:
        assert (await client.upgrade()).status == 500
    await running.log.tells("only the answer of a request handler can be streamed")
