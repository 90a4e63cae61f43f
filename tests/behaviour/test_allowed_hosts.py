"""Which hosts requests may be for: this stops pages whose own name resolves to the server (DNS rebinding)."""

import pytest
from application import Note
from running import Running, Serve

from hubbub import Request, Server

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
ALLOWED = ["app.example.com", "*.example.org:9501", "127.0.0.1", "[::1]:9501"]


def site(server: Server, note: Note) -> None:
    @server.on("handshake")
    def on_handshake(server: Server, request: Request) -> None:
        note("handshake", request.headers.get("host"))

    @server.on("request")
    def on_request(server: Server, request: Request) -> str:
        note("request", request.headers.get("host"))
        return "a page"


async def status_of(running: Running, head: str) -> int:
    """Return the status of the answer to a request."""
    async with running.raw() as client:
        client.send(head)
        return (await client.answer()).status


SERVED = [
    "app.example.com",
    "APP.Example.COM:8080",
    "app.example.com.",
    "a.example.org:9501",
    "127.0.0.1:4711",
    "[0:0:0:0:0:0:0:1]:9501",
]
REFUSED = [
    "a.example.org",
    "example.org:9501",
    "app.example.com.rebound.example",
    "rebound.example",
    "localhost",
    "[::1]",
    "",
]


async def test_only_hosts_that_are_listed_are_served(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(site, allowed_hosts=ALLOWED)
    for host in SERVED + REFUSED:
        # A page with the same host name, which `origins` allows.
        handshake = f"GET / HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}Origin: {running.scheme}://{host}\r\n\r\n"
        with subtests.test(host=host):
            for head, status in (
                (handshake, 101),
                (f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n", 200),
                (f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n", 200),
            ):
                assert await status_of(running, head) == (status if host in SERVED else 400)
    await running.stop()
    assert running.notes.all == [(asked, host) for host in SERVED for asked in ("handshake", "request")]


async def test_the_host_of_an_absolute_target_is_the_one_that_counts(serve: Serve) -> None:
    running = await serve(site, allowed_hosts=ALLOWED)
    for headers, status in (("", 200), (UPGRADE, 101)):
        head = f"GET http://app.example.com/ HTTP/1.1\r\nHost: rebound.example\r\n{headers}\r\n"
        assert await status_of(running, head) == status
        head = f"GET http://rebound.example/ HTTP/1.1\r\nHost: app.example.com\r\n{headers}\r\n"
        assert await status_of(running, head) == 400


async def test_a_request_without_a_host_and_what_is_said_of_one_elsewhere(serve: Serve) -> None:
    running = await serve(site, allowed_hosts=ALLOWED)
    assert await status_of(running, "GET / HTTP/1.0\r\n\r\n") == 400
    elsewhere = "X-Forwarded-Host: app.example.com\r\nForwarded: host=app.example.com\r\nX-Host: app.example.com\r\n"
    assert await status_of(running, f"GET / HTTP/1.1\r\nHost: rebound.example\r\n{elsewhere}\r\n") == 400
    elsewhere = elsewhere.replace("app.example.com", "rebound.example")
    assert await status_of(running, f"GET / HTTP/1.1\r\nHost: app.example.com\r\n{elsewhere}\r\n") == 200


async def test_a_body_for_another_host_is_not_read(serve: Serve) -> None:
    running = await serve(site, allowed_hosts=ALLOWED)
    async with running.raw() as client:
        client.send("POST / HTTP/1.1\r\nHost: rebound.example\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 400
        assert await client.rest() == b""


async def test_any_host_is_served_unless_some_are_listed(serve: Serve) -> None:
    running = await serve(site)
    for host in ("rebound.example", "localhost:1", ""):
        assert await status_of(running, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n") == 200


async def test_the_log_names_the_host_and_the_setting(serve: Serve) -> None:
    running = await serve(site, allowed_hosts=ALLOWED)
    async with running.raw() as client:
        client.send("GET /page?token=secret HTTP/1.1\r\nHost: rebound.example:9501\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.body) == (400, b"this host is not served here\n")
        await running.log.tells(
            f"refused {client.address} GET /page: 400 this host is not served here: "
            "'rebound.example:9501' is not in allowed_hosts\n"
        )
