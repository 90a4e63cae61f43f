"""Closing a connection whose client is still reading earlier messages, slowly."""

import asyncio
import contextlib
import time

from application import Note
from multi_process import serve_in_processes
from raw_client import RawClient
from running import Running, Serve

from hubbub import CloseCode, Frame, Opcode, Response, Server

# Far more than the kernel's buffers hold for a client with a small one.
MUCH = 3_000_000
RECEIVE_BUFFER = 16 * 1024
CLOSE_TIMEOUT = 0.5


def sends_much(server: Server, note: Note) -> None:
    """Send `MUCH` bytes to a client that asks for them, and then do what the message says."""

    @server.on("message")
    def on_message(server: Server, frame: Frame) -> None:
        amount = int.from_bytes(frame.data) if isinstance(frame.data, bytes) else MUCH
        assert server.push(frame.fd, bytes(amount))
        match frame.data:
            case bytes():
                server.disconnect(frame.fd, 4000, "bye")
            case "disconnect":
                server.disconnect(frame.fd, 4000, "bye")
            case "fail":
                raise RuntimeError("the test wants it")
            case "stop":
                server.shutdown()
            case "overflow":
                assert not server.push(frame.fd, bytes(MUCH))
            case "reload":
                server.reload()
            case "pass":
                note("sent")

    server.on("request", lambda server, request: Response(bytes(MUCH)))
    server.on("open", lambda server, request: note("open"))
    server.on("close", lambda server, fd, code, reason: note("close", code, reason))


def tells_open(server: Server, note: Note) -> None:
    """Note the ids of connections that open."""
    server.on("open", lambda server, request: note(request.fd))


async def read_slowly(client: RawClient) -> bytes:
    """Read everything up to the end, at most 2 MB a second: `MUCH` takes several `close_timeout`s."""
    received = bytearray()
    while data := await client.some():
        received += data
        await asyncio.sleep(len(data) / 2_000_000)
    return bytes(received)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return the server's Close frame."""
    payload = code.to_bytes(2) + reason.encode()
    return bytes([0x80 | Opcode.CLOSE, len(payload)]) + payload


async def slow_reader(running: Running, stack: contextlib.AsyncExitStack) -> RawClient:
    """Return a client with a small buffer, and a WebSocket."""
    client = await stack.enter_async_context(running.raw(RECEIVE_BUFFER))
    await client.upgrade()
    assert await running.noted() == ("open",)
    return client


async def test_everything_and_the_close_frame_arrive_at_a_slow_reader(serve: Serve) -> None:
    running = await serve(sends_much, close_timeout=CLOSE_TIMEOUT)
    async with contextlib.AsyncExitStack() as stack:
        readers = [await slow_reader(running, stack) for _ in range(3)]
        disconnected, failed, echoed = readers
        disconnected.send_frame(Opcode.TEXT, b"disconnect")
        failed.send_frame(Opcode.TEXT, b"fail")
        echoed.send_frame(Opcode.TEXT, b"pass")
        echoed.send_close(4001, "I have had enough")
        asking = await stack.enter_async_context(running.raw(RECEIVE_BUFFER))
        asking.ask("/", "Connection: close")
        received = await asyncio.gather(*(read_slowly(client) for client in [*readers, asking]))
    for data, close in zip(
        received[:3],
        [close_frame(4000, "bye"), close_frame(CloseCode.INTERNAL_ERROR, "the handler failed"), close_frame(4001)],
        strict=True,
    ):
        assert len(data) == 10 + MUCH + len(close)
        assert data.endswith(close)
    head, _, body = received[3].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) == MUCH


async def test_a_reader_is_slow_in_its_own_rhythm(serve: Serve) -> None:
    """The client's system makes room in large steps, and the time between two of them is longer than a period."""
    amount, rate = 400_000, 70_000
    running = await serve(sends_much, close_timeout=CLOSE_TIMEOUT)
    async with running.raw(64 * 1024) as client:
        await client.upgrade()
        assert await running.noted() == ("open",)
        client.send_frame(Opcode.BINARY, amount.to_bytes(4))
        received = bytearray()
        began = time.monotonic()
        # After a pause of this process the client reads more at once, so that it never falls behind its rate.
        while data := await client.some(max(int(rate * (time.monotonic() - began)) - len(received), 1)):
            received += data
            await asyncio.sleep(0.02)
    assert received.endswith(close_frame(4000, "bye"))
    assert len(received) > amount


