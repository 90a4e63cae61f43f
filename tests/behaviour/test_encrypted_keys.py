"""Private keys that are encrypted."""

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from application import Note
from over_tls import HOST, Certificate, serve_over_tls, until_told
from running import Running
from websockets.asyncio.client import connect

from hubbub import Server, SettingsError

PASSWORD = "correct horse, battery: stäple"
OTHER = "Tr0ub4dor&3"

Encrypt = Callable[..., Awaitable[None]]
"""Encrypts the key of a certificate in its file, with options of a command of openssl."""


@pytest.fixture
def encrypt(installed: Callable[..., str]) -> Encrypt:
    """Encrypt keys with openssl."""

    async def encrypt(certificate: Certificate, *command: str, password: str = PASSWORD) -> None:
        encrypted = certificate.keyfile.with_suffix(".new")
        files: list[str | Path] = ["-in", certificate.keyfile, "-out", encrypted]
        process = await asyncio.create_subprocess_exec(
            *(installed("openssl"), *command, *files, "-passout", "env:PASSWORD"),
            env=os.environ | {"PASSWORD": password},
        )
        assert await process.wait() == 0
        encrypted.rename(certificate.keyfile)

    return encrypt


PKCS8 = ("pkcs8", "-topk8")


def application(server: Server, note: Note) -> None:
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))


async def is_served(running: Running, certificate: Certificate) -> None:
    """Check that a client can talk to the server."""
    async with connect(f"wss://{HOST}:{running.port}/", ssl=certificate.trusted, proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "hello"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"),
        ("-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"),
        ("-v2", "des3", "-v2prf", "hmacWithSHA1"),
        ("-scrypt",),
    ],
    ids=["default", "sha1", "sha512", "3des", "scrypt"],
)
@pytest.mark.parametrize("key_type", trustme.KeyType)
async def test_a_key_is_decrypted(
    tmp_path: Path, encrypt: Encrypt, key_type: trustme.KeyType, options: tuple[str, ...]
) -> None:
    certificate = Certificate.make(tmp_path, key_type)
    await encrypt(certificate, *PKCS8, *options)
    async with serve_over_tls(application, {"ssl_keyfile_password": PASSWORD}, certificate) as running:
        await is_served(running, certificate)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
async def test_a_key_may_have_other_things_around_it_in_its_file(
    tmp_path: Path, encrypt: Encrypt, line_end: str
) -> None:
    """Such as the chain, and the attributes that openssl writes before the key when it converts a PKCS #12 file."""
    certificate = Certificate.make(tmp_path)
    await encrypt(certificate, *PKCS8)
    attributes = "Bag Attributes\n    friendlyName: chat\nKey Attributes: <No Attributes>\n"
    content = attributes + certificate.keyfile.read_text() + certificate.certfile.read_text()
    certificate.keyfile.write_bytes(content.replace("\n", line_end).encode())
    async with serve_over_tls(application, {"ssl_keyfile_password": PASSWORD}, certificate) as running:
        await is_served(running, certificate)


