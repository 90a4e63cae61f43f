"""A server that listens on a Unix socket: what becomes of the socket's file, and who its clients are."""

import asyncio
import fcntl
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launched import Launch, ProgramFile, Run, ask, title
from websockets.asyncio.client import connect, unix_connect

from hubbub import Publisher, Server, SettingsError


@pytest.fixture
def uds() -> Iterator[str]:
    """A path that is short enough for a socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/app.sock"


def is_there(path: str) -> bool:
    return os.path.lexists(path)


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def read(path: str) -> str:
    return Path(path).read_text()


def connecting(uds: str, **headers: str) -> connect:
    return unix_connect(uds, "ws://localhost/", proxy=None, additional_headers=headers)


async def answer_at(uds: str, expression: str, **headers: str) -> str:
    async with connecting(uds, **headers) as client:
        return await ask(client, expression)


async def refusal_of(run: Run, program: ProgramFile) -> str:
    """Run the program, which must not start; return the line that says why."""
    launched = await run(program.path)
    assert await launched.status() == 1
    (line,) = await launched.log.to_the_end()
    return line


@pytest.mark.parametrize("workers", [1, 2])
async def test_clients_are_served_at_the_path_until_the_server_stops(
    launch: Launch, uds: str, workers: int, installed: Callable[..., str]
) -> None:
    launched = await launch(uds=uds, workers=workers)
    assert await answer_at(uds, "'served'") == "served"
    assert f"listening on {uds}, " in await launched.log.wait_for("listening on")
    assert title(launched.process.pid) == f"hubbub: master (app.py {uds})"
    assert {title(pid).partition("(")[2] for pid in launched.workers().values()} == {f"app.py {uds})"}
    curl = await asyncio.create_subprocess_exec(
        *(installed("curl"), "--silent", "--unix-socket", uds, "http://localhost/health"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await curl.communicate())[0] == b"ok"
    await launched.stop()
    assert not is_there(uds)


async def test_the_path_may_be_any_bytes(run: Run, program: ProgramFile, uds: str) -> None:
    uds = os.path.dirname(uds) + os.fsdecode(b"/\xff\n.sock")
    program.write(workers=1)
    launched = await run(program.path, HUBBUB_UDS=uds)
    await launched.serves()
    shown = f"{os.path.dirname(uds)}/\\udcff\\n.sock"
    assert f"listening on {shown}, " in await launched.log.wait_for("listening on")
    assert title(launched.process.pid) == f"hubbub: master (app.py {shown})"
    assert await answer_at(uds, "'served'") == "served"
    await launched.stop()
    assert not is_there(uds)


async def test_a_reload_keeps_the_socket(launch: Launch, program: ProgramFile, uds: str) -> None:
    launched = await launch("version = 1", uds=uds, workers=2)
    found = os.lstat(uds)
    program.change("version = 1", "version = 2")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("reloaded")
    for _ in range(4):
        assert await answer_at(uds, "version") == "2"
    assert os.lstat(uds).st_ino == found.st_ino
    await launched.stop()


async def test_a_socket_on_which_nobody_listens_is_replaced(launch: Launch, uds: str) -> None:
    killed = await launch(uds=uds, workers=1)
    killed.process.kill()
    await killed.status()
    assert stat.S_ISSOCK(os.lstat(uds).st_mode)
    launched = await launch(uds=uds, workers=1)
    assert await answer_at(uds, "'served'") == "served"
    await launched.stop()


async def test_a_socket_on_which_somebody_listens_is_left_alone(
    launch: Launch, run: Run, program: ProgramFile, uds: str
) -> None:
    launched = await launch(uds=uds, workers=1)
    assert await refusal_of(run, program) == f"hubbub: cannot listen on {uds}: another process listens there"
    assert await answer_at(uds, "'served'") == "served"
    await launched.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(uds)
        assert "another process listens there" in await refusal_of(run, program)
        assert is_there(uds)


async def test_what_is_no_socket_is_left_alone(run: Run, program: ProgramFile, uds: str) -> None:
    program.write(uds=uds, workers=1)
    write(uds, "mine")
    line = f"hubbub: cannot listen on {uds}: there is a file that is not a socket"
    assert await refusal_of(run, program) == line
    assert read(uds) == "mine"
    os.rename(uds, uds + ".other")
    # Not even a link to a socket: what it leads to was not meant.
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(uds + ".socket")
        os.symlink(uds + ".socket", uds)
        assert await refusal_of(run, program) == line
    assert stat.S_ISLNK(os.lstat(uds).st_mode)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("no/such/directory/socket", "No such file or directory"), ("x" * 200, "AF_UNIX path too long")],
)
async def test_a_path_that_cannot_be_used_is_named(run: Run, program: ProgramFile, path: str, reason: str) -> None:
    program.write(uds=path, workers=1)
    assert await refusal_of(run, program) == f"hubbub: cannot listen on {path}: {reason}"


async def test_the_umask_decides_who_may_connect(launch: Launch, uds: str) -> None:
    launched = await launch("os.umask(0o117)", uds=uds, workers=1)
    assert stat.S_IMODE(os.lstat(uds).st_mode) == 0o660
    await launched.stop()


async def test_a_file_that_has_taken_its_place_is_not_removed(launch: Launch, uds: str) -> None:
    launched = await launch(uds=uds, workers=1)
    os.unlink(uds)
    write(uds, "another's")
    await launched.stop()
    assert read(uds) == "another's"


async def test_the_port_names_the_control_socket(
    run: Run, program: ProgramFile, uds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program.write_text(
        f"from hubbub import Server\nserver = Server(port=9517, uds={uds!r}, workers=1)\n"
        "server.on('start', lambda server: print('port', server.port, flush=True))\nserver.start()\n"
    )
    launched = await run(program.path)
    await launched.serves()
    assert launched.port == 9517
    async with connecting(uds):
        with Publisher(port=9517) as hub:
            (fd,) = hub.connections()
            info = hub.info(fd)
            assert info
            assert info.client == ("127.0.0.1", 0)
    await launched.stop()


@pytest.mark.parametrize(("trusted", "client"), [(None, "192.0.2.7"), ((), "127.0.0.1")])
async def test_its_clients_count_as_this_machine(launch: Launch, uds: str, trusted: Any, client: str) -> None:
    settings = {} if trusted is None else {"trusted_proxies": trusted}
    lines = "@server.on('open')\ndef on_open(server, request): request.state.client = request.client"
    launched = await launch(lines, uds=uds, workers=1, **settings)
    assert await answer_at(uds, "frame.state.client") == "('127.0.0.1', 0)"
    forwarded = await answer_at(uds, "frame.state.client", **{"X-Forwarded-For": "192.0.2.7"})
    assert forwarded == f"('{client}', 0)"
    await launched.stop()


async def test_embedded_too(uds: str) -> None:
    server = Server(uds=uds, port=0)
    assert repr(server) == f"<Server {uds}, not running>"
    server.on("message", lambda server, frame: server.push(frame.fd, "served"))
    for _ in range(2):
        async with server:
            assert await answer_at(uds, "") == "served"
        assert not is_there(uds)


async def test_a_failed_start_leaves_no_file(uds: str) -> None:
    server = Server(uds=uds, control="/no/such/directory/control")
    with pytest.raises(OSError, match="control"):
        async with server:
            pass
    assert not is_there(uds)


def test_one_place_to_listen_is_enough() -> None:
    with pytest.raises(SettingsError, match="fd: set, although uds is set too"):
        Server(uds="/run/app.sock", fd=3)


async def test_who_keeps_the_directory_locked_does_not_keep_the_server_from_starting(launch: Launch, uds: str) -> None:
    directory = os.open(os.path.dirname(uds), os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        launched = await launch(uds=uds, workers=1)
        assert await answer_at(uds, "'served'") == "served"
        await launched.stop()
    finally:
        os.close(directory)
