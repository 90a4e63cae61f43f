"""Long silence, pings that come late, and a second start, seen from the program that the server is embedded in."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from raw_peer import PATIENCE, PING, PONG, frame, handshake
from websockets.asyncio.client import connect

from hubbub import Request, Server

Closes = asyncio.Queue[tuple[int, str]]

CLOSE_TIMEOUT = 0.3


@asynccontextmanager
async def embedded(server: Server) -> AsyncIterator[Closes]:
    """Run `server`, and return the code and reason with which its connections end."""
    closes: Closes = asyncio.Queue()

    @server.on("close")
    def on_close(server: Server, fd: int, code: int, reason: str) -> None:
        closes.put_nowait((code, reason))

    async with asyncio.timeout(PATIENCE), server:
        yield closes


@asynccontextmanager
async def raw_connection(
    port: int, receive_buffer: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a WebSocket whose frames the test reads and writes itself."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    try:
        writer.write(handshake())
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_the_answer_to_a_disconnect_after_a_long_silence_counts() -> None:
    server = Server(port=0, control=None, ping_interval=None, close_timeout=CLOSE_TIMEOUT)
    async with embedded(server) as closes, connect(f"ws://127.0.0.1:{server.port}", ping_interval=None) as client:
        (fd,) = server.connections
        # Meanwhile no turn runs, so none reads the clock.
        await asyncio.sleep(2 * CLOSE_TIMEOUT)
        assert server.disconnect(fd, 4000, "bye")
        assert await closes.get() == (4000, "bye")
        await client.wait_closed()
        assert client.close_code == 4000


async def test_the_answer_to_a_stop_after_a_long_silence_counts() -> None:
    server = Server(port=0, control=None, ping_interval=None, close_timeout=CLOSE_TIMEOUT)
    async with embedded(server) as closes:
        client = await connect(f"ws://127.0.0.1:{server.port}", ping_interval=None)
        await asyncio.sleep(2 * CLOSE_TIMEOUT)
    code, _ = closes.get_nowait()
    assert code == 1001
    await client.wait_closed()
    assert client.close_code == 1001


@pytest.mark.parametrize("begun", [b"", b"\x81"], ids=["nothing", "a byte of a header"])
async def test_a_peer_that_falls_silent_is_found_by_pings(begun: bytes) -> None:
    server = Server(port=0, control=None, ping_interval=0.1, ping_timeout=0.1, close_timeout=0.1)
    async with embedded(server) as closes, raw_connection(server.port) as (_, writer):
        writer.write(begun)
        assert await closes.get() == (1006, "1011")


async def test_a_slow_reader_that_answers_pings_stays_however_full_its_outbox_is() -> None:
    server = Server(
        port=0, control=None, ping_interval=0.2, ping_timeout=0.2, slow_consumer="drop", send_queue_size=64 * 1024
    )

    def fill(fd: int) -> None:
        while server.push(fd, b"x" * 100):
            pass

    async with embedded(server) as closes, raw_connection(server.port, receive_buffer=4096) as (reader, writer):
        (fd,) = server.connections
        server.tick(0.001, fill, fd)
        pings = 0
        while pings < 4:
            first, length = await reader.readexactly(2)
            payload = await reader.readexactly(length)
            if first & 0b1111 == PING:
                pings += 1
                writer.write(frame(PONG, payload))
        assert server.stats()["messages_dropped"] > 0
        assert closes.empty()
        assert server.exists(fd)


async def test_a_second_start_gives_no_id_again() -> None:
    server = Server(port=0, control=None)
    fds: list[int] = []

    @server.on("open")
    def on_open(server: Server, request: Request) -> None:
        fds.append(request.fd)

    async def come_and_go() -> None:
        async with raw_connection(server.port):
            pass

    for _ in range(2):
        async with asyncio.timeout(PATIENCE), server:
            # These take more ids than the clock, from which ids start, has ticks meanwhile.
            for _ in range(15):
                await asyncio.gather(*(come_and_go() for _ in range(100)))
    assert len(fds) == 3000
    assert len(set(fds)) == 3000
