"""TLS: which clients the server accepts, and what happens to the others."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import websocket
from application import Note
from over_tls import HOST, any_certificate, serve_over_tls
from raw_client import RawClient
from running import Running, Serve, time_passes
from tls_peer import HANDSHAKE_RECORD, TlsPeer
from websockets.asyncio.client import connect

from hubbub import Frame, Opcode, Server

if TYPE_CHECKING:
    from playwright.async_api import Page

Installed = Callable[..., str]

CHOICES = {"1.1": "-tls1_1", "1.2": "-tls1_2", "1.3": "-tls1_3"}
MEGABYTE = 1024 * 1024


def echo(server: Server, note: Note) -> None:
    """Echo; note opens and closes; answer requests with their scheme."""
    server.on("open", lambda server, request: note(request.fd))
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
    server.on("close", lambda server, fd, code: note("close", fd, code))
    server.on("request", lambda server, request: f"{request.scheme} {request.path}")


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server that speaks TLS, in this process."""
    async with serve_over_tls(echo, {}) as running:
        yield running


async def output_of(program: str, *arguments: str | Path, says: bytes = b"") -> tuple[int, str]:
    """Run a program; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(says)
    assert process.returncode is not None
    return process.returncode, output.decode()


# ---- clients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_openssl_speaks_both_versions(running: Running, installed: Installed, version: str) -> None:
    status, output = await output_of(
        installed("openssl"),
        *("s_client", "-connect", f"{HOST}:{running.port}", CHOICES[version], "-CAfile", any_certificate().authority),
        *("-alpn", "h2,http/1.1", "-verify_return_error", "-ign_eof"),
        says=b"GET /here HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    assert status == 0
    assert f"New, TLSv{version}" in output
    assert "ALPN protocol: http/1.1" in output
    assert "Verification: OK" in output
    assert "https /here" in output


async def test_older_versions_are_refused(running: Running, installed: Installed) -> None:
    status, output = await output_of(
        installed("openssl"),
        *("s_client", "-connect", f"{HOST}:{running.port}", CHOICES["1.1"], "-cipher", "DEFAULT@SECLEVEL=0"),
    )
    assert status != 0
    assert "alert" in output
    await running.log.tells("the TLS handshake failed")


async def test_a_key_update_goes_unnoticed(running: Running, installed: Installed) -> None:
    process = await asyncio.create_subprocess_exec(
        installed("openssl"),
        *("s_client", "-connect", f"{HOST}:{running.port}", "-tls1_3"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin
    assert process.stdout
    # To the connected client, a line that begins with K is a command: update the keys, and make the peer do so too.
    process.stdin.write(b"K\n")
    await process.stdout.readuntil(b"KEYUPDATE")
    process.stdin.write(b"GET /updated HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b"https /updated" in await process.stdout.read()
    assert await process.wait() == 0


async def test_curl_asks_over_https(running: Running, installed: Installed) -> None:
    url = f"https://{HOST}:{running.port}/there"
    trusting = ("--silent", "--show-error", "--cacert", str(any_certificate().authority))
    assert await output_of(installed("curl"), *trusting, "-w", " %{http_version}", url) == (0, "https /there 1.1")
    assert await output_of(installed("curl"), *trusting, "--http1.0", url) == (0, "https /there")


async def test_websocket_client_speaks_wss(running: Running) -> None:
    def talk() -> str | bytes:
        client = websocket.create_connection(
            f"wss://{HOST}:{running.port}/", sslopt={"ca_certs": str(any_certificate().authority)}
        )
        client.send("hello")
        answer = client.recv()
        client.close()
        return answer

    assert await asyncio.to_thread(talk) == "hello"
    fd = await running.opened()
    assert await running.noted() == ("close", fd, 1000)


async def test_a_browser_speaks_https_and_wss(page: "Page") -> None:
    def application(server: Server, note: Note) -> None:
        server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
        server.on("request", lambda server, request: "<title>a page</title>")

    assert page.context.browser
    untrusting = await page.context.browser.new_page(ignore_https_errors=True)
    async with serve_over_tls(application, {}) as running:
        # The page has this server's origin, whose port is not the default one.
        await untrusting.goto(f"https://{HOST}:{running.port}/")
        answer = await untrusting.evaluate(
            """() => new Promise((resolve, reject) => {
                const socket = new WebSocket(`wss://${location.host}/`)
                socket.onopen = () => socket.send("hello")
                socket.onmessage = (event) => resolve(event.data)
                socket.onclose = (event) => reject(event.code)
            })"""
        )
        assert answer == "hello"


async def test_many_connections_at_once(running: Running) -> None:
    async def talk(number: int) -> None:
        async with running.connect() as client:
            await client.send(str(number))
            assert await client.recv() == str(number)

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(talk(number))


async def test_a_session_is_resumed(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as first:
        assert not first.tls.session_reused
        await first.ask("/")
        assert b"https /" in await first.answer()
        session = first.tls.session
    async with TlsPeer(running.port, first.context, session=session) as second:
        assert second.tls.session_reused
        await second.ask("/")
        assert b"https /" in await second.answer()


# ---- records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_messages_of_a_megabyte_go_both_ways(running: Running, version: ssl.TLSVersion) -> None:
    assert running.tls
    running.tls.maximum_version = version
    running.tls.minimum_version = version
    async with running.connect(max_size=None) as client:
        message = bytes(range(256)) * (MEGABYTE // 256)
        for _ in range(3):
            await client.send(message)
            assert await client.recv() == message


async def test_a_slow_reader_gets_every_byte(running: Running) -> None:
    message = bytes(range(251)) * (MEGABYTE // 251)
    async with TlsPeer(running.port, any_certificate().trusted, receive_buffer=4096) as client:
        await client.upgrade()
        fd = await running.opened()
        for _ in range(3):
            assert await running.server.push(fd, message)
        assert (await running.server.info(fd)).queued_bytes > 0
        for _ in range(3):
            assert (await client.exactly(10))[:2] == b"\x82\x7f"
            assert await client.exactly(len(message)) == message
        await running.nothing_queued()


async def test_records_may_come_byte_by_byte(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted, piece=1) as client:
        await client.upgrade()
        await client.send_frame(b"hello")
        assert await client.exactly(7) == b"\x81\x05hello"


async def test_a_message_may_come_in_many_records(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        for byte in client.frame(b"hello" * 20):
            client.tls.write(bytes([byte]))
        await client.flush()
        assert await client.exactly(102) == b"\x81\x64" + b"hello" * 20


def altered(client: TlsPeer) -> bytes:
    """Return a record that was changed on the way."""
    client.tls.write(client.frame(b"altered"))
    record = client.outgoing.read()
    return record[:-1] + bytes([record[-1] ^ 1])


def fatal_alert(client: TlsPeer) -> bytes:
    """Return the client's answer to a record that it cannot decrypt."""
    client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        client.tls.read(1)
    return client.outgoing.read()


