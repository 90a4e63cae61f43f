"""Pages, cookies and forms over real connections."""

import contextlib
import os
from pathlib import Path

import pytest
from application import Note
from raw_client import Answer, RawClient
from running import Running, Serve
from websockets.exceptions import InvalidStatus

from hubbub import Accept, Endpoint, Page, Request, Response, Server, client_path

CONTENT = "<h1>é</h1>".encode()
CLIENT = client_path().read_bytes()
HTML = "text/html; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "page.html"
    file.write_bytes(CONTENT)
    return file


async def get(running: Running, path: str, *headers: str, method: str = "GET") -> Answer:
    async with running.raw() as client:
        client.ask(path, *headers, method=method)
        return await client.answer(has_body=method != "HEAD")


async def shown(running: Running, path: str) -> tuple[int, str, bytes]:
    answer = await get(running, path)
    return answer.status, answer.headers["content-type"], answer.body


async def test_a_page_and_the_client_beside_it(serve: Serve, file: Path) -> None:
    def application(server: Server, note: Note) -> None:
        for path in ("/", "/chat", "/about/", "/room/{name}", "/{lang}/help"):
            endpoint = Endpoint(path)
            endpoint.on("request", Page(file))
            endpoint.on("message", lambda server, frame: server.push(frame.fd, frame.data))
            server.include(endpoint)

    running = await serve(application)
    for path in ("/", "/chat", "/about/", "/room/tea", "/fr/help"):
        assert await shown(running, path) == (200, HTML, CONTENT), path
        async with running.connect(path) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
    for path in ("/hubbub.js", "/about/hubbub.js", "/room/hubbub.js", "/fr/hubbub.js"):
        assert await shown(running, path) == (200, SCRIPT, CLIENT), path
    for path in ("/a/b/hubbub.js", "/page.html", "/hubbub.d.ts", "/about", "/Hubbub.js"):
        assert (await get(running, path)).status == 404, path
    with pytest.raises(InvalidStatus) as refused:
        await running.connect("/hubbub.js")
    assert refused.value.response.status_code == 404


async def test_a_page_without_the_client(serve: Serve, file: Path) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/")
        endpoint.on("request", Page(file, client=False))
        server.include(endpoint)

    running = await serve(application)
    assert (await get(running, "/")).status == 200
    assert (await get(running, "/hubbub.js")).status == 404


async def test_an_endpoint_of_the_program_comes_before_the_client(serve: Serve, file: Path) -> None:
    def application(server: Server, note: Note) -> None:
        home = Endpoint("/")
        home.on("request", Page(file))
        server.include(home)
        other = Endpoint("/docs/")
        other.on("request", Page(file))
        server.include(other)
        own = Endpoint("/hubbub.js")
        own.on("request", lambda server, request: "own")
        server.include(own)
        rest = Endpoint("/{rest:path}")
        rest.on("request", lambda server, request: "rest")
        server.include(rest)

    running = await serve(application)
    assert (await get(running, "/hubbub.js")).body == b"own"
    assert (await get(running, "/docs/hubbub.js")).body == CLIENT
    assert (await get(running, "/other")).body == b"rest"


async def test_a_page_as_the_servers_own_handler(serve: Serve, file: Path) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("request", Page(file), threaded=True)

    running = await serve(application)
    assert await shown(running, "/") == (200, HTML, CONTENT)
    assert await shown(running, "/hubbub.js") == (200, SCRIPT, CLIENT)
    for path in ("/other", "//", "/a/hubbub.js", "/index.html", "/.."):
        assert (await get(running, path)).status == 404, path


async def test_a_page_that_changes_is_served_anew(serve: Serve, file: Path) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/")
        endpoint.on("request", Page(file))
        server.include(endpoint)

    new = file.with_suffix(".new")
    new.write_bytes(b"<h1>another</h1>")
    running = await serve(application)
    first = await get(running, "/")
    assert first.headers["cache-control"] == "no-cache"
    condition = f"If-None-Match: {first.headers['etag']}"
    unchanged = await get(running, "/", condition)
    assert (unchanged.status, unchanged.body, unchanged.headers["cache-control"]) == (304, b"", "no-cache")
    os.replace(new, file)
    assert (await get(running, "/", condition)).body == b"<h1>another</h1>"
    os.unlink(file)
    assert (await get(running, "/")).status == 404
    assert (await get(running, "/hubbub.js")).status == 200
    os.mkdir(file)
    assert (await get(running, "/")).status == 404


