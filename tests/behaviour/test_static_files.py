"""Files of a directory over real connections."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from application import Application, Note
from running import Serve

from hubbub import Request, Response, Server, StaticFiles

LONG = bytes(range(251)) * 20_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>é</h1>")
    (site / "long.bin").write_bytes(LONG)
    (site / "empty.txt").touch()
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return site


def serves(site: Path, threaded: bool = False) -> Application:
    def application(server: Server, note: Note) -> None:
        server.on("request", StaticFiles(site), threaded=threaded)

    return application


@pytest.mark.parametrize("threaded", [False, True])
async def test_files_are_served_on_a_kept_connection(serve: Serve, site: Path, threaded: bool) -> None:
    running = await serve(serves(site, threaded))
    async with running.raw() as client:
        for path, content_type, content in (
            ("/", "text/html; charset=utf-8", "<h1>é</h1>".encode()),
            ("/long.bin", "application/octet-stream", LONG),
            ("/empty.txt", "text/plain; charset=utf-8", b""),
        ):
            client.ask(path)
            answer = await client.answer()
            assert (answer.status, answer.headers["content-type"], answer.body) == (200, content_type, content)
            assert "date" in answer.headers


async def test_head_tells_the_length_and_sends_nothing(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    async with running.raw() as client:
        client.ask("/long.bin", method="HEAD")
        answer = await client.answer(has_body=False)
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(LONG)))
        client.ask("/empty.txt")
        assert (await client.answer()).status == 200


async def test_what_the_client_has_is_not_sent_again(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    async with running.raw() as client:
        client.ask("/long.bin")
        headers = (await client.answer()).headers
        for condition in (f"If-None-Match: {headers['etag']}", f"If-Modified-Since: {headers['last-modified']}"):
            client.ask("/long.bin", condition)
            answer = await client.answer()
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", headers["etag"])


async def test_a_part_of_a_file_can_be_asked_for(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    async with running.raw() as client:
        client.ask("/long.bin", "Range: bytes=1000-3999999")
        answer = await client.answer()
        assert (answer.status, answer.body) == (206, LONG[1000:4_000_000])
        assert answer.headers["content-range"] == f"bytes 1000-3999999/{len(LONG)}"
        client.ask("/long.bin", f"Range: bytes={len(LONG)}-")
        answer = await client.answer()
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(LONG)}")


async def test_a_slow_reader_gets_the_whole_file_and_then_the_next_answer(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    async with running.raw(receive_buffer=4096) as client, running.raw() as other:
        client.ask("/long.bin")
        client.ask("/")
        other.ask("/empty.txt")
        assert (await other.answer()).status == 200
        assert (await client.answer()).body == LONG
        assert (await client.answer()).headers["content-type"] == "text/html; charset=utf-8"


async def test_a_file_under_way_still_goes_out_when_the_server_stops(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    async with running.raw(receive_buffer=4096) as client:
        client.ask("/long.bin")
        # The head and a part of the body are there.
        begin = await client.some()
        stopping = asyncio.create_task(running.stop())
        assert (begin + await client.rest()).endswith(LONG)
    await stopping


async def test_a_connection_whose_file_shrinks_is_cut(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    async with running.raw(receive_buffer=4096) as client:
        with (site / "sparse.bin").open("wb") as sparse:
            sparse.truncate(200_000_000)
        client.ask("/sparse.bin")
        begin = await client.some()
        assert b"Content-Length: 200000000\r\n" in begin
        os.truncate(site / "sparse.bin", 0)
        # The connection is reset; or it ends, if another process has not released it yet. In both cases too early.
        with contextlib.suppress(ConnectionResetError):
            assert len(begin + await client.rest()) < 200_000_000


PATHS_OUTSIDE = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "//secret.txt",
    "/./../secret.txt",
    "/site/../../secret.txt",
    "/index.html/../../secret.txt",
    "/secret.txt%00.html",
    "http://localhost/../secret.txt",
]


async def test_nothing_outside_the_directory_is_served(serve: Serve, site: Path) -> None:
    running = await serve(serves(site))
    outside = [*PATHS_OUTSIDE, str(site.parent / "secret.txt")]
    async with running.raw() as client:
        for path in outside:
            client.ask(path)
        answers = [await client.answer() for _ in outside]
    assert [answer.status for answer in answers] == [404] * len(outside)


async def test_another_handler_can_ask_for_files(serve: Serve, site: Path) -> None:
    def application(server: Server, note: Note) -> None:
        files = StaticFiles(site)

        @server.on("request")
        async def on_request(server: Server, request: Request) -> Response:
            if request.path == "/api":
                return Response.json([request.method])
            return files(server, request)

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/api", method="POST")
        assert (await client.answer()).body == b'["POST"]'
        client.ask("/long.bin")
        assert (await client.answer()).body == LONG
        client.ask("/long.bin", method="POST")
        answer = await client.answer()
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_another_handler_can_add_to_what_they_gave(serve: Serve, site: Path) -> None:
    def application(server: Server, note: Note) -> None:
        files = StaticFiles(site, headers={"Cache-Control": "max-age=60"})

        @server.on("request")
        def on_request(server: Server, request: Request) -> Response:
            given = files(server, request)
            return Response(given.body, given.status, {**given.headers, "X-More": "1"})

    running = await serve(application)
    async with running.raw() as client:
        client.ask("/long.bin")
        answer = await client.answer()
        assert (answer.body, answer.headers["x-more"]) == (LONG, "1")
        assert answer.headers["cache-control"] == "max-age=60"


async def test_a_handshake_may_be_refused_with_a_file(serve: Serve, site: Path) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("handshake", StaticFiles(site))

    running = await serve(application)
    async with running.raw() as client:
        assert (await client.upgrade(path="/long.bin")).body == LONG
        assert await client.rest() == b""
