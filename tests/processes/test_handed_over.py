"""Listening sockets that another process hands over, as systemd does."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from launched import Launched, ProgramFile, Run, ask, title
from websockets.asyncio.client import connect, unix_connect

from hubbub import Server


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


async def answer_at(port: int, expression: str) -> str:
    async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
        return await ask(client, expression)


async def serving_at(run: Run, program: ProgramFile, listener: socket.socket) -> Launched:
    launched = await run(program.path, pass_fds=[listener.fileno()], HUBBUB_FD=str(listener.fileno()))
    await launched.serves()
    return launched


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_socket_outlives_workers_and_servers(
    run: Run, program: ProgramFile, listener: socket.socket, workers: int
) -> None:
    program.write("version = 1", workers=workers)
    first = await serving_at(run, program, listener)
    port = port_of(listener)
    assert first.port == port
    assert f"listening on 127.0.0.1 port {port} (handed over), " in await first.log.wait_for("listening on")
    assert await answer_at(port, "version") == "1"
    program.change("version = 1", "version = 2")
    first.process.send_signal(signal.SIGHUP)
    await first.log.wait_for("reloaded")
    for _ in range(4):
        assert await answer_at(port, "version") == "2"
    await first.stop()
    # Nobody serves, and yet a client may connect, and waits for the next server.
    waiting = asyncio.ensure_future(answer_at(port, "'waited'"))
    second = await serving_at(run, program, listener)
    assert await waiting == "waited"
    await second.stop()


async def test_embedded_servers_leave_the_socket_to_their_program(listener: socket.socket) -> None:
    server = Server(fd=listener.fileno())
    assert repr(server) == f"<Server fd {listener.fileno()}, not running>"
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))
    for _ in range(2):
        async with server:
            assert server.port == port_of(listener)
            assert await answer_at(server.port, "served") == "served"
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as accepted:
        client.sendall(b"free")
        assert accepted.recv(10) == b"free"


@contextlib.contextmanager
def unusable(kind: str) -> Iterator[int]:
    """A descriptor that is nothing to listen on."""
    with contextlib.ExitStack() as opened:
        match kind:
            case "a file":
                yield opened.enter_context(open(os.devnull)).fileno()
            case "a connection":
                yield opened.enter_context(socket.socketpair()[0]).fileno()
            case "bound":
                each = opened.enter_context(socket.socket())
                each.bind(("127.0.0.1", 0))
                yield each.fileno()
            case "datagrams":
                each = opened.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                each.bind(("127.0.0.1", 0))
                yield each.fileno()
            case _:
                yield 777


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("a file", "is not a socket"),
        ("a connection", "is a socket, but does not listen"),
        ("bound", "is a socket, but does not listen"),
        ("datagrams", "is not a TCP or Unix stream socket"),
        ("closed", "is not open"),
    ],
)
async def test_a_descriptor_that_is_no_listening_socket_is_refused(
    run: Run, program: ProgramFile, kind: str, problem: str
) -> None:
    program.write(workers=1)
    with unusable(kind) as descriptor:
        passed = [descriptor] if kind != "closed" else []
        launched = await run(program.path, pass_fds=passed, HUBBUB_FD=str(descriptor))
        assert await launched.status() == 1
    assert await launched.log.to_the_end() == [f"hubbub: fd: descriptor {descriptor} {problem}"]


async def test_a_socket_in_the_abstract_namespace_is_served(run: Run, program: ProgramFile) -> None:
    name = f"hubbub-test-{os.getpid()}"
    program.write(workers=1)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{name}\n\xff")
        unix.listen()
        launched = await serving_at(run, program, unix)
        shown = f"@{name}\\n\xff"
        assert f"listening on {shown} (handed over), " in await launched.log.wait_for("listening on")
        assert title(launched.process.pid) == f"hubbub: master (app.py {shown})"
        async with unix_connect(f"\0{name}\n\xff", "ws://localhost/", proxy=None) as client:
            assert await ask(client, "'served'") == "served"
        await launched.stop()


# The shell becomes the server, so it knows the process id.
AS_SYSTEMD = 'LISTEN_PID=$$ LISTEN_FDS={count} exec "$@" {redirections}'


async def start_as_systemd(
    program: ProgramFile, descriptors: list[int], count: str | None = None
) -> asyncio.subprocess.Process:
    redirections = " ".join(f"{3 + place}<&{fd}" for place, fd in enumerate(descriptors))
    script = AS_SYSTEMD.format(count=count or len(descriptors), redirections=redirections)
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", script, "sh", sys.executable, program.path),
        pass_fds=descriptors,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=program.path.parent,
    )


@contextlib.asynccontextmanager
async def ending(process: asyncio.subprocess.Process) -> AsyncIterator[Launched]:
    launched = Launched(process)
    try:
        yield launched
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await launched.log.to_the_end()


async def test_all_sockets_of_systemd_are_served(program: ProgramFile, listener: socket.socket) -> None:
    program.write(workers=2)
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as unix:
        path = f"{directory}/socket"
        unix.bind(path)
        unix.listen()
        async with ending(await start_as_systemd(program, [listener.fileno(), unix.fileno()])) as launched:
            await launched.serves()
            assert launched.port == port_of(listener)
            assert await answer_at(launched.port, "'served'") == "served"
            async with unix_connect(path, "ws://localhost/", proxy=None) as client:
                assert await ask(client, "server.settings.port") == "0"
                # Its own programs do not take the sockets for theirs.
                assert await ask(client, "os.get_inheritable(3)") == "False"
            await launched.stop()
        # It is not the server's to remove.
        assert os.listdir(directory) == ["socket"]


async def test_what_systemd_hands_over_must_listen(program: ProgramFile, listener: socket.socket) -> None:
    program.write(workers=1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        async with ending(await start_as_systemd(program, [listener.fileno(), other.fileno()])) as launched:
            assert await launched.status() == 1
            lines = await launched.log.to_the_end()
    assert lines == ["hubbub: LISTEN_FDS: descriptor 4 is a socket, but does not listen"]
    async with ending(await start_as_systemd(program, [listener.fileno()], count="many")) as launched:
        assert await launched.status() == 1
        assert await launched.log.to_the_end() == ["hubbub: LISTEN_FDS: 'many' is not a number of descriptors"]


async def test_sockets_for_another_process_are_not_taken(
    run: Run, program: ProgramFile, listener: socket.socket
) -> None:
    program.write(workers=1)
    launched = await run(program.path, LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    await launched.serves()
    assert launched.port != port_of(listener)
    await launched.stop()


async def test_systemd_starts_the_server_for_its_first_client(
    program: ProgramFile, listener: socket.socket, installed: Callable[..., str]
) -> None:
    port = port_of(listener)
    listener.close()
    program.write(workers=2)
    process = await asyncio.create_subprocess_exec(
        *(
            installed("systemd-socket-activate", package="systemd"),
            "-l",
            f"127.0.0.1:{port}",
            sys.executable,
            program.path,
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=program.path.parent,
    )
    async with ending(process) as launched:
        await launched.log.wait_for("Listening on")
        assert await answer_at(port, "'first'") == "first"
        await launched.serves()
        assert title(process.pid) == f"hubbub: master (app.py port {port})"
        await launched.stop()
