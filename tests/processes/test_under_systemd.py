"""A server as seen by systemd, and the unit from the documentation."""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from launched import Launch, Launched, ProgramFile, end, start

UNIT = Path(__file__).parents[2] / "docs" / "hubbub.service"


class Systemd:
    """The socket at which systemd listens."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))

    async def told(self) -> list[str]:
        """Wait for the next message, and return its assignments."""
        return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode().split("\n")

    def has_more(self) -> bool:
        """Whether anything unexpected has arrived."""
        try:
            return bool(self._socket.recv(4096, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    """Listens at the socket that NOTIFY_SOCKET names."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    systemd = Systemd(path)
    yield systemd
    systemd.close()


async def test_a_server_tells_of_its_life(systemd: Systemd, launch: Launch) -> None:
    launched = await launch(workers=2)
    assert await systemd.told() == ["READY=1", f"STATUS=listening on port {launched.port}, 2 workers"]
    assert not systemd.has_more()
    launched.process.send_signal(signal.SIGHUP)
    reloading, when = await systemd.told()
    assert reloading == "RELOADING=1"
    assert when.startswith("MONOTONIC_USEC=")
    assert (await systemd.told())[0] == "READY=1"
    # The server reports that it is ready again only once the last worker is replaced.
    assert "reloaded" in await launched.log.wait_for("reloaded")
    launched.process.terminate()
    assert await systemd.told() == ["STOPPING=1"]
    assert await launched.status() == 0
    assert not systemd.has_more()


async def test_a_reload_that_fails_leaves_it_ready(systemd: Systemd, launch: Launch, program: ProgramFile) -> None:
    launched = await launch(workers=1)
    await systemd.told()
    program.change("server.start()", "raise RuntimeError('the new code is broken')")
    launched.process.send_signal(signal.SIGHUP)
    assert (await systemd.told())[0] == "RELOADING=1"
    await launched.log.wait_for("the reload failed")
    assert (await systemd.told())[0] == "READY=1"


async def test_a_program_that_fails_is_never_ready(systemd: Systemd, program: ProgramFile) -> None:
    program.write("@server.on('worker_start')\ndef begin(server): os._exit(7)")
    launched = await start(program.path)
    try:
        assert await launched.status() == 3
    finally:
        await end(launched)
    assert await systemd.told() == ["STOPPING=1"]
    assert not systemd.has_more()


async def test_so_does_hubbub_run(systemd: Systemd, program: ProgramFile) -> None:
    program.write(workers=1)
    launched = await start("-m", "hubbub", "run", "app:server", "--app-dir", program.path.parent)
    try:
        await launched.serves()
        assert (await systemd.told())[0] == "READY=1"
        launched.process.terminate()
        assert await systemd.told() == ["STOPPING=1"]
        assert await launched.status() == 0
    finally:
        await end(launched)


async def test_a_socket_that_is_gone_hurts_nobody(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nobody/there")
    launched: Launched = await launch(workers=1)
    async with launched.connect() as client:
        await client.send("1 + 1")
        assert await client.recv() == "2"
    await launched.stop()
    assert not [line for line in launched.log.all if "Traceback" in line]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> None:
    tool = shutil.which("systemd-analyze")
    if not tool:
        unavailable("the unit file: there is no systemd-analyze on the PATH")
    # `verify` checks that the program exists.
    lines = UNIT.read_text().replace("/opt/app/.venv/bin/hubbub", sys.executable)
    unit = tmp_path / "hubbub.service"
    unit.write_text(lines)
    checked = subprocess.run(
        [tool, "verify", "--man=no", unit], capture_output=True, text=True, timeout=50, check=False
    )
    # It may complain about other units of this machine, on which ours depends.
    assert "hubbub.service" not in checked.stderr, checked.stderr
    assert checked.returncode == 0, checked.stderr


def test_the_unit_raises_the_limit_of_files_and_knows_the_control_socket() -> None:
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert "Environment=HUBBUB_CONTROL=/run/hubbub/control.sock" in settings
    assert "RuntimeDirectory=hubbub" in settings
    assert any(line.startswith("LimitNOFILE=") for line in settings)
