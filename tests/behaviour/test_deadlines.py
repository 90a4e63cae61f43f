"""Deadlines are met also where nothing else wakes the event loop: no ping, no other connection, no input."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from application import Note
from running import Serve

from hubbub import Frame, Opcode, Server

CLOSE_TIMEOUT = 0.1
# Within this time nothing but the deadline under test is due. A test that takes longer fails.
PATIENCE = 8
SETTINGS: dict[str, Any] = {"ping_interval": None, "close_timeout": CLOSE_TIMEOUT, "handshake_timeout": 60}


async def from_a_task(disconnect: Callable[[], object]) -> None:
    """Call it while no turn of the reactor runs or is due."""
    await asyncio.sleep(2 * CLOSE_TIMEOUT)
    disconnect()


async def from_a_thread(disconnect: Callable[[], object]) -> None:
    """Call it in a thread of its own."""
    await asyncio.sleep(2 * CLOSE_TIMEOUT)
    threading.Thread(target=disconnect).start()


async def from_call_soon(disconnect: Callable[[], object]) -> None:
    """Let the event loop call it."""
    asyncio.get_running_loop().call_later(2 * CLOSE_TIMEOUT, disconnect)


async def at_once(disconnect: Callable[[], object]) -> None:
    """Call it in the turn that has started the handler."""
    disconnect()


@pytest.mark.parametrize("call", [at_once, from_a_task, from_a_thread, from_call_soon])
async def test_a_disconnect_within_an_unfinished_message(
    serve: Serve, call: Callable[[Callable[[], object]], Awaitable[None]]
) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            server.push(frame.fd, "a fragment", finish=False)
            await call(lambda: server.disconnect(frame.fd, 4000, "bye"))

        server.on("close", lambda server, fd, code, reason: note("close", code, reason))

    running = await serve(application, **SETTINGS)
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"go")
        assert await client.frame() == (Opcode.TEXT, b"a fragment", False, False)
        # The message never ends: the Close frame is in the middle of it, as control frames may be (RFC 6455 §5.4).
        assert await client.close_frame() == (4000, "bye")
        # The client does not answer either.
        assert await client.rest() == b""
        assert await running.noted() == ("close", 1006, "4000")


async def test_a_timer_disconnects_within_an_unfinished_message(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            server.push(frame.fd, "a fragment", finish=False)
            server.after(2 * CLOSE_TIMEOUT, server.disconnect, frame.fd, 4000)

    running = await serve(application, **SETTINGS)
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        await client.upgrade()
        client.send_frame(Opcode.TEXT, b"go")
        assert await client.close_frame() == (4000, "")
        assert await client.rest() == b""


async def test_a_worker_disconnects_anothers_connection_within_an_unfinished_message(serve: Serve) -> None:
    running = await serve(
        lambda server, note: server.on("open", lambda server, request: note(request.fd)),
        ping_interval=None,
        close_timeout=CLOSE_TIMEOUT,
    )
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        assert await running.server.push(fd, "a fragment", finish=False)
        assert (await client.frame()).fin is False
        assert await running.server.disconnect(fd, 4000)
        assert await client.close_frame() == (4000, "")
        assert await client.rest() == b""


async def test_a_message_that_is_ended_after_the_disconnect_arrives_before_the_close_frame(serve: Serve) -> None:
    running = await serve(lambda server, note: server.on("open", lambda server, request: note(request.fd)))
    async with asyncio.timeout(PATIENCE), running.raw() as client:
        await client.upgrade()
        fd = await running.opened()
        server = await running.owner(fd)
        assert await server.push(fd, "one, ", finish=False)
        assert await server.push(fd, "behind it")
        assert await server.disconnect(fd, 4000)
        assert await server.push(fd, "too late") is False
        assert await server.push(fd, "two", Opcode.CONTINUATION)
        assert await client.frame() == (Opcode.TEXT, b"one, ", False, False)
        assert await client.frame() == (Opcode.CONTINUATION, b"two", True, False)
        assert await client.frame() == (Opcode.TEXT, b"behind it", True, False)
        assert await client.close_frame() == (4000, "")


async def test_a_connection_without_messages_is_closed_with_1000(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.on("close", lambda server, fd, code: note(code))

    running = await serve(application, idle_timeout=0.2, ping_interval=0.05)
    async with running.connect() as client:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1000, "idle")
        assert await running.noted() == (1000,)
