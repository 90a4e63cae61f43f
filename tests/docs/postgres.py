"""Runs a PostgreSQL server of a test's own."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ports import free_port


def directory_of_programs() -> Path | None:
    """Return the directory of the server's programs. Debian does not put it on the PATH."""
    on_path = shutil.which("initdb")
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *([Path(on_path)] if on_path else [])]
    return found[0].parent if found else None


@asynccontextmanager
async def serving_postgres(programs: Path) -> AsyncIterator[str]:
    """Run a server with an empty database until the end of the block, which gets its connection string."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        options: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT, "cwd": data}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root. Its package creates this user.
            options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(data, "postgres", "postgres")
        await _initialise(programs, data, options)
        port = free_port()
        settings = ("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
        command = (str(programs / "postgres"), "-D", data, "-p", str(port), *settings)
        server = await asyncio.create_subprocess_exec(*command, **options)
        try:
            assert server.stdout
            while b"ready to accept connections" not in (line := await server.stdout.readline()):
                assert line, "PostgreSQL has ended"
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            # SIGQUIT ends it at once; the data is thrown away.
            server.send_signal(signal.SIGQUIT)
            await server.communicate()


async def _initialise(programs: Path, data: str, options: Mapping[str, Any]) -> None:
    command = (str(programs / "initdb"), "--pgdata", data, "--auth", "trust", "--username", "postgres", "--no-sync")
    process = await asyncio.create_subprocess_exec(*command, **options)
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
