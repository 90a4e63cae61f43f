"""The example of client certificates in docs/security.md, exactly as it is shown."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from snippets import Snippet, execute, shows
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from hubbub import Server

pytestmark = shows("docs/security.md", "Client certificates")


@pytest.fixture
def authority() -> trustme.CA:
    """The authority of all certificates."""
    return trustme.CA()


@pytest.fixture
async def server(
    snippets: list[Snippet], authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    """The example, served here."""
    made = authority.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "server.pem"))
    made.private_key_pem.write_to_path(str(tmp_path / "server.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBBUB_PORT", "0")
    server = execute(*snippets)["server"]
    assert isinstance(server, Server)
    async with server:
        yield server


def client(server: Server, authority: trustme.CA, name: str | None) -> connect:
    """Return a client whose certificate has this common name; without a name, it has none."""
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    if name:
        authority.issue_cert("sensor.example", common_name=name).configure_cert(tls)
    return connect(f"wss://localhost:{server.port}/", ssl=tls, proxy=None)


async def test_a_sensor_is_greeted_by_its_name(server: Server, authority: trustme.CA) -> None:
    async with client(server, authority, "sensor-7") as sensor:
        assert await sensor.recv() == "hello sensor-7"


async def test_others_are_refused(server: Server, authority: trustme.CA) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await client(server, authority, "camera-7")
    assert refused.value.response.status_code == 403
    with pytest.raises((InvalidMessage, ssl.SSLError, ConnectionError)):
        await client(server, authority, None)
