"""Clients that have to show a certificate."""

import asyncio
import datetime
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from application import Note
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from over_tls import HOST, any_certificate, serve_over_tls, until_told
from running import Running, Serve
from tls_peer import TlsPeer
from websockets.asyncio.client import connect

from hubbub import Request, Server, SettingsError

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """An authority for the certificates of clients, and the directory for its files."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.file = directory / "clients.pem"
        self.directory = directory
        self.ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str = "ada.example", **details: Any) -> trustme.LeafCert:
        """Return a new certificate."""
        return self.ca.issue_cert(name, **details)

    def issue_with(self, *extensions: x509.ExtensionType) -> trustme.LeafCert:
        """Return a new certificate with these extensions and no other ones."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ada")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        form = serialization.PrivateFormat.PKCS8
        return trustme.LeafCert(
            key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()),
            builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
            [],
        )


def context(certificate: trustme.LeafCert | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the context of a client that shows a certificate, and speaks only this version of TLS."""
    made = any_certificate().trusted
    if certificate:
        certificate.configure_cert(made)
    if version:
        made.minimum_version = made.maximum_version = version
    return made


def der(certificate: trustme.LeafCert) -> bytes:
    """Return a certificate as handlers see it."""
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def many_names(count: int) -> x509.SubjectAlternativeName:
    """Return an extension of more than 70 bytes for each name."""
    return x509.SubjectAlternativeName([x509.DNSName(f"{number:03}.{'a' * 60}.example") for number in range(count)])


def notes_certificates(server: Server, note: Note) -> None:
    @server.on("handshake")
    def on_handshake(server: Server, request: Request) -> None:
        note("handshake", request.peer_certificate)

    @server.on("open")
    def on_open(server: Server, request: Request) -> None:
        note("open", request.peer_certificate)

    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))

    @server.on("request")
    async def on_request(server: Server, request: Request) -> bytes:
        await asyncio.sleep(0)
        return request.peer_certificate or b"none"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority that the server trusts."""
    return Authority(tmp_path)


@pytest.fixture(params=[0, 1, 3], ids=["embedded", "workers1", "workers3"])
async def running(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Running]:
    """A server whose clients need a certificate."""
    # At this level every worker logs which files it reads.
    settings = {"ssl_ca_certs": str(authority.file), "log_level": "debug"}
    async with serve_over_tls(notes_certificates, settings, workers=request.param) as running:
        yield running


def client(running: Running, tls: ssl.SSLContext) -> connect:
    """Return a WebSocket client."""
    return connect(f"wss://{HOST}:{running.port}/", ssl=tls, proxy=None)


async def refusal(running: Running, tls: ssl.SSLContext) -> tuple[str, tuple[str, int]]:
    """Try to make a request; return the alert that answers it, as OpenSSL names it, and the client's address."""
    peer = TlsPeer(running.port, tls)

    async def ask() -> None:
        # With TLS 1.3 the client has finished its handshake before the server looks at its certificate.
        async with peer:
            await peer.ask("/")
            await peer.some()

    with pytest.raises(ssl.SSLError) as refused:
        await ask()
    peer.socket.close()
    return refused.value.reason or "", peer.address


# ---- clients with a certificate --------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_handlers_see_the_certificate_that_the_client_has_shown(
    running: Running, authority: Authority, version: ssl.TLSVersion
) -> None:
    for name in ("ada.example", "bob.example"):
        shown = authority.issue(name)
        tls = context(shown, version)
        async with client(running, tls) as websocket:
            assert await running.noted() == ("handshake", der(shown))
            assert await running.noted() == ("open", der(shown))
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
        async with TlsPeer(running.port, tls) as peer:
            # The second request comes on the same connection.
            for _ in range(2):
                await peer.ask("/")
                assert (await peer.answer()).endswith(b"\r\n\r\n" + der(shown))


async def test_a_certificate_of_an_intermediate_authority_is_accepted(running: Running, authority: Authority) -> None:
    shown = authority.ca.create_child_ca().issue_cert("ada.example")
    async with client(running, context(shown)):
        assert await running.noted() == ("handshake", der(shown))


async def test_a_long_certificate_is_accepted(running: Running, authority: Authority) -> None:
    """It takes two records of TLS."""
    shown = authority.issue_with(many_names(300))
    assert len(der(shown)) > 16 * 1024
    async with client(running, context(shown)):
        assert await running.noted() == ("handshake", der(shown))