def garbage(client: TlsPeer) -> bytes:
    """Return bytes that are not a TLS record."""
    return b"no record of TLS"


@pytest.mark.parametrize("bad", [altered, fatal_alert, garbage])
async def test_messages_before_a_bad_record_are_handled(bad: Callable[[TlsPeer], bytes]) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note(frame.data)
            server.push(frame.fd, frame.data)
            await note.goes_on.wait()

        server.on("close", lambda server, fd, code: note("close", code))

    async with (
        serve_over_tls(application, {}) as running,
        TlsPeer(running.port, any_certificate().trusted) as client,
    ):
        await client.upgrade()
        for message in (b"one", b"two"):
            client.tls.write(client.frame(message))
        # In one segment, so that they are read together.
        await client.send_raw(client.outgoing.read() + bad(client))
        assert await running.noted() == ("one",)
        await running.go_on()
        assert await running.noted() == ("two",)
        assert await running.noted() == ("close", 1006)


async def test_an_altered_record_ends_the_connection(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        fd = await running.opened()
        await client.send_raw(altered(client))
        with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
            await client.exactly(1)
        assert await running.noted() == ("close", fd, 1006)
    async with running.connect() as client_after:
        await client_after.send("still here")
        assert await client_after.recv() == "still here"


async def test_a_client_that_keeps_sending_gets_its_alert(running: Running) -> None:
    """Closing a socket with unread input resets it; then the client may find a broken connection, and no alert."""
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        await client.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
        for _ in range(5):
            await client.send_raw(bytes(1000))
            await time_passes(0.02)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            await client.some()


@pytest.mark.parametrize(
    "garbage",
    [bytes(100), b"\xff" * 100, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01x", b"\x17\x03\x03\x00\x01x"],
    ids=["zeros", "ones", "client hello", "application data"],
)
async def test_garbage_in_place_of_a_handshake_gets_an_alert(running: Running, garbage: bytes) -> None:
    async with RawClient(running.port) as client:
        client.send(garbage)
        answer = await client.rest()
        assert answer[:3] in (b"\x15\x03\x03", b"\x15\x03\x01")
    await running.log.tells("the TLS handshake failed")
    assert (await running.server.stats())["refused"] == 1


async def test_garbage_behind_a_handshake_ends_the_connection(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        fd = await running.opened()
        await client.send_raw(b"no record of TLS")
        with pytest.raises(ssl.SSLError):
            await client.exactly(1)
        assert await running.noted() == ("close", fd, 1006)


# ---- the end ---------------------------------------------------------------------------------------------


async def test_the_servers_end_is_told_by_close_notify(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        fd = await running.opened()
        await running.server.disconnect(fd, 4000)
        assert await client.exactly(4) == b"\x88\x02" + (4000).to_bytes(2)
        await client.send_frame((4000).to_bytes(2), Opcode.CLOSE)
        # Without close_notify this would be an error.
        assert await client.some() == b""
        assert await client.raw() == b""


async def test_the_clients_close_notify_is_the_end_of_its_input(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        fd = await running.opened()
        client.tls.write(client.frame(b"before"))
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.flush()
        assert await running.noted() == ("close", fd, 1006)
        assert await client.until_end() == b"\x81\x06before"


async def test_a_bare_end_is_the_end_too(running: Running) -> None:
    async with TlsPeer(running.port, any_certificate().trusted) as client:
        await client.upgrade()
        fd = await running.opened()
        client.socket.shutdown(socket.SHUT_WR)
        assert await running.noted() == ("close", fd, 1006)
        assert await client.until_end() == b""


# ---- clients that do not speak TLS -----------------------------------------------------------------------


async def test_plain_http_on_a_tls_port_is_told_so(running: Running) -> None:
    async with RawClient(running.port) as client:
        client.ask("/")
        answer = await client.answer()
        assert answer.status == 400
        assert b"this port speaks TLS: use https:// or wss://" in answer.body
        assert await client.rest() == b""


async def test_tls_on_a_plain_port_gets_an_alert(serve_here: Serve, installed: Installed) -> None:
    running = await serve_here(echo)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.handshake.failure"):
        async with connect(f"wss://{HOST}:{running.port}/", ssl=any_certificate().trusted, proxy=None):
            pass
    await running.log.tells("this port speaks plain HTTP")
    status, output = await output_of(installed("curl"), "--silent", "--show-error", f"https://{HOST}:{running.port}/")
    assert status == 35
    assert "alert handshake failure" in output


@pytest.mark.parametrize("begun", [b"", HANDSHAKE_RECORD[:3], HANDSHAKE_RECORD[:20]])
async def test_a_slow_tls_handshake_is_cut(begun: bytes) -> None:
    async with serve_over_tls(echo, {"handshake_timeout": 0.2}) as running, RawClient(running.port) as client:
        client.send(begun)
        assert await client.rest() == b""
        if begun:
            await running.log.tells("the TLS handshake failed: it took too long")
        assert (await running.server.stats())["refused"] == bool(begun)


async def test_a_tls_handshake_without_a_request_is_cut() -> None:
    async with (
        serve_over_tls(echo, {"handshake_timeout": 0.2}) as running,
        TlsPeer(running.port, any_certificate().trusted) as client,
    ):
        assert await client.until_end() == b""
