"""The server's side in docs/client.md."""

import asyncio
from pathlib import Path

import pytest
from snippets import Snippet, execute, shows
from websockets.asyncio.client import connect

import hubbub


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with the page that the docs assume."""
    (tmp_path / "index.html").write_text("<h1>A page</h1>")
    return tmp_path


@shows("docs/client.md", "Serving it")
@shows("docs/client.md", "Dead connections")
async def test_the_server_serves_the_client_and_answers_its_heartbeat(
    snippets: list[Snippet], monkeypatch: pytest.MonkeyPatch, site: Path
) -> None:
    monkeypatch.chdir(site)
    monkeypatch.setenv("HUBBUB_PORT", "0")
    async with execute(*snippets)["server"] as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /hubbub.js HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"text/javascript" in head
        assert body == hubbub.client_path().read_bytes()
        async with connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as client:
            await client.send("ping")
            assert await client.recv() == "pong"