async def test_curl_shows_its_certificate(
    running: Running, authority: Authority, tmp_path: Path, installed: Callable[..., str]
) -> None:
    shown = authority.issue()
    shown.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ada.pem"))

    async def curl(*options: str | Path) -> tuple[int, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(installed("curl"), "--silent", "--cacert", any_certificate().authority, *options),
            f"https://{HOST}:{running.port}/",
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output

    assert await curl("--cert", tmp_path / "ada.pem") == (0, der(shown))
    status, output = await curl()
    assert (status != 0, output) == (True, b"")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_is_not_resumed(running: Running, authority: Authority, version: ssl.TLSVersion) -> None:
    """Otherwise a certificate would not be checked again, although it may have expired."""
    shown = authority.issue()
    async with TlsPeer(running.port, context(shown, version)) as first:
        await first.ask("/")
        assert (await first.answer()).endswith(der(shown))
        session = first.tls.session
    async with TlsPeer(running.port, first.context, session=session) as second:
        assert not second.tls.session_reused
        await second.ask("/")
        assert (await second.answer()).endswith(der(shown))


async def test_where_none_is_asked_for_there_is_none(serve: Serve, authority: Authority) -> None:
    running = await serve(notes_certificates)
    if running.tls:
        # A client may have one for other servers.
        authority.issue().configure_cert(running.tls)
    async with running.connect():
        assert await running.noted() == ("handshake", None)
        assert await running.noted() == ("open", None)
    async with running.raw() as peer:
        peer.ask("/")
        assert (await peer.answer()).body == b"none"


# ---- clients that are refused ----------------------------------------------------------------------------


def of_another_authority(authority: Authority) -> trustme.LeafCert:
    return trustme.CA().issue_cert("ada.example")


def of_a_namesake(authority: Authority) -> trustme.LeafCert:
    """Return a certificate of an authority with the same name, and another key."""
    (authority.directory / "namesake").mkdir()
    namesake = Authority(authority.directory / "namesake")
    issuer = x509.load_pem_x509_certificate(authority.ca.cert_pem.bytes())
    namesake.ca = trustme.CA.from_pem(
        issuer.public_bytes(serialization.Encoding.PEM), namesake.ca.private_key_pem.bytes()
    )
    return namesake.issue_with()


NONE = "the client shows no certificate, which ssl_ca_certs requires"
REFUSED: dict[str, tuple[Callable[[Authority], trustme.LeafCert], str, str]] = {
    "expired": (
        lambda authority: authority.issue(not_before=NOW - 2 * DAY, not_after=NOW - DAY),
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "the client's certificate has expired",
    ),
    "not valid yet": (
        lambda authority: authority.issue(not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        # RFC 8446 §6.2: this alert also tells that it is not currently valid.
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "the client's certificate is not valid yet",
    ),
    "of another authority": (
        of_another_authority,
        "TLSV1_ALERT_UNKNOWN_CA",
        "the client's certificate is of no authority in ssl_ca_certs",
    ),
    "of a namesake": (
        of_a_namesake,
        "TLSV1_ALERT_DECRYPT_ERROR",
        "the client's certificate is not signed by the authority that it names, or the client lacks its key",
    ),
    "for servers": (
        lambda authority: authority.issue_with(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "the client's certificate is not meant for clients (extended key usage)",
    ),
}


async def is_refused(running: Running, tls: ssl.SSLContext, alert: str, reason: str) -> None:
    """Check what a client and the operator are told, and that it is counted; others are served meanwhile."""
    before = (await running.server.stats())["refused"]
    told, (host, port) = await refusal(running, tls)
    assert told == alert
    await running.log.tells(f"refused {host}:{port}: the TLS handshake failed: {reason}")
    assert (await running.server.stats())["refused"] == before + 1
    assert running.notes.all == []


async def test_clients_without_a_valid_certificate_are_refused(running: Running, authority: Authority) -> None:
    # As many as a worker logs in ten seconds.
    for issue, alert, reason in REFUSED.values():
        shown = issue(authority)
        for version in VERSIONS:
            await is_refused(running, context(shown, version), alert, reason)
            # Clients with a valid one are served all the same.
            async with TlsPeer(running.port, context(authority.issue(), version)) as other:
                await other.ask("/")
                assert (await other.answer()).startswith(b"HTTP/1.1 200 ")


async def test_a_client_without_a_certificate_is_refused(running: Running) -> None:
    # RFC 5246 §7.4.6: TLS 1.2 has no alert for just this.
    await is_refused(running, context(None, ssl.TLSVersion.TLSv1_2), "SSLV3_ALERT_HANDSHAKE_FAILURE", NONE)
    await is_refused(running, context(None, ssl.TLSVersion.TLSv1_3), "TLSV13_ALERT_CERTIFICATE_REQUIRED", NONE)


async def test_a_client_that_shows_an_endless_certificate_is_cut_off(running: Running, authority: Authority) -> None:
    shown = authority.issue_with(many_names(900))
    assert len(der(shown)) > 48 * 1024
    reason = "a message in it, such as the client's chain of certificates, is too long"
    await is_refused(running, context(shown), "UNEXPECTED_EOF_WHILE_READING", reason)


async def test_a_flood_of_refused_clients_does_not_fill_the_log(running: Running) -> None:
    await asyncio.gather(*(refusal(running, context(None)) for _ in range(60)))
    await running.stop()
    lines = running.log.text.count("the TLS handshake failed")
    # Each worker logs ten.
    assert 10 <= lines <= 10 * len(running.workers)
    assert "... and refused " in running.log.text


# ---- other authorities -----------------------------------------------------------------------------------


async def test_new_authorities_are_for_new_connections(running: Running, authority: Authority) -> None:
    before = context(authority.issue())
    async with client(running, before) as old:
        other = Authority(authority.directory)
        await until_told(running, "reloaded the certificate")
        for _ in range(3 * len(running.workers)):
            async with client(running, context(other.issue())):
                pass
            alert, _ = await refusal(running, before)
            assert alert == "TLSV1_ALERT_UNKNOWN_CA"
        await old.send("still here")
        assert await old.recv() == "still here"


async def test_authorities_that_cannot_be_used_are_not_taken(running: Running, authority: Authority) -> None:
    shown = context(authority.issue())
    authority.file.write_bytes(b"")
    await until_told(running, f"keeping the previous certificate: ssl_ca_certs: '{authority.file}' contains no")
    for _ in range(3 * len(running.workers)):
        async with client(running, shown):
            pass
    alert, _ = await refusal(running, context(None))
    assert alert == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


async def test_a_reloaded_worker_needs_the_authorities(authority: Authority) -> None:
    settings = {"ssl_ca_certs": str(authority.file)}
    async with serve_over_tls(notes_certificates, settings, workers=1) as running:
        before = context(authority.issue())
        other = Authority(authority.directory)
        await running.server.reload()
        await running.log.tells("hubbub INFO reloaded")
        async with client(running, context(other.issue())):
            pass
        alert, _ = await refusal(running, before)
        assert alert == "TLSV1_ALERT_UNKNOWN_CA"


async def test_the_file_may_name_several_authorities(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    both = tmp_path / "both.pem"
    both.write_bytes(b"The first:\n" + authority.file.read_bytes() + b"The second:\n" + other.file.read_bytes())
    async with serve_over_tls(notes_certificates, {"ssl_ca_certs": str(both)}) as running:
        for each in (authority, other):
            async with client(running, context(each.issue())):
                pass


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def fill_with_nonsense(file: Path) -> None:
    file.write_text("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("cannot be read: No such file or directory", lambda it: it.unlink()),
        ("is not a file", lambda it: (it.unlink(), it.mkdir())),
        ("contains no certificate (PEM)", lambda it: it.write_bytes(b"")),
        ("contains no certificate (PEM)", lambda it: shutil.copy(any_certificate().keyfile, it)),
        ("is not well-formed PEM: the line -----END CERTIFICATE----- is missing", cut),
        ("cannot be used: certificate 1 in it: ", fill_with_nonsense),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(
    authority: Authority, reason: str, spoil: Callable[[Path], Any]
) -> None:
    spoil(authority.file)
    with pytest.raises(SettingsError) as refused:
        async with Server(port=0, ssl_ca_certs=authority.file, **any_certificate().settings):
            pass
    assert str(refused.value).startswith(f"ssl_ca_certs: '{authority.file}' {reason}")
    assert "\n" not in str(refused.value)
