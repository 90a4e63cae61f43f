"""TLS: who can speak it with the server, what happens to those who cannot, and how certificates are exchanged."""

import asyncio
import contextlib
import os
import re
import resource
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import websocket
from application import Note
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from over_tls import HOST, Certificate, any_certificate, serve_over_tls
from raw_client import RawClient
from running import Running, Serve
from tls_peer import HANDSHAKE_RECORD, TlsPeer
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from hubbub import CloseCode, Frame, Opcode, Server, SettingsError

if TYPE_CHECKING:
    from playwright.async_api import Page

Installed = Callable[..., str]

CHOICES = {"1.1": "-tls1_1", "1.2": "-tls1_2", "1.3": "-tls1_3"}
MEGABYTE = 1024 * 1024


def echo(server: Server, note: Note) -> None:
    """Echo; tell of opens and closes; answer requests with their scheme."""
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
    """Run a program; return its exit status and all that it printed."""
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
    # A line that begins so is a command to it, once it is connected: update the keys, and have the peer do so too.
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
        # Its origin is this server's, on a port that is not the default one.
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
        assert (await running.server.info(fd)).queued_bytes == 0


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
    """Return a record that is not as it was made."""
    client.tls.write(client.frame(b"altered"))
    record = client.outgoing.read()
    return record[:-1] + bytes([record[-1] ^ 1])


def fatal_alert(client: TlsPeer) -> bytes:
    """Return what the client says to a record that it cannot read."""
    client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        client.tls.read(1)
    return client.outgoing.read()


def garbage(client: TlsPeer) -> bytes:
    """Return what is no record at all."""
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


# ---- who does not speak TLS ------------------------------------------------------------------------------


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


# ---- exchanging certificates -----------------------------------------------------------------------------


Exchange = tuple[Running, Certificate]
"""A server, and its certificate, which a test may change."""


@pytest.fixture(params=[0, 3], ids=["embedded", "workers3"])
async def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Exchange]:
    """A server with a certificate of its own, which the test may change."""
    certificate = Certificate.make(tmp_path)
    # At this level every worker tells what it reads.
    async with serve_over_tls(echo, {"log_level": "debug"}, certificate, workers=request.param) as running:
        yield running, certificate


async def until_told(running: Running, text: str) -> None:
    """Connect until every worker has told something of the certificate: they look when somebody comes."""
    while not all(f"worker {worker.worker_id}: {text}" in running.log.text for worker in running.workers):
        # Together, for each goes to the worker that has the fewest: one after the other might all go to the same.
        async with AsyncExitStack() as together:
            for _ in range(2 * len(running.workers)):
                await together.enter_async_context(RawClient(running.port))


async def is_served(running: Running, trusted: ssl.SSLContext) -> bool:
    """Whether each of some connections is to a server that this client trusts, or none is."""
    served = set()
    for _ in range(3 * len(running.workers)):
        try:
            async with connect(f"wss://{HOST}:{running.port}/", ssl=trusted, proxy=None):
                served.add(True)
        except ssl.SSLCertVerificationError:
            served.add(False)
    (all_are,) = served
    return all_are


async def test_a_new_certificate_is_for_new_connections(exchange: Exchange, tmp_path: Path) -> None:
    running, certificate = exchange
    before = certificate.trusted
    async with connect(f"wss://{HOST}:{running.port}/", ssl=before, proxy=None) as old:
        assert await is_served(running, before)
        after = Certificate.make(tmp_path).trusted
        await until_told(running, "the certificate was read again")
        assert await is_served(running, after)
        assert not await is_served(running, before)
        await old.send("still here")
        assert await old.recv() == "still here"


