"""A server that uses TLS, and the certificate that its clients have to trust."""

import contextlib
import functools
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from application import Application
from embedded import serve_embedded
from multi_process import serve_in_processes
from raw_client import RawClient
from running import Running

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """A certificate chain and its key in PEM files, and the authority that signed it."""

    certfile: Path
    keyfile: Path
    authority: Path

    @classmethod
    def make(cls, directory: Path, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> "Certificate":
        """Write new files into a directory, replacing existing ones."""
        made = cls(directory / "chain.pem", directory / "key.pem", directory / "authority.pem")
        authority = trustme.CA(key_type=key_type)
        leaf = authority.create_child_ca(key_type=key_type).issue_cert(HOST, key_type=key_type)
        authority.cert_pem.write_to_path(str(made.authority))
        made.certfile.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(made.keyfile))
        return made

    @property
    def settings(self) -> dict[str, Any]:
        """For a server."""
        return {"ssl_certfile": str(self.certfile), "ssl_keyfile": str(self.keyfile)}

    @property
    def trusted(self) -> ssl.SSLContext:
        """For a client."""
        return ssl.create_default_context(cafile=self.authority)


@contextlib.asynccontextmanager
async def serve_over_tls(
    application: Application, settings: dict[str, Any], certificate: Certificate | None = None, workers: int = 0
) -> AsyncIterator[Running]:
    """Serve over TLS, with the given certificate or any: in that many workers, or in this process."""
    certificate = certificate or any_certificate()
    settings = certificate.settings | settings
    async with (
        serve_in_processes(workers, application, settings)
        if workers
        else serve_embedded(application, settings) as running
    ):
        running.tls = certificate.trusted
        yield running


async def until_told(running: Running, text: str) -> None:
    """Connect until every worker has logged something about the certificate: they check it when a client connects."""
    while not all(f"worker {worker.worker_id}: {text}" in running.log.text for worker in running.workers):
        # Connect at the same time: the worker with the fewest connections gets the next one, so connections that are
        # opened and closed one after the other might all go to the same worker.
        async with contextlib.AsyncExitStack() as together:
            for _ in range(2 * len(running.workers)):
                await together.enter_async_context(RawClient(running.port))


@functools.cache
def any_certificate() -> Certificate:
    """Return a certificate that is shared by all tests that do not change it."""
    return Certificate.make(Path(_directory().name))


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()
