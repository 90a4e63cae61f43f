"""Programs that serve a page, run as a person would run them."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHAT = ("-m", "hubbub", "demo", "--workers", "2")


@dataclass
class Program:
    """A running program, with the address that it has printed."""

    url: str
    port: int
    process: asyncio.subprocess.Process

    async def kill(self) -> None:
        """Kill the master and all workers at once, without warning any client."""
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    def kill_worker(self, worker_id: int) -> None:
        """Kill one worker, without warning its clients. The master starts another one in its place."""
        (pid,) = (pid for pid in self._pids() if _title(pid).startswith(f"hubbub: worker {worker_id}"))
        os.kill(pid, signal.SIGKILL)

    def _pids(self) -> Iterator[int]:
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(path.name)) == self.process.pid:
                    yield int(path.name)


@asynccontextmanager
async def running(*arguments: str, port: int = 0, environ: Mapping[str, str] = {}) -> AsyncIterator[Program]:
    """Run a Python program until the end of the block, and end it with SIGTERM unless it has been killed.

    Args:
        *arguments: The program, and what it is given.
        port: The port of its server; 0 is any free one.
        environ: Further variables of its environment.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=os.environ | {"HUBBUB_PORT": str(port), **environ},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert address, f"the program printed {line!r} instead of its address"
        yield Program(url=address[0], port=int(address[1]), process=process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def _title(pid: int) -> str:
    """Return the title of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