async def test_a_broken_certificate_is_not_taken(exchange: Exchange, tmp_path: Path) -> None:
    running, certificate = exchange
    before = certificate.trusted
    chain = certificate.certfile.read_bytes()
    certificate.certfile.write_bytes(chain[: len(chain) // 4])
    await until_told(running, "the certificate of before stays: ssl_certfile: ")
    if len(running.workers) > 1:
        lines = [line for line in running.log.text.splitlines() if "the certificate of before stays" in line]
        assert sorted(line.split(": ssl_certfile")[0].split("hubbub ")[1] for line in lines) == [
            "DEBUG worker 1: the certificate of before stays",
            "DEBUG worker 2: the certificate of before stays",
            "WARNING worker 0: the certificate of before stays",
        ]
    assert await is_served(running, before)

    # The chain alone is new, for now: the key is still that of the old one.
    (tmp_path / "other").mkdir()
    other = Certificate.make(tmp_path / "other")
    shutil.copy(other.certfile, certificate.certfile)
    await until_told(running, "the certificate of before stays: ssl_keyfile: ")
    assert await is_served(running, before)

    shutil.copy(other.keyfile, certificate.keyfile)
    await until_told(running, "the certificate was read again")
    assert await is_served(running, other.trusted)
    assert running.log.text.count("the certificate of before stays") == 2 * len(running.workers)


async def test_a_certificate_that_could_not_be_read_for_another_reason_is_read_later(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    async with serve_over_tls(echo, {}, certificate) as running:
        after = Certificate.make(tmp_path).trusted
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        first_free = os.dup(0)
        os.close(first_free)
        # The two ends of one connection, and no file.
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 2, before[1]))
        try:
            while "Too many open files" not in running.log.text:
                async with RawClient(running.port) as client:
                    client.ask("/")
                    assert (await client.answer()).status == 400
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await until_told(running, "the certificate was read again")
        assert await is_served(running, after)


@pytest.fixture
async def reloading(tmp_path: Path) -> AsyncIterator[Exchange]:
    """The same, in workers that can be replaced."""
    certificate = Certificate.make(tmp_path)
    async with serve_over_tls(echo, {}, certificate, workers=3) as running:
        yield running, certificate


async def test_a_reload_takes_the_new_certificate(reloading: Exchange, tmp_path: Path) -> None:
    running, _ = reloading
    after = Certificate.make(tmp_path).trusted
    await running.server.reload()
    await running.log.tells("hubbub INFO reloaded")
    assert await is_served(running, after)
    assert "the certificate was read again" not in running.log.text


async def test_nobody_is_refused_while_workers_are_replaced(reloading: Exchange) -> None:
    running, certificate = reloading
    has_ended = asyncio.Event()
    attempts = 0
    codes = set()

    async def connect_again_and_again() -> None:
        nonlocal attempts
        while not has_ended.is_set():
            async with connect(f"wss://{HOST}:{running.port}/", ssl=certificate.trusted, proxy=None) as client:
                attempts += 1
                try:
                    await client.send("hello")
                    assert await client.recv() == "hello"
                except ConnectionClosed as closed:
                    codes.add(closed.rcvd and closed.rcvd.code)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(connect_again_and_again())
        await running.server.reload()
        await running.log.tells("hubbub INFO reloaded")
        has_ended.set()
    assert attempts >= 8
    assert codes <= {CloseCode.SERVICE_RESTART}


# ---- files that cannot be used ---------------------------------------------------------------------------


def pem(key: Path, form: serialization.PrivateFormat, password: bytes | None = None) -> bytes:
    """Return a key in another form."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, form, encryption)


@pytest.mark.parametrize("key_type", trustme.KeyType)
@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
async def test_keys_of_every_form_can_be_used(
    tmp_path: Path, key_type: trustme.KeyType, form: serialization.PrivateFormat
) -> None:
    certificate = Certificate.make(tmp_path, key_type)
    certificate.keyfile.write_bytes(pem(certificate.keyfile, form))
    async with serve_over_tls(echo, {}, certificate) as running:
        assert await is_served(running, certificate.trusted)


def other_key(certificate: Certificate) -> None:
    (certificate.keyfile.parent / "other").mkdir()
    shutil.copy(Certificate.make(certificate.keyfile.parent / "other").keyfile, certificate.keyfile)


def unusable_key(make: Callable[[], PrivateKeyTypes]) -> Callable[[Certificate], Any]:
    def spoil(certificate: Certificate) -> None:
        form = serialization.PrivateFormat.PKCS8
        written = make().private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        certificate.keyfile.write_bytes(written)

    return spoil


def turn_chain_round(certificate: Certificate) -> None:
    begin = "-----BEGIN"
    _, *chain = certificate.certfile.read_text().split(begin)
    certificate.certfile.write_text("".join(begin + each for each in reversed(chain)))


NOT_THE_KEY = r"is not the key of the first certificate in '.*' \(the server's own must come first\)"
ACCEPTED = r"cannot be used: the key has to be RSA \(2048 to 4096 bits\), ECDSA \(P-256 or P-384\), or Ed25519"


def encrypt(form: serialization.PrivateFormat) -> Callable[[Certificate], Any]:
    return lambda certificate: certificate.keyfile.write_bytes(pem(certificate.keyfile, form, b"secret"))


@pytest.mark.parametrize(
    ("setting", "reason", "spoil"),
    [
        ("ssl_certfile", "cannot be read: No such file", lambda it: it.certfile.unlink()),
        ("ssl_keyfile", "cannot be read: No such file", lambda it: it.keyfile.unlink()),
        ("ssl_certfile", "is not a file", lambda it: (it.certfile.unlink(), it.certfile.mkdir())),
        ("ssl_certfile", "has no certificate in it", lambda it: it.certfile.write_bytes(b"")),
        ("ssl_certfile", "has no certificate in it", lambda it: shutil.copy(it.keyfile, it.certfile)),
        ("ssl_keyfile", "has no private key in it", lambda it: shutil.copy(it.certfile, it.keyfile)),
        ("ssl_keyfile", NOT_THE_KEY, other_key),
        ("ssl_keyfile", NOT_THE_KEY, turn_chain_round),
        ("ssl_keyfile", ACCEPTED, unusable_key(lambda: rsa.generate_private_key(65537, 1024))),
        ("ssl_keyfile", ACCEPTED, unusable_key(lambda: ec.generate_private_key(ec.SECP256K1()))),
        ("ssl_keyfile", "is encrypted", encrypt(serialization.PrivateFormat.PKCS8)),
        ("ssl_keyfile", "is encrypted", encrypt(serialization.PrivateFormat.TraditionalOpenSSL)),
    ],
)
async def test_what_cannot_be_used_is_named(
    tmp_path: Path, setting: str, reason: str, spoil: Callable[[Certificate], Any]
) -> None:
    certificate = Certificate.make(tmp_path)
    spoil(certificate)
    with pytest.raises(SettingsError) as refused:
        async with Server(port=0, **certificate.settings):
            pass
    path = getattr(certificate, setting.removeprefix("ssl_"))
    assert re.match(f"{setting}: '{re.escape(str(path))}' {reason}", str(refused.value))
    assert "\n" not in str(refused.value)
