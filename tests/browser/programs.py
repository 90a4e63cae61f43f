"""Programs that serve a page, run as a person would run them."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
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


@asynccontextmanager
async def running(*arguments: str, port: int = 0) -> AsyncIterator[Program]:
    """Run a Python program until the end of the block, and end it with SIGTERM unless it has been killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=os.environ | {"HUBBUB_PORT": str(port)},
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
