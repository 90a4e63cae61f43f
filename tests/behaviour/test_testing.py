"""`hubbub.testing`: a client that says what it was waiting for, for servers in any process."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from application import Note
from over_tls import any_certificate
from running import Running, Serve
from websockets.exceptions import InvalidStatus

from hubbub import NotRunning, Refuse, Request, Response, Server
from hubbub.testing import Client, connected
from ports import free_port

# Seconds for what is awaited in vain.
SHORT = 0.1


def answers(server: Server, note: Note) -> None:
    """Do what the client says."""

    @server.on("handshake")
    def on_handshake(server: Server, request: Request) -> Any:
        answers: dict[str, Any] = {"/no": Response("no", 418), "/refused": Refuse(4001, "go away")}
        return answers.get(request.path)

    @server.on("open")
    def on_open(server: Server, request: Request) -> None:
        note(request.fd)
        if request.query:
            server.push(request.fd, f"{request.query['name']} {request.origin}")

    @server.on("message")
    def on_message(server: Server, frame: Any) -> None:
        if frame.data == "close":
            server.push(frame.fd, "last words")
            server.disconnect(frame.fd, 4000, "as you wish")
        elif frame.data != "silence":
            server.push(frame.fd, frame.data)

    server.on("close", lambda server, fd, code: note("closed", code))


@contextlib.asynccontextmanager
async def client_of(running: Running, path: str = "/", **options: Any) -> AsyncIterator[Client]:
    address = f"{'wss' if running.tls else 'ws'}://127.0.0.1:{running.port}"
    server = Server(uds=running.uds) if running.uds else address
    async with connected(server, path, ssl=running.tls, **options) as client:
        yield client


async def test_messages_of_all_kinds_go_and_come(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        await client.send("text é")
        assert await client.receive() == "text é"
        for data in (b"bytes", bytearray(b"array"), memoryview(b"view")):
            await client.send(data)
            assert await client.receive() == bytes(data)
        values: list[Any] = [{"a": [1, None, "é"]}, [], [{}], {}]
        for value in values:
            await client.send(value)
            assert await client.receive_json() == value
    assert (await running.noted(), await running.noted())[1] == ("closed", 1000)


async def test_the_path_and_options_reach_the_server(serve: Serve) -> None:
    running = await serve(answers, origins=["https://example.com"])
    async with client_of(running, "/chat?name=ada", origin="https://example.com") as client:
        assert await client.receive() == "ada https://example.com"


async def test_the_close_code_is_awaited(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        assert client.close_reason is None
        await client.send("close")
        assert await client.close_code() == 4000
        assert client.close_reason == "as you wish"
        assert await client.close_code() == 4000
    async with client_of(running, "/refused") as client:
        assert await client.close_code() == 4001


async def test_a_client_that_has_not_read_everything_closes_properly(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        for number in range(100):
            await client.send(str(number))
        # The rest is on its way, or has arrived: more than the library reads ahead.
        await client.receive()
    assert client.connection.close_code == 1000


async def test_closing_does_not_disturb_a_task_that_receives(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        receiving = asyncio.create_task(client.receive())
        await asyncio.sleep(0)
    with pytest.raises(ConnectionError, match="was closed with 1000"):
        await receiving
    assert client.connection.close_code == 1000


async def test_a_refused_handshake_has_a_status(serve: Serve) -> None:
    running = await serve(answers)
    with pytest.raises(InvalidStatus) as refused:
        async with client_of(running, "/no"):
            pass
    assert refused.value.response.status_code == 418


async def test_what_was_awaited_in_vain_is_said(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running, "/quiet") as client:
        # Not earlier: connecting may take longer on a busy machine.
        client.timeout = SHORT
        await client.send("silence")
        where = "localhost" if running.uds else rf"\S+:{running.port}"
        with pytest.raises(TimeoutError, match=f"^no message came from wss?://{where}/quiet within 0.1 s$"):
            await client.receive()
        with pytest.raises(TimeoutError, match="no message came"):
            await client.receive_json()
        with pytest.raises(TimeoutError, match=r"/quiet was not closed within 0\.1 s$"):
            await client.close_code()


async def test_the_end_of_the_connection_is_said_instead_of_a_timeout(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        await client.send("close")
        assert await client.receive() == "last words"
        for receive in (client.receive, client.receive_json):
            with pytest.raises(
                ConnectionError, match=r"/ was closed with 4000 \(as you wish\) while a message was awaited"
            ):
                await receive()
        with pytest.raises(ConnectionError, match=r"closed with 4000 \(as you wish\) while a message was to be sent"):
            await client.send("too late")


async def test_what_is_not_json_is_shown(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        for sent, shown in (("{not json", r"'{not json'"), ("x" * 1000, r"'x{200}'\.\.\."), (b"\xff", r"b'\\xff'")):
            await client.send(sent)
            with pytest.raises(ValueError, match=f"is not JSON .*: {shown}$"):
                await client.receive_json()


async def test_a_server_that_reads_nothing_is_cut_off_at_the_end_of_the_block() -> None:
    server = Server(port=0)
    # Each message waits for the one before.
    server.on("message", lambda server, frame: asyncio.sleep(60))

    async def overfill(client: Client) -> None:
        while True:
            await client.send("x" * 100_000)

    async with asyncio.timeout(20), server:
        with pytest.raises(TimeoutError, match="took no message within"):
            async with connected(server, timeout=SHORT) as client:
                await overfill(client)


async def test_a_unix_socket_that_was_handed_over_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        server = Server(fd=listener.fileno())
        answers(server, Note(lambda values: None))
        async with server, connected(server) as client:
            await client.send("hello")
            assert await client.receive() == "hello"


async def test_the_librarys_own_time_out_may_be_given() -> None:
    server = Server(port=0)
    async with server, connected(server, open_timeout=5):
        pass


async def test_a_server_in_the_loop_is_found_by_itself() -> None:
    server = Server(port=0)
    server.on("open", lambda server, request: server.push(request.fd, request.path))
    with pytest.raises(NotRunning, match="give its address"):
        async with connected(server):
            pass
    async with server, connected(server, "/here") as client:
        assert await client.receive() == "/here"


async def test_a_certificate_of_the_server_is_trusted() -> None:
    server = Server(port=0, **any_certificate().settings)
    server.on("open", lambda server, request: server.push(request.fd, request.scheme))
    async with server, connected(server) as client:
        assert client.address.startswith("wss://")
        assert await client.receive() == "https"


async def test_a_server_that_another_process_is_starting_is_awaited(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "app.py").write_text(
        "from hubbub import Server\n"
        f"server = Server(port={port}, workers=1, control=None)\n"
        "server.on('open', lambda server, request: server.push(request.fd, 'from another process'))\n"
    )
    command = [sys.executable, "-m", "hubbub", "run", "app:server", "--app-dir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        for server in (Server(port=port), f"ws://127.0.0.1:{port}/"):
            async with connected(server, timeout=30) as client:
                assert await client.receive() == "from another process"
    finally:
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "says"),
    [
        (("http://127.0.0.1:9501",), {}, ValueError, "begins with ws:// or wss://"),
        ((5,), {}, TypeError, "server must be a Server or an address, not int"),
        (("ws://127.0.0.1:1", "chat"), {}, ValueError, "path must begin with a slash: 'chat'"),
        (("ws://127.0.0.1:1", None), {}, TypeError, "path must be a str, not NoneType"),
        (("ws://127.0.0.1:1",), {"timeout": 0}, ValueError, "timeout must be a number of seconds above 0"),
        (("ws://127.0.0.1:1",), {"timeout": "1"}, TypeError, "timeout must be a number of seconds, not str"),
        (("ws://127.0.0.1:1",), {"timeout": SHORT}, TimeoutError, r"ws://127.0.0.1:1/ did not accept .* within 0.1 s"),
    ],
)
async def test_wrong_calls(
    arguments: tuple[Any, ...], keywords: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        async with connected(*arguments, **keywords):
            pass


async def test_only_data_can_be_sent(serve: Serve) -> None:
    running = await serve(answers)
    async with client_of(running) as client:
        for wrong in (5, (1, 2), None):
            with pytest.raises(TypeError, match="data must be str, bytes-like, a dict or a list, not"):
                await client.send(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="JSON"):
            await client.send([float("nan")])
