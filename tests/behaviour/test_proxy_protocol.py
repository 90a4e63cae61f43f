"""Connections that a proxy begins with a PROXY header."""

import asyncio
import struct
from collections.abc import Callable

import pytest
from application import Note
from multi_process import serve_in_processes
from over_tls import HOST, serve_over_tls
from raw_client import RawClient
from running import Running, Serve

from hubbub import Request, Server

V1 = b"PROXY TCP4 198.51.100.9 192.0.2.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + struct.pack(
    "!16s16sHH", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x09", bytes(16), 4711, 443
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
UNIX = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(216)
UNKNOWN = b"PROXY UNKNOWN\r\n"
FORGED = ("X-Forwarded-For: 203.0.113.1", "X-Forwarded-Proto: https")


def tells_client(server: Server, note: Note) -> None:
    @server.on("request")
    def on_request(server: Server, request: Request) -> str:
        return "{} {}".format(*request.client)


def tells_fd(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))


def tells_all(server: Server, note: Note) -> None:
    @server.on("request")
    def on_request(server: Server, request: Request) -> str:
        return "{} {} {}".format(*request.client, request.scheme)


async def answer_to(running: Running, header: bytes, *headers: str) -> tuple[int, str]:
    """Send a header, and then a request, over TLS if the server speaks it; return the answer's status and body."""
    connecting = (
        asyncio.open_unix_connection(running.uds) if running.uds else asyncio.open_connection(HOST, running.port)
    )
    reader, writer = await connecting
    writer.write(header)
    if running.tls:
        await writer.start_tls(running.tls, server_hostname=HOST)
    lines = ["GET / HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_the_client_is_whom_the_header_names(serve: Serve) -> None:
    running = await serve(tells_client, proxy_protocol=True)
    assert await answer_to(running, V1) == (200, "198.51.100.9 4711")
    assert await answer_to(running, V2) == (200, "2001:db8::9 4711")
    status, client = await answer_to(running, LOCAL)
    assert (status, client.split()[0]) == (200, "127.0.0.1")


async def test_a_connection_without_a_valid_header_is_400(serve: Serve) -> None:
    running = await serve(tells_client, proxy_protocol=True)
    for header in (b"", b"PROXY TCP4 198.51.100.9 4711\r\n", V1.replace(b"TCP4", b"TCP6"), V1 + V1):
        if running.tls:
            async with RawClient(running.port) as client:
                client.send(header + b"GET / HTTP/1.1\r\n\r\n")
                assert not (await client.rest()).startswith(b"HTTP/1.1 200")
        else:
            status, _ = await answer_to(running, header)
            assert status == 400
    await running.log.tells("does not begin with a PROXY header")


async def test_the_log_tells_what_is_wrong_with_a_header(serve_here: Serve, subtests: pytest.Subtests) -> None:
    running = await serve_here(tells_client, proxy_protocol=True)
    for header, wrong in {
        V1.replace(b" 4711", b""): "it must name two addresses and two ports",
        V1.replace(b"198.51.100.9", b"::1"): "an address is not valid",
        V1.replace(b"4711", b"65536"): "a port is not valid",
        V1.replace(b"TCP4", b"UDP4"): "its protocol must be TCP4, TCP6 or UNKNOWN",
        V1.replace(b"\r\n", b"\n"): "its line must end with CR LF",
        V1.lower(): "it must begin with PROXY in upper case",
        V2.replace(b"QUIT\n\x21", b"QUIT\n\x31"): "its version must be 1 or 2",
        V2.replace(b"QUIT\n\x21\x21\0\x24", b"QUIT\n\x21\x21\0\x04"): "it is too short for its addresses",
    }.items():
        with subtests.test(wrong=wrong):
            assert (await answer_to(running, header))[0] == 400
            await running.log.tells(f"400 the PROXY header is malformed: {wrong}")


async def test_a_stranger_is_turned_away_with_or_without_a_header(serve: Serve) -> None:
    running = await serve(tells_client, proxy_protocol=True, trusted_proxies=["192.0.2.1"])
    for header in (V1, b""):
        async with RawClient(running.uds or running.port) as client:
            client.send(header)
            answered = await client.rest()
            assert answered == b"" if running.tls else answered.startswith(b"HTTP/1.1 400 ")
    await running.log.tells("is not in trusted_proxies")


async def test_forwarding_headers_of_the_named_client_are_not_believed(serve: Serve) -> None:
    running = await serve(tells_all, proxy_protocol=True)
    assert await answer_to(running, V1, *FORGED) == (200, f"198.51.100.9 4711 {running.scheme}")


async def test_forwarding_headers_never_count_if_no_client_is_named(serve: Serve) -> None:
    running = await serve(tells_all, proxy_protocol=True)
    for header in (UNKNOWN, LOCAL, UNIX):
        status, told = await answer_to(running, header, *FORGED)
        client, _, scheme = told.split()
        assert (status, client, scheme) == (200, "127.0.0.1", running.scheme)


async def test_forwarding_headers_count_if_a_trusted_proxy_is_named(serve: Serve) -> None:
    # The proxy that has connected and the one that it names may have the same address.
    running = await serve(tells_all, proxy_protocol=True)
    header = V1.replace(b"198.51.100.9", b"127.0.0.1")
    assert await answer_to(running, header, *FORGED) == (200, "203.0.113.1 0 https")


async def test_the_client_of_a_websocket_is_the_proxy_if_none_is_named(serve_here: Serve) -> None:
    running = await serve_here(tells_fd, proxy_protocol=True, origins=["https://example.com"])
    async with RawClient(running.port) as client:
        client.send(LOCAL)
        await client.upgrade(FORGED[0], "Origin: https://example.com")
        info = await running.server.info(await running.opened())
        assert info.client[0] == "127.0.0.1"
    async with RawClient(running.port) as client:
        client.send(LOCAL)
        assert (await client.upgrade(FORGED[0], "Origin: https://example.org")).status == 403
    await running.log.tells("refused 127.0.0.1:")


async def test_another_worker_that_takes_a_connection_over_knows_whether_a_client_was_named() -> None:
    async with serve_in_processes(1, tells_all, {"proxy_protocol": True}) as running:
        named = V1.replace(b"198.51.100.9", b"127.0.0.1")
        async with RawClient(running.port) as nobodys, RawClient(running.port) as proxys:
            clients = {nobodys: b"127.0.0.1 ", proxys: b"203.0.113.1 0 https"}
            nobodys.send(UNKNOWN)
            proxys.send(named)
            for client, told in clients.items():
                client.ask("/", *FORGED)
                assert (await client.answer()).body.startswith(told)
            await running.server.reload()
            await running.log.tells("hubbub INFO reloaded")
            for client, told in clients.items():
                client.ask("/", *FORGED)
                assert (await client.answer()).body.startswith(told)


async def test_without_the_setting_a_header_is_no_request(serve_here: Serve) -> None:
    running = await serve_here(tells_client)
    assert (await answer_to(running, V1))[0] == 400


async def test_tls_begins_after_the_header_in_processes_too() -> None:
    async with serve_over_tls(tells_client, {"proxy_protocol": True}, workers=2) as running:
        assert await answer_to(running, V1) == (200, "198.51.100.9 4711")
        assert await answer_to(running, V2) == (200, "2001:db8::9 4711")


async def test_a_connection_that_another_worker_takes_over_keeps_its_client() -> None:
    async with (
        serve_in_processes(1, tells_client, {"proxy_protocol": True}) as running,
        RawClient(running.port) as client,
    ):
        client.send(V2)
        client.ask()
        assert (await client.answer()).body == b"2001:db8::9 4711"
        # It is kept for the next request, and passed on.
        await running.server.reload()
        await running.log.tells("hubbub INFO reloaded")
        client.ask()
        assert (await client.answer()).body == b"2001:db8::9 4711"


async def test_curl_says_it_as_proxies_do(serve_here: Serve, installed: Callable[..., str]) -> None:
    running = await serve_here(tells_client, proxy_protocol=True)
    curl = await asyncio.create_subprocess_exec(
        *(installed("curl"), "--silent", "--haproxy-protocol", f"http://127.0.0.1:{running.port}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await curl.communicate()
    assert output.startswith(b"127.0.0.1 ")
    assert not output.endswith(b" 0")