async def test_a_password_for_a_key_that_is_not_encrypted_is_ignored(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    async with serve_over_tls(application, {"ssl_keyfile_password": PASSWORD}, certificate) as running:
        await is_served(running, certificate)


@pytest.mark.parametrize("workers", [0, 3], ids=["embedded", "workers3"])
async def test_a_renewed_key_is_decrypted_with_the_same_password(
    tmp_path: Path, encrypt: Encrypt, workers: int
) -> None:
    certificate = Certificate.make(tmp_path)
    await encrypt(certificate, *PKCS8)
    (tmp_path / "new").mkdir()
    settings = {"ssl_keyfile_password": PASSWORD, "log_level": "debug"}
    async with serve_over_tls(application, settings, certificate, workers) as running:
        await is_served(running, certificate)

        renewed = Certificate.make(tmp_path / "new")
        await encrypt(renewed, *PKCS8, password=OTHER)
        replace(certificate, renewed)
        wrong = (
            f"keeping the previous certificate: ssl_keyfile_password: it is not the password of '{certificate.keyfile}'"
        )
        await until_told(running, wrong)

        renewed = Certificate.make(tmp_path / "new")
        await encrypt(renewed, *PKCS8)
        replace(certificate, renewed)
        await until_told(running, "reloaded the certificate")
        for _ in range(2 * len(running.workers)):
            await is_served(running, certificate)
        if workers:
            await running.server.reload()
            await running.log.tells("hubbub INFO reloaded")
            await is_served(running, certificate)
            for pid in re.findall(r"\(pid (\d+)\) is starting", running.log.text)[-workers:]:
                assert PASSWORD.encode() not in what_is_known_of(pid)
    assert PASSWORD not in running.log.text
    assert OTHER not in running.log.text


def what_is_known_of(pid: str) -> bytes:
    """Return the arguments and the environment of a process."""
    return b"".join(Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ"))


def replace(certificate: Certificate, renewed: Certificate) -> None:
    """Put new files in the place of old ones, as programs that renew certificates do."""
    for name in ("keyfile", "certfile", "authority"):
        shutil.move(getattr(renewed, name), getattr(certificate, name))


CONVERT = "convert it with `openssl pkcs8 -topk8 -in OLD -out NEW`"


@pytest.mark.parametrize(
    ("command", "password", "message"),
    [
        (PKCS8, None, "ssl_keyfile: '{}' is encrypted: set ssl_keyfile_password"),
        (PKCS8, OTHER, "ssl_keyfile_password: it is not the password of '{}'"),
        (
            (*PKCS8, "-v1", "PBE-SHA1-3DES"),
            PASSWORD,
            "ssl_keyfile: '{}' is encrypted in a way that is not supported "
            f"(PKCS#8 ASN.1 error: malformed ASN.1 DER value for OBJECT IDENTIFIER): {CONVERT}",
        ),
        (
            ("ec", "-aes256"),
            PASSWORD,
            f"ssl_keyfile: '{{}}' is encrypted in OpenSSL's old format: {CONVERT}",
        ),
        (("ec", "-aes256"), None, f"ssl_keyfile: '{{}}' is encrypted in OpenSSL's old format: {CONVERT}"),
    ],
    ids=["missing", "wrong", "pbes1", "old", "old-missing"],
)
async def test_a_key_that_cannot_be_decrypted_is_named(
    tmp_path: Path, encrypt: Encrypt, command: tuple[str, ...], password: str | None, message: str
) -> None:
    certificate = Certificate.make(tmp_path)
    await encrypt(certificate, *command)
    assert await refusal(certificate, password) == message.format(certificate.keyfile)


async def test_what_is_wrong_with_a_spoilt_key_is_told(tmp_path: Path, encrypt: Encrypt) -> None:
    certificate = Certificate.make(tmp_path)
    await encrypt(certificate, *PKCS8)
    content = certificate.keyfile.read_text()
    file = f"ssl_keyfile: '{certificate.keyfile}'"

    certificate.keyfile.write_text(content[: len(content) // 2])
    missing = "the line -----END ENCRYPTED PRIVATE KEY----- is missing"
    assert await refusal(certificate, PASSWORD) == f"{file} is not well-formed PEM: {missing}"

    begin, *_, end = content.splitlines()
    certificate.keyfile.write_text(f"{begin}\n{end}\n")
    assert (await refusal(certificate, PASSWORD)).startswith(f"{file} is encrypted")


async def refusal(certificate: Certificate, password: str | None) -> str:
    """Return what is told at the start, and check that it is one line without the password."""
    settings: dict[str, Any] = certificate.settings | {"ssl_keyfile_password": password}
    with pytest.raises(SettingsError) as refused:
        async with Server(port=0, **settings):
            pass
    told = str(refused.value)
    assert "\n" not in told
    assert not (password and password in told)
    return told
