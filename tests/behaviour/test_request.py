"""Plain HTTP requests on the port of the WebSockets."""

import asyncio
import json
from typing import Any

import pytest
from application import KINDS, Note, add, interrupted
from running import Serve

from hubbub import Request, Response, Server

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


@pytest.mark.parametrize("kind", KINDS)
async def test_long_answers_arrive_whole(serve: Serve, kind: str) -> None:
    class Blob(bytes):
        """Bytes of a class that may have code of its own."""

    def application(server: Server, note: Note) -> None:
        body = b"0123456789" * 100_000
        answers: dict[str, Any] = {
            "/bytes": body,
            "/blob": Blob(body),
            "/bytearray": bytearray(body),
            "/str": body.decode(),
            "/response": Response(body, status=404),
            "/no-content": Response(status=204),
        }
        add(server, "request", kind, lambda server, request: answers[request.path])

    running = await serve(application)
    async with running.raw() as client:
        for path in ("/bytes", "/blob", "/bytearray", "/str", "/response"):
            client.ask(path)
            client.ask(path, method="HEAD")
            answer, head = await client.answer(), await client.answer(has_body=False)
            assert answer.body == b"0123456789" * 100_000
            assert answer.status == head.status == (404 if path == "/response" else 200)
            assert answer.headers["content-length"] == head.headers["content-length"] == "1000000"
        client.ask("/no-content")
        assert (await client.answer(has_body=False)).status == 204
        client.ask("/bytes")
        assert len((await client.answer()).body) == 1_000_000


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
        assert (answer.status, answer.headers["location"]) == (303, "/elsewhere")


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
