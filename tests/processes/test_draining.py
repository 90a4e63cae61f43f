"""Draining: the clients of a server are sent away one after the other, and then the server stops."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from launched import Launch, Launched, Run, ask, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from hubbub import AsyncPublisher, CloseCode, Publisher, Server

PAGES = """
server.on("request", lambda server, request: "a page")
"""


async def status_of(launched: Launched, path: str) -> int:
    """Return the status with which a plain request is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{launched.port}\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def refusal_of(launched: Launched) -> InvalidStatus:
    """Return how a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await launched.connect()
    return caught.value


async def drain(run: Run, launched: Launched, *options: str) -> Launched:
    """Run `hubbub drain`."""
    return await run("-m", "hubbub", "drain", "--port", str(launched.port), *options)


async def begin_to_drain(run: Run, launched: Launched, seconds: str) -> None:
    draining = await drain(run, launched, "--seconds", seconds, "--no-wait")
    assert await draining.status() == 0, draining.log.all
    await launched.log.wait_for("INFO draining")


async def test_clients_are_sent_away_one_after_the_other(launch: Launch, run: Run) -> None:
    count, seconds = 20, 2.0
    launched = await launch(workers=2)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(launched.connect()) for _ in range(count)]
        begin = time.monotonic()
        draining = await drain(run, launched, "--seconds", str(seconds))

        async def closed_after(client: ClientConnection) -> float:
            await client.wait_closed()
            return time.monotonic() - begin

        times = sorted(await asyncio.gather(*map(closed_after, clients)))
        assert {client.close_code for client in clients} == {CloseCode.SERVICE_RESTART}
        # Each has its share of the time, in each of the two workers.
        for place, after in enumerate(times):
            assert after >= (place - 3) * seconds / count
    assert await launched.status() == 0
    assert time.monotonic() - begin >= seconds
    # The command returns once the server has stopped.
    assert await draining.status() == 0, draining.log.all
    assert any("drained: stopping" in line for line in await launched.log.to_the_end())


async def test_meanwhile_no_client_gets_in_and_the_others_are_served(launch: Launch, run: Run) -> None:
    launched = await launch(PAGES, workers=1)
    assert await status_of(launched, "/health") == 200
    async with launched.connect() as client:
        await begin_to_drain(run, launched, "3600")
        refusal = await refusal_of(launched)
        assert refusal.response.status_code == 503
        assert refusal.response.headers["Retry-After"] == "5"
        assert await status_of(launched, "/health") == 503
        assert await status_of(launched, "/") == 200
        assert await ask(client, "1 + 1") == "2"
        # A stop does not wait for the rest of the time.
        await launched.stop()
        await client.wait_closed()
        assert client.close_code == CloseCode.SERVICE_RESTART


async def test_a_worker_that_starts_meanwhile_lets_no_client_in(launch: Launch, run: Run) -> None:
    launched = await launch(workers=1)
    await begin_to_drain(run, launched, "3600")
    killed: set[int] = set()
    for _ in range(3):
        worker = launched.workers()[0]
        killed.add(worker)
        os.kill(worker, signal.SIGKILL)
        # The handshake waits for the new worker.
        assert (await refusal_of(launched)).response.status_code == 503
        await until(lambda: not killed.issuperset(launched.workers().values()))
        assert (await refusal_of(launched)).response.status_code == 503
    await launched.stop()


async def test_the_time_may_be_changed(launch: Launch, run: Run) -> None:
    launched = await launch(workers=1)
    async with launched.connect() as client:
        await begin_to_drain(run, launched, "3600")
        assert await (await drain(run, launched, "--seconds", "0")).status() == 0
        await client.wait_closed()
        assert client.close_code == CloseCode.SERVICE_RESTART
    assert await launched.status() == 0


async def test_a_reload_does_not_end_it(launch: Launch, run: Run) -> None:
    launched = await launch(workers=1)
    async with launched.connect() as client:
        await begin_to_drain(run, launched, "3600")
        assert await ask(client, "server.reload()") == "None"
        assert await ask(client, "1 + 1") == "2"
        assert (await refusal_of(launched)).response.status_code == 503
    await launched.stop()


async def test_an_embedded_server_can_be_drained(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = Server(port=0, control=path)
    serving = asyncio.create_task(server.serve())
    await until(path.exists)
    async with connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client, AsyncPublisher(path) as publisher:
        await publisher.drain(0.2)
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{server.port}", proxy=None)
        await client.wait_closed()
        assert client.close_code == CloseCode.SERVICE_RESTART
    await serving
    async with server, connect(f"ws://127.0.0.1:{server.port}", proxy=None):
        pass


@pytest.mark.parametrize("seconds", [-1, 86_401, float("nan"), float("inf")])
def test_the_time_is_limited(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be 0 to 86,400"):
        Publisher("/nowhere").drain(seconds)


def test_the_time_is_a_number() -> None:
    with pytest.raises(TypeError, match="seconds must be a number of seconds"):
        Publisher("/nowhere").drain("30")  # type: ignore[arg-type]
