"""The example of docs/security.md, exactly as it is shown."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from snippets import Snippet, execute, shows
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import Request, Server

pytestmark = shows("docs/security.md", "What is left to you")


@pytest.fixture
async def server(snippets: list[Snippet], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """The example, served here."""
    monkeypatch.setenv("HUBBUB_PORT", "0")
    server = execute(*snippets)["server"]
    assert isinstance(server, Server)

    @server.on("open")
    def on_open(server: Server, request: Request) -> None:
        server.push(request.fd, request.state.user)

    async with server:
        yield server


def client(server: Server, session: str, address: str = "127.0.0.2") -> connect:
    """Return a client with a session, at an address of the loopback."""
    return connect(
        f"ws://127.0.0.1:{server.port}/",
        additional_headers={"Cookie": f"session={session}"},
        local_addr=(address, 0),
        proxy=None,
    )


async def test_who_has_a_session_is_let_in_and_another_one_told_to_log_in(server: Server) -> None:
    async with client(server, "a-secret-of-many-random-bytes") as ada:
        assert await ada.recv() == "Ada"
    async with client(server, "guessed") as stranger:
        with pytest.raises(ConnectionClosed):
            await stranger.recv()
        assert (stranger.close_code, stranger.close_reason) == (4401, "log in first")


async def test_one_address_has_its_share_and_another_one_its_own(server: Server) -> None:
    async def come_and_go(address: str) -> None:
        async with client(server, "a-secret-of-many-random-bytes", address) as ada:
            assert await ada.recv() == "Ada"

    await asyncio.gather(*(come_and_go("127.0.0.2") for _ in range(20)))
    with pytest.raises(InvalidStatus) as refused:
        await come_and_go("127.0.0.2")
    assert refused.value.response.status_code == 429
    await come_and_go("127.0.0.3")
