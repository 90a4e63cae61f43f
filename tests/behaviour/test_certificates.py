"""Certificates: replacing them while the server runs, and which files can be used."""

import asyncio
import os
import re
import resource
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from application import Note
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from over_tls import HOST, Certificate, serve_over_tls, until_told
from raw_client import RawClient
from running import Running
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from hubbub import CloseCode, Server, SettingsError

Exchange = tuple[Running, Certificate]
"""A server, and its certificate, which a test may change."""


def echo(server: Server, note: Note) -> None:
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))


@pytest.fixture(params=[0, 3], ids=["embedded", "workers3"])
async def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Exchange]:
    """A server with a certificate of its own, which the test may change."""
    certificate = Certificate.make(tmp_path)
    # At this level every worker logs what it reads.
    async with serve_over_tls(echo, {"log_level": "debug"}, certificate, workers=request.param) as running:
        yield running, certificate


async def is_served(running: Running, trusted: ssl.SSLContext) -> bool:
    """Return whether this client trusts the server on each of several connections, or on none."""
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
        await until_told(running, "reloaded the certificate")
        assert await is_served(running, after)
        assert not await is_served(running, before)
        await old.send("still here")
        assert await old.recv() == "still here"


async def test_a_broken_certificate_is_not_taken(exchange: Exchange, tmp_path: Path) -> None:
    running, certificate = exchange
    before = certificate.trusted
    chain = certificate.certfile.read_bytes()
    certificate.certfile.write_bytes(chain[: len(chain) // 4])
    await until_told(running, "keeping the previous certificate: ssl_certfile: ")
    if len(running.workers) > 1:
        lines = [line for line in running.log.text.splitlines() if "keeping the previous certificate" in line]
        assert sorted(line.split(": ssl_certfile")[0].split("hubbub ")[1] for line in lines) == [
            "DEBUG worker 1: keeping the previous certificate",
            "DEBUG worker 2: keeping the previous certificate",
            "WARNING worker 0: keeping the previous certificate",
        ]
    assert await is_served(running, before)

    # At first only the chain is new: the key still belongs to the old certificate.
    (tmp_path / "other").mkdir()
    other = Certificate.make(tmp_path / "other")
    shutil.copy(other.certfile, certificate.certfile)
    await until_told(running, "keeping the previous certificate: ssl_keyfile: ")
    assert await is_served(running, before)

    shutil.copy(other.keyfile, certificate.keyfile)
    await until_told(running, "reloaded the certificate")
    assert await is_served(running, other.trusted)
    assert running.log.text.count("keeping the previous certificate") == 2 * len(running.workers)


async def test_a_certificate_that_could_not_be_read_for_another_reason_is_read_later(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    async with serve_over_tls(echo, {}, certificate) as running:
        after = Certificate.make(tmp_path).trusted
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        first_free = os.dup(0)
        os.close(first_free)
        # Leave descriptors for the two ends of one connection, and none for a file.
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + 2, before[1]))
        try:
            while "Too many open files" not in running.log.text:
                async with RawClient(running.port) as client:
                    client.ask("/")
                    assert (await client.answer()).status == 400
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await until_told(running, "reloaded the certificate")
        assert await is_served(running, after)


@pytest.fixture
async def reloading(tmp_path: Path) -> AsyncIterator[Exchange]:
    """The same server in workers that can be replaced."""
    certificate = Certificate.make(tmp_path)
    async with serve_over_tls(echo, {}, certificate, workers=3) as running:
        yield running, certificate


async def test_a_reload_takes_the_new_certificate(reloading: Exchange, tmp_path: Path) -> None:
    running, _ = reloading
    after = Certificate.make(tmp_path).trusted
    await running.server.reload()
    await running.log.tells("hubbub INFO reloaded")
    assert await is_served(running, after)
    assert "reloaded the certificate" not in running.log.text


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


def pem(key: Path, form: serialization.PrivateFormat) -> bytes:
    """Return a key in another form."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


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


@pytest.mark.parametrize(
    ("setting", "reason", "spoil"),
    [
        ("ssl_certfile", "cannot be read: No such file", lambda it: it.certfile.unlink()),
        ("ssl_keyfile", "cannot be read: No such file", lambda it: it.keyfile.unlink()),
        ("ssl_certfile", "is not a file", lambda it: (it.certfile.unlink(), it.certfile.mkdir())),
        ("ssl_certfile", "contains no certificate", lambda it: it.certfile.write_bytes(b"")),
        ("ssl_certfile", "contains no certificate", lambda it: shutil.copy(it.keyfile, it.certfile)),
        ("ssl_keyfile", "contains no private key", lambda it: shutil.copy(it.certfile, it.keyfile)),
        ("ssl_keyfile", NOT_THE_KEY, other_key),
        ("ssl_keyfile", NOT_THE_KEY, turn_chain_round),
        ("ssl_keyfile", ACCEPTED, unusable_key(lambda: rsa.generate_private_key(65537, 1024))),
        ("ssl_keyfile", ACCEPTED, unusable_key(lambda: ec.generate_private_key(ec.SECP256K1()))),
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
