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


async def test_a_long_answer_waits_for_a_slow_client_and_is_let_go_if_it_leaves(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("request", lambda server, request: bytes(int(request.query["length"])))

    running = await serve(application)
    async with running.raw(receive_buffer=4096) as client:
        client.ask("/?length=3000000")
        assert len(await client.exactly(100_000)) == 100_000
        client.reset()
    async with running.raw() as client:
        client.ask("/?length=10000")
        assert (await client.answer()).body == bytes(10_000)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_empty_answer_has_no_type(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        add(server, "request", kind, lambda server, request: b"" if request.path == "/bytes" else "")

    running = await serve(application)
    async with running.raw() as client:
        for path in ("/bytes", "/str"):
            client.ask(path)
            answer = await client.answer()
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
            assert "content-type" not in answer.headers


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_may_be_of_derived_classes(serve: Serve, kind: str) -> None:
    class Page(str):
        """Text of a class of its own."""

    class Created(Response):
        """A response of a class of its own."""

    def application(server: Server, note: Note) -> None:
        answers = {"/page": Page("<p>"), "/created": Created(b"made", status=201).set_cookie("name", "value")}
        add(server, "request", kind, lambda server, request: answers[request.path])

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/page")
        answer = await client.answer()
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/html; charset=utf-8", b"<p>")
        client.ask("/created")
        answer = await client.answer()
        assert (answer.status, answer.body) == (201, b"made")
        assert answer.headers["set-cookie"].startswith("name=value;")


@pytest.mark.parametrize("kind", KINDS)
async def test_header_values_are_sent_as_latin_1(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        headers = [("X-City", "M\xfcnchen"), ("X-City", "Bonn")]
        add(server, "request", kind, lambda server, request: Response(b"x", headers=headers))

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/", "Connection: close")
        assert b"\r\nX-City: M\xfcnchen\r\nX-City: Bonn\r\n" in await client.rest()


@pytest.mark.parametrize("kind", KINDS)
async def test_text_that_utf8_cannot_express_is_500(serve: Serve, kind: str) -> None:
    def application(server: Server, note: Note) -> None:
        add(server, "request", kind, lambda server, request: "\ud800" if request.path == "/bad" else "good")

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/bad")
        assert (await client.answer()).status == 500
        client.ask("/good")
        assert (await client.answer()).body == b"good"
    await running.log.tells("the request handler failed (/bad)")
    await running.log.tells("UnicodeEncodeError")


async def test_a_handler_may_return_the_coroutine_of_another(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        async def answer(request: Request) -> str:
            if request.path == "/later":
                await asyncio.sleep(0)
            if request.path == "/raise":
                raise LookupError("in the coroutine")
            return request.path

        server.on("request", lambda server, request: answer(request))

    running = await serve(application)
    async with running.raw() as client:
        for path in ("/at-once", "/later"):
            client.ask(path)
            assert (await client.answer()).body == path.encode()
        client.ask("/raise")
        assert (await client.answer()).status == 500
    await running.log.tells("LookupError: in the coroutine")


async def test_a_request_can_be_kept_and_read_in_any_thread(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        kept: list[Request] = []

        async def on_request(server: Server, request: Request) -> Response:
            kept.append(request)
            return await asyncio.to_thread(shown, kept[0])

        def shown(request: Request) -> Response:
            request.state.count = getattr(request.state, "count", 0) + 1
            return Response.json([request.method, request.path, request.headers["x-a"], request.state.count])

        server.on("request", on_request)

    running = await serve(application)
    async with running.raw() as client:
        for count in (1, 2):
            client.ask(f"/{count}", "X-A: b", method="GET" if count == 1 else "DELETE")
            assert json.loads((await client.answer()).body) == ["GET", "/1", "b", count]


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
