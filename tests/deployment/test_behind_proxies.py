"""Behind the proxies of docs/deploy.md, the server works as it does without a proxy."""

import asyncio
import re
from typing import Any

import pytest
from document import snippet
from playwright.async_api import Page, expect
from proxied import Behind, Proxied
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub import Settings

BIG = 3_000_000
FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "gopher, https"}


async def refusal(server: Proxied, **options: Any) -> Any:
    """Return the response to a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await server.connect(**options)
    return refused.value.response


# The client's address.


async def test_a_page_of_the_proxys_address_may_connect_and_no_other_one(behind: Behind) -> None:
    server = await behind()
    port = server.front.http
    async with server.connect(origin=f"http://127.0.0.1:{port}") as client:
        await client.send("hello")
        assert await client.recv() == "hello"
    for origin in (
        "http://evil.example.com",
        "http://127.0.0.1",
        f"http://localhost:{port}",
        f"http://127.0.0.1:{server.server.port}",
    ):
        assert (await refusal(server, origin=origin)).status_code == 403


async def test_a_real_page_connects_to_where_it_came_from(behind: Behind, page: Page) -> None:
    server = await behind()
    await page.goto(f"http://127.0.0.1:{server.front.http}/")
    await expect(page).to_have_title("hello")


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["as it is", "forged"])
async def test_the_address_is_that_of_the_client_whatever_it_says(behind: Behind, headers: dict[str, str]) -> None:
    server = await behind()
    # A loopback address that is not a trusted proxy.
    async with server.connect(local_addr=("127.0.0.2", 0), additional_headers=headers):
        opened = await server.opened.get()
    assert (opened.client, opened.listed) == ("127.0.0.2", "127.0.0.2")
    assert opened.scheme == "http"


async def test_nobody_is_believed_who_is_not_trusted(behind: Behind) -> None:
    server = await behind(trusted_proxies=["192.0.2.0/24"])
    async with server.connect(local_addr=("127.0.0.2", 0)):
        opened = await server.opened.get()
    assert (opened.client, opened.listed) == ("127.0.0.1", "127.0.0.1")


async def test_with_tls_at_nginx_the_scheme_is_https(behind_nginx: Behind) -> None:
    server = await behind_nginx()
    origin = f"https://127.0.0.1:{server.front.https}"
    async with server.connect(secure=True, origin=origin, additional_headers={"X-Forwarded-Proto": "http"}) as client:
        assert (await server.opened.get()).scheme == "https"
        await client.send(bytes(BIG // 10))
        assert await client.recv() == bytes(BIG // 10)
    assert (await refusal(server, secure=True, origin="https://evil.example.com")).status_code == 403


async def test_above_max_connections_503_comes_through(behind: Behind) -> None:
    server = await behind(max_connections=1)
    async with server.connect():
        response = await refusal(server)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert (await server.get("/health"))[0] == 200


async def test_pages_and_the_state_of_health_come_through(behind: Behind) -> None:
    server = await behind()
    status, answer = await server.get("/")
    assert status == 200
    assert "<title>connecting</title>" in answer
    status, answer = await server.get("/health")
    assert status == 200
    assert answer.endswith("ok")


# Messages.


async def test_big_messages_come_through_both_ways(behind: Behind) -> None:
    server = await behind(max_message_size=BIG, compression=True)
    for compression in (None, "deflate"):
        async with server.connect(compression=compression) as client:
            message = "x" * BIG
            await client.send(message)
            assert await client.recv() == message


async def test_a_message_is_not_held_back_until_the_next(behind: Behind) -> None:
    server = await behind()
    async with server.connect() as client:
        fd = (await server.opened.get()).fd
        for number in range(20):
            assert server.server.push(fd, str(number))
            assert await client.recv() == str(number)


async def test_pings_come_through_both_ways(behind: Behind) -> None:
    server = await behind(ping_interval=0.05, ping_timeout=10.0)
    async with server.connect() as client:
        fd = (await server.opened.get()).fd
        for _ in range(5):
            await (await client.ping())
        # Wait for more than one interval, in which the server receives only answers to its pings.
        info = server.server.info(fd)
        assert info is not None
        received_at = info.last_received_at
        while info.last_received_at == received_at:
            await asyncio.sleep(0.01)
            info = server.server.info(fd)
            assert info is not None


async def test_a_client_that_falls_silent_is_closed_with_1011(behind: Behind) -> None:
    server = await behind(ping_interval=0.05, ping_timeout=0.1, close_timeout=0.1)
    async with server.connect() as client:
        await server.opened.get()
        # From here on the client reads nothing, and so answers no ping.
        client.transport.pause_reading()
        assert await server.closed.get() == (1006, "1011")
        # The client would wait ten seconds for the answer to its own Close, which it does not read either.
        client.transport.abort()


# The end of the connection.


async def test_close_codes_come_through_both_ways(behind: Behind) -> None:
    server = await behind()
    async with server.connect() as client:
        assert server.server.disconnect((await server.opened.get()).fd, 4000, "bye")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4000, "bye")
    assert await server.closed.get() == (4000, "bye")
    async with server.connect() as client:
        await client.close(4001, "that is all")
    assert await server.closed.get() == (4001, "that is all")


async def test_a_client_that_breaks_off_is_noticed(behind: Behind) -> None:
    server = await behind()
    async with server.connect() as client:
        await server.opened.get()
        client.transport.abort()
        assert await server.closed.get() == (1006, "")


async def test_a_stop_is_told_to_clients_of_the_proxy(behind: Behind) -> None:
    server = await behind()
    async with server.connect() as client:
        await server.opened.get()
        server.server.shutdown()
        await client.wait_closed()
        assert client.close_code == 1001


def test_nginx_is_more_patient_than_the_pings() -> None:
    settings = Settings()
    assert settings.ping_interval is not None
    assert settings.ping_timeout is not None
    patience = re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", snippet("nginx"))
    assert len(patience) == 2
    assert all(int(seconds) > settings.ping_interval + settings.ping_timeout for seconds in patience)
