"""`Server.push` as a method: it is replaced while a worker runs, which an application must not notice."""

import asyncio
import inspect
from typing import Any

import pytest
from websockets.asyncio.client import connect

from hubbub import Frame, NotRunning, Server

SIGNATURE = "(self, /, fd, data, opcode=None, finish=True)"


def echoing(server: Server) -> Server:
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
    return server


async def answer(server: Server, message: str | bytes = "hello") -> str | bytes:
    async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
        await client.send(message)
        return await client.recv()


async def test_servers_of_one_process_push_to_their_own_connections() -> None:
    first, second = echoing(Server(port=0)), echoing(Server(port=0))
    async with first:
        async with second:
            assert await answer(first) == await answer(second) == "hello"
        with pytest.raises(NotRunning):
            second.push(1, "x")
        assert await answer(first) == "hello"
        async with second:
            assert await answer(second) == "hello"
    for server in (first, second):
        with pytest.raises(NotRunning):
            server.push(1, "x")


async def test_the_server_that_has_started_first_may_stop_first() -> None:
    first, second = echoing(Server(port=0)), echoing(Server(port=0))
    async with first:
        await second.__aenter__()
    assert await answer(second) == "hello"
    async with first:
        assert await answer(first) == await answer(second) == "hello"
    await second.__aexit__(None, None, None)
    with pytest.raises(NotRunning):
        second.push(1, "x")


async def test_the_push_of_a_subclass_is_called_and_can_call_the_servers() -> None:
    class Shouting(Server):
        def push(self, fd: int, data: Any, *arguments: Any, **keywords: Any) -> bool:
            return super().push(fd, data.upper(), *arguments, **keywords)

    async with echoing(Shouting(port=0)) as server:
        assert await answer(server) == "HELLO"


async def test_a_subclass_without_one_inherits_it() -> None:
    class Named(Server):
        name = "named"

    async with echoing(Named(port=0)) as server:
        assert await answer(server) == "hello"


async def test_a_push_that_a_test_puts_in_its_place_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    async def echoes(server: Server) -> None:
        async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
            await client.send("hello")
            assert (await pushed.get())[-1] == "hello"

    async with echoing(Server(port=0)) as server:
        with monkeypatch.context() as patch:
            patch.setattr(server, "push", lambda *arguments: pushed.put_nowait(arguments))
            await echoes(server)
        with monkeypatch.context() as patch:
            patch.setattr(Server, "push", lambda *arguments: pushed.put_nowait(arguments))
            await echoes(server)
        assert await answer(server) == "hello"
    with monkeypatch.context() as patch:
        patch.setattr(Server, "push", lambda *arguments: pushed.put_nowait(arguments))
        async with echoing(Server(port=0)) as server:
            await echoes(server)


async def test_its_arguments_are_the_same_while_it_runs_and_else() -> None:
    assert str(inspect.signature(Server.push)).startswith("(self, fd: int, data:")
    async with echoing(Server(port=0)) as server:
        assert str(inspect.signature(Server.push)) == SIGNATURE
        assert list(inspect.signature(server.push).parameters) == ["fd", "data", "opcode", "finish"]
        with pytest.raises(TypeError, match="push"):
            server.push()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="nothing"):
            server.push(1, "x", nothing=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            Server.push(object(), 1, "x")  # type: ignore[arg-type]
        assert Server.push(server, 1, "x") is False
    assert str(inspect.signature(Server.push)).startswith("(self, fd: int, data:")


async def test_a_server_that_has_left_is_no_longer_in_the_way_though_its_reactor_is_alive() -> None:
    first, second = echoing(Server(port=0)), echoing(Server(port=0))
    async with first:
        kept = first._worker_of("this test").reactor
    async with second:
        assert str(inspect.signature(Server.push)) == SIGNATURE
        assert await answer(second) == "hello"
        with pytest.raises(NotRunning):
            first.push(1, "x")
    assert kept is not None


@pytest.mark.parametrize("message", ["", "a", "ascii", "\u00e9\u20ac\U0001f600", "nul\0", b"", b"\x00\xff", "x" * 200])
async def test_every_kind_of_message_comes_back_as_it_is(message: str | bytes) -> None:
    async with echoing(Server(port=0)) as server:
        assert await answer(server, message) == message


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), type("Text", (str,), {})("abc")])
async def test_within_a_handler_anything_that_can_be_sent_is(data: Any) -> None:
    server = Server(port=0)
    server.on("message", lambda server, frame: server.push(frame.fd, data))
    async with server:
        assert await answer(server) in ("abc", b"abc")


@pytest.mark.parametrize("fd", [0, -1, 1 << 53, 1 << 64, -(1 << 70), True])
async def test_within_a_handler_no_connection_has_an_impossible_id(fd: int) -> None:
    results: list[bool] = []

    def on_message(server: Server, frame: Frame) -> None:
        results.append(server.push(fd, "x"))
        server.push(frame.fd, "done")

    server = Server(port=0)
    server.on("message", on_message)
    async with server:
        assert await answer(server) == "done"
    assert results == [False]