async def test_other_methods_and_parts_of_a_page(serve: Serve, file: Path) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/")
        endpoint.on("request", Page(file))
        server.include(endpoint)

    running = await serve(application)
    for path, length in (("/", len(CONTENT)), ("/hubbub.js", len(CLIENT))):
        head = await get(running, path, method="HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(length), b"")
        posted = await get(running, path, method="POST")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
        part = await get(running, path, "Range: bytes=1-3")
        assert (part.status, len(part.body)) == (206, 3)


# ---- cookies, forms ------------------------------------------------------------------------------------


def cookies_of(head: bytes) -> list[str]:
    """Return the values of all Set-Cookie headers of an answer."""
    lines = head.decode("latin-1").split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("set-cookie:")]


async def head_of(client: RawClient) -> bytes:
    """Read an answer until the server closes the connection, or a WebSocket's answer begins."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += await client.some()
    return head


async def test_every_cookie_has_a_header_of_its_own(serve: Serve, file: Path) -> None:
    pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/")]

    def application(server: Server, note: Note) -> None:
        page = Page(file)

        @server.on("request")
        def on_request(server: Server, request: Request) -> Response | None:
            if request.path == "/pairs":
                return Response("x", headers=pairs)
            if request.path == "/page":
                answer = page(server, Request("GET", "/", "", [], ("", 0), "http"))
                return answer and answer.set_cookie("a", "1").set_cookie("b", "2")
            return Response.redirect("/", headers=pairs).set_cookie("c", "3").delete_cookie("d")

        @server.on("handshake")
        def on_handshake(server: Server, request: Request) -> Accept:
            return Accept(headers=pairs)

    running = await serve(application)
    values = [value for _, value in pairs]
    for path, expected in (
        ("/pairs", values),
        ("/page", ["a=1; Path=/; HttpOnly; SameSite=Lax", "b=2; Path=/; HttpOnly; SameSite=Lax"]),
        (
            "/go",
            [
                *values,
                "c=3; Path=/; HttpOnly; SameSite=Lax",
                "d=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax",
            ],
        ),
    ):
        async with running.raw() as client:
            client.ask(path, "Connection: close")
            assert cookies_of(await client.rest()) == expected
    async with running.raw() as client:
        client.ask_for_upgrade()
        assert cookies_of(await head_of(client)) == values


async def test_a_body_that_cannot_be_decoded_is_a_400(serve: Serve) -> None:
    """Unless the handler catches the error. Other errors in a handler are a 500."""

    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server, request: Request) -> str:
            if request.path == "/json":
                return repr(request.json())
            if request.path == "/caught":
                with contextlib.suppress(ValueError):
                    request.json()
                return "caught"
            if request.path == "/form":
                return repr(dict(request.form))
            return str(int(request.body))

    running = await serve(application)
    form, plain = "Content-Type: application/x-www-form-urlencoded", "Content-Type: text/plain"
    async with running.raw() as client:
        for path, content_type, body, status in (
            ("/json", plain, b"{", 400),
            ("/json", plain, b"[1]", 200),
            ("/caught", plain, b"{", 200),
            ("/form", plain, b"a=1", 400),
            ("/form", form, b"a=%ff", 400),
            ("/form", form, b"a=1&" * 1000 + b"a=1", 400),
            ("/form", form, b"a=1", 200),
            ("/number", plain, b"one", 500),
        ):
            client.ask(path, content_type, f"Content-Length: {len(body)}", method="POST")
            client.send(body)
            answer = await client.answer()
            assert answer.status == status, (path, body)
            if status == 400:
                assert answer.body == b"the body of the request cannot be decoded\n"
    await running.log.tells("not JSON: ")
    assert "AttributeError" not in running.log.text


async def test_a_redirect_after_a_form_is_303(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        endpoint = Endpoint("/names")

        @endpoint.on("request")
        def on_request(server: Server, request: Request) -> Response:
            note(dict(request.form))
            return Response.redirect(f"/names/{request.form['name']}")

        server.include(endpoint)

    running = await serve(application)
    form = "Content-Type: application/x-www-form-urlencoded"
    async with running.raw() as client:
        client.ask("/names", form, "Content-Length: 12", method="POST")
        client.send("name=Z%C3%AB")
        answer = await client.answer()
        assert (answer.status, answer.headers["location"]) == (303, "/names/Z%C3%AB")
        # What a client sends cannot add a header to the answer.
        client.ask("/names", form, "Content-Length: 13", method="POST")
        client.send("name=a%0d%0ab")
        assert (await client.answer()).status == 500
    assert [await running.noted() for _ in range(2)] == [({"name": "Zë"},), ({"name": "a\r\nb"},)]
    await running.log.tells("the URL contains a control character")