async def test_a_slow_reader_gets_all_of_it_while_the_server_stops(serve: Serve) -> None:
    running = await serve(sends_much, close_timeout=CLOSE_TIMEOUT, shutdown_timeout=30)
    async with contextlib.AsyncExitStack() as stack:
        client = await slow_reader(running, stack)
        client.send_frame(Opcode.TEXT, b"stop")
        data = await read_slowly(client)
        await running.stop()
    assert data.endswith(close_frame(CloseCode.GOING_AWAY, "the server is stopping"))
    assert len(data) > MUCH


async def test_a_slow_reader_gets_all_of_it_from_a_worker_that_is_replaced() -> None:
    settings = {"close_timeout": CLOSE_TIMEOUT, "shutdown_timeout": 30}
    async with serve_in_processes(1, sends_much, settings) as running, contextlib.AsyncExitStack() as stack:
        client = await slow_reader(running, stack)
        client.send_frame(Opcode.TEXT, b"reload")
        data = await read_slowly(client)
    assert data.endswith(close_frame(CloseCode.SERVICE_RESTART, "the server is reloading"))
    assert len(data) > MUCH


async def test_a_reader_that_is_too_slow_for_the_policy_gets_the_close_frame(serve_here: Serve) -> None:
    running = await serve_here(sends_much, close_timeout=CLOSE_TIMEOUT, send_queue_size=MUCH)
    async with contextlib.AsyncExitStack() as stack:
        client = await slow_reader(running, stack)
        # The first message is being sent, and has to be complete before the Close frame.
        client.send_frame(Opcode.TEXT, b"overflow")
        data = await read_slowly(client)
    assert data.endswith(close_frame(CloseCode.TRY_AGAIN_LATER, "slow consumer"))
    assert len(data) > MUCH


async def test_a_slow_reader_may_take_its_time_to_come_to_a_ping(serve_here: Serve) -> None:
    running = await serve_here(tells_open, ping_interval=1, ping_timeout=1)
    async with running.raw(RECEIVE_BUFFER) as client:
        await client.upgrade()
        fd = await running.opened()
        # The kernel takes the whole message, and the pings after it.
        assert await running.server.push(fd, bytes(400_000))
        received = bytearray()
        while not received.endswith(bytes([0x80 | Opcode.PING, 0])):
            received += await client.some(8000)
            await asyncio.sleep(0.08)
        assert len(received) > 400_000
        client.send_frame(Opcode.PONG)
        assert (await client.frame()).opcode == Opcode.PING


async def test_the_stop_waits_no_longer_than_shutdown_timeout_for_a_slow_reader(serve: Serve) -> None:
    running = await serve(sends_much, close_timeout=CLOSE_TIMEOUT, shutdown_timeout=1)
    async with contextlib.AsyncExitStack() as stack:
        client = await slow_reader(running, stack)
        client.send_frame(Opcode.TEXT, b"pass")
        assert await running.noted() == ("sent",)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            is_over = asyncio.Event()
            reading = group.create_task(trickle(client, is_over))
            # A server in processes must exit with status 0.
            await running.stop()
            is_over.set()
            assert await running.noted() == ("close", 1006, "1001")
            assert await reading < MUCH


async def test_a_reader_that_takes_hardly_anything_is_cut_off(serve_here: Serve) -> None:
    running = await serve_here(sends_much, close_timeout=CLOSE_TIMEOUT, shutdown_timeout=60)
    async with contextlib.AsyncExitStack() as stack:
        client = await slow_reader(running, stack)
        client.send_frame(Opcode.TEXT, b"disconnect")
        async with asyncio.TaskGroup() as group:
            is_over = asyncio.Event()
            reading = group.create_task(trickle(client, is_over))
            assert await running.noted() == ("close", 1006, "4000")
            is_over.set()
            assert await reading < MUCH


async def trickle(client: RawClient, is_over: asyncio.Event) -> int:
    """Read 10 KB a second until the time is up, and then the rest; return the number of bytes read."""
    count = 0
    with contextlib.suppress(OSError):
        while data := await client.some(1000):
            count += len(data)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), 0.1)
    return count
