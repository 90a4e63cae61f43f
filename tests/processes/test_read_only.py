"""Starting a server where no file can be written, as in a container with a read-only root."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from launched import Launched, ProgramFile, Run, ask

# Makes every file system read-only, in a mount namespace of its own, and becomes the program.
READ_ONLY = """
awk '{print $2}' /proc/self/mounts | while read -r place; do
    mount -o remount,bind,ro "$place" 2>/dev/null
done
exec "$@"
"""
# More than a pipe can hold.
MANY_ORIGINS = [f"https://a-tenant-with-a-long-name-{number}.example.com" for number in range(5000)]

CHECK = """
import errno, tempfile

def writable(directory):
    try:
        open(os.path.join(directory, "file"), "w").close()
        return True
    except OSError as error:
        return error.errno != errno.EROFS

tell("writable:", *filter(writable, [os.getcwd(), "/", "/tmp", "/var/tmp", "/dev/shm"]))
"""


@pytest.fixture(scope="module")
def read_only(installed: Callable[..., str], unavailable: Callable[[str], NoReturn]) -> list[str]:
    """The beginning of a command that runs where nothing can be written."""
    command = [installed("util-linux", "unshare"), "--mount", "--propagation", "private"]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        if os.geteuid() != 0:
            pytest.skip("NOT TESTED: only root can make a mount namespace for a read-only file system")
        unavailable("root cannot make a mount namespace here for a read-only file system")
    return [*command, "sh", "-c", READ_ONLY, "sh"]


async def run_read_only(run: Run, read_only: list[str], *arguments: str, **environ: str) -> Launched:
    """Run Python where nothing can be written."""
    command = [*read_only, sys.executable, *arguments]
    return await run("-c", f"import os; os.execv({command[0]!r}, {command!r})", pass_fds=(), **environ)


@pytest.mark.parametrize("control", ["none", "auto"])
async def test_it_serves_and_reloads(run: Run, read_only: list[str], program: ProgramFile, control: str) -> None:
    program.write(CHECK, workers=2)
    launched = await run_read_only(run, read_only, program.name, HUBBUB_CONTROL=control)
    await launched.serves()
    assert launched.told.all[0] == "writable:"
    for worker_id in (0, 1):
        async with launched.connect_to(worker_id) as client:
            assert await ask(client, "server.worker_id") == str(worker_id)
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("INFO reloaded")
    await launched.stop()
    warned = [line for line in await launched.log.to_the_end() if "WARNING no control socket" in line]
    assert len(warned) == (control == "auto")


async def test_settings_that_are_longer_than_a_pipe_reach_the_workers(
    run: Run, read_only: list[str], program: ProgramFile
) -> None:
    program.write(CHECK, workers=2, origins=MANY_ORIGINS, control=None)
    launched = await run_read_only(run, read_only, program.name)
    await launched.serves()
    async with launched.connect() as client:
        assert await ask(client, "len(server.settings.origins)") == str(len(MANY_ORIGINS))
    await launched.stop()


async def test_the_demo(run: Run, read_only: list[str]) -> None:
    launched = await run_read_only(run, read_only, "-m", "hubbub", "demo", "--port", "0", "--workers", "1")
    await launched.log.wait_for("WARNING no control socket")
    await launched.log.wait_for("listening on")
    await launched.stop()


async def test_commands_that_look_for_the_control_socket_are_one_line(run: Run, read_only: list[str]) -> None:
    launched = await run_read_only(run, read_only, "-m", "hubbub", "stats")
    assert await launched.status() == 1
    (line,) = await launched.log.to_the_end()
    assert line.startswith("hubbub: cannot find the control socket of port 9501: ")


async def test_a_control_socket_that_was_asked_for_by_name_is_one_line(
    run: Run, read_only: list[str], program: ProgramFile, tmp_path: Path
) -> None:
    path = str(tmp_path / "here.sock")
    program.write(control=path)
    launched = await run_read_only(run, read_only, program.name)
    assert await launched.status() == 1
    (line,) = await launched.log.to_the_end()
    assert line.startswith("hubbub: cannot create the control socket: ")
    assert path in line
