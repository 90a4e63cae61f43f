"""Wait in one worker for the end of a connection of another worker, which dies or leaves."""

import asyncio
import os
import signal

import pytest
from launched import Launch, ask, until

LINES = """
async def wait(fd):
    tell("waits")
    await server.wait_closed(fd)
    tell("closed", server.exists(fd))

@server.on("open")
def on_open(server, request):
    tell("open", server.worker_id, request.fd)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_connections_of_a_worker_that_ends_are_closed(launch: Launch, end: signal.Signals) -> None:
    launched = await launch(LINES, workers=2)
    async with asyncio.timeout(30), launched.connect_to(0) as client, launched.connect_to(1) as other:
        fd = int(await ask(client, "frame.fd"))
        await ask(other, f"server.after(0, wait, {fd})")
        await launched.told.wait_for("waits")
        os.kill(launched.workers()[0], end)
        await launched.told.wait_for("closed False")
        assert await ask(other, "server.worker_id") == "1"
    await launched.stop()


async def test_connections_of_a_worker_that_stands_still_are_open(launch: Launch) -> None:
    launched = await launch(LINES, workers=2)
    async with asyncio.timeout(30), launched.connect_to(0) as client, launched.connect_to(1) as other:
        fd = int(await ask(client, "frame.fd"))
        pid = launched.workers()[0]
        os.kill(pid, signal.SIGSTOP)
        await ask(other, f"server.after(0, wait, {fd})")
        await launched.told.wait_for("waits")
        client.transport.abort()
        # The stopped worker has not noticed yet.
        assert await ask(other, f"server.exists({fd})") == "True"
        os.kill(pid, signal.SIGCONT)
        await launched.told.wait_for("closed False")
    await launched.stop()


async def test_a_worker_that_waited_may_die(launch: Launch) -> None:
    launched = await launch(LINES, workers=2)
    async with asyncio.timeout(30), launched.connect_to(0) as client:
        async with launched.connect_to(1) as other:
            fd = int(await ask(client, "frame.fd"))
            await ask(other, f"server.after(0, wait, {fd})")
            await launched.told.wait_for("waits")
            pid = launched.workers()[1]
            os.kill(pid, signal.SIGKILL)
            await until(lambda: launched.workers().get(1, pid) != pid)
        async with launched.connect_to(1) as other:
            await ask(other, f"server.after(0, wait, {fd})")
            await launched.told.wait_for("waits")
            await client.close()
            await launched.told.wait_for("closed False")
    await launched.stop()
