"""A worker that does not read, stopped by SIGSTOP or blocked by a handler: only its own connections notice."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hub_client import HubClient, end
from hub_server import HubServer, StartHub, stopped
from server_process import MIB, wait_until

from hubbub import Publisher

SIZE = 64 * 1024
# The hub keeps 32 MiB for a worker, and its buffer grows by doubling.
MAX_FOR_WORKER = 32 * MIB
MAX_MEMORY = 96 * MIB
# Seconds for which to check that a connection is not served, since no worker can serve it.
PAUSE = 0.1
# Seconds between two pings, seconds for a pong, and seconds for which a worker is stopped.
PING_INTERVAL = 0.5
PING_TIMEOUT = 1.5
STOP = 4.0

CAUGHT_UP = re.compile(r"worker 1 has caught up; (\d+) commands for it were dropped")


@asynccontextmanager
async def blocked(client: HubClient, directory: Path) -> AsyncIterator[None]:
    """Make a handler block the client's worker until the end of the block."""
    fifo = directory / str(client.fd)
    os.mkfifo(fifo)
    answer = asyncio.create_task(client.ask(f"open({str(fifo)!r}).read()"))
    # Opening the FIFO waits until the handler has opened it too, to read.
    writing_end = await asyncio.to_thread(os.open, fifo, os.O_WRONLY)
    try:
        yield
        assert not answer.done()
    finally:
        os.close(writing_end)
        await answer


async def crossings(sender: HubClient, receiver: HubClient, count: int) -> float:
    """Return the seconds that this many pushes from one worker to another take, one after the other."""
    begin = time.monotonic()
    for number in range(count):
        assert await sender.ask(f"server.push({receiver.fd}, '{number}')")
        assert await receiver.receive() == str(number)
    return time.monotonic() - begin


async def connect_many(server: HubServer, count: int) -> list[HubClient]:
    """Connect again and again, and wait until all are served."""
    return list(await asyncio.gather(*(server.connect() for _ in range(count))))


def publish_much(hub: Publisher, topic: str, count: int) -> None:
    for _ in range(count):
        hub.publish(topic, bytes(SIZE))


async def test_a_stopped_worker_is_left_out_and_catches_up(start_hub: StartHub) -> None:
    # The outboxes have space for everything that the hub queues, because this test is about commands.
    server = start_hub(send_queue_size=2 * MAX_FOR_WORKER, ping_interval=PING_INTERVAL, ping_timeout=PING_TIMEOUT)
    async with server.clients() as (first, victim, third), server.client_of(1, topics="flood") as flooded:
        fds = [victim.fd, flooded.fd]
        usual = await crossings(first, third, 500)
        before = server.memory()
        began = time.monotonic()
        with stopped(victim.pid), server.publisher() as hub:
            # 1 GB from a handler, and 1 GB from outside.
            assert await third.ask(f"flood({fds}, 'flood', {SIZE}, 5000)")
            await asyncio.to_thread(publish_much, hub, "flood", 16_000)
            assert server.memory() - before < MAX_MEMORY
            server.logs("worker 1 is not reading: commands for it are dropped")
            for fd in fds:
                for client in (first, third):
                    assert await client.ask(f"server.push({fd}, 'lost')") is False
                assert await asyncio.to_thread(hub.push, fd, "lost") is False
            # On a busy machine, this may take five times as long as before, but not longer.
            assert await crossings(first, third, 500) < 5 * usual + 2
            served = await connect_many(server, 20)
            for client in served:
                assert await client.ask("server.worker_id") in (0, 2)
            await asyncio.sleep(max(0, began + STOP - time.monotonic()))
        assert await victim.ask("1 + 1") == 2
        wait_until(lambda: CAUGHT_UP.search(server.log()) is not None, "it has caught up")
        dropped = sum(map(int, CAUGHT_UP.findall(server.log())))
        assert await first.ask("server.stats()['commands_dropped']") >= dropped > 0
        assert await first.ask(f"server.push({victim.fd}, 'hello')")
        # Wait for one more ping and its pong.
        await asyncio.sleep(PING_INTERVAL + PING_TIMEOUT)
        for client in (first, victim, third, flooded, *served):
            assert client.close_code is None
            assert await client.ask("1 + 1") == 2
        await end(served)


async def test_what_was_dropped_for_a_stopped_worker_stays_counted_when_it_is_killed(start_hub: StartHub) -> None:
    server = start_hub()
    before = server.memory()
    async with server.clients() as (first, _, third), server.client_of(1, topics="flood") as victim:
        with stopped(victim.pid), server.publisher() as hub:
            await asyncio.to_thread(publish_much, hub, "flood", 1000)
            dropped = (await asyncio.to_thread(hub.stats))["commands_dropped"]
            assert dropped > 0
            os.kill(victim.pid, signal.SIGKILL)
            await server.replaced(victim)
            assert (await asyncio.to_thread(hub.stats))["commands_dropped"] == dropped
            wait_until(lambda: server.memory() - before < MAX_FOR_WORKER / 2, "its memory is given back")
        async with server.client_of(1, topics="flood") as successor:
            await first.ask("server.publish('flood', 'hello')")
            assert await successor.receive() == "hello"
            assert await third.ask(f"server.exists({victim.fd})") is False


async def test_a_handler_that_blocks_delays_nobody_in_other_workers(start_hub: StartHub, tmp_path: Path) -> None:
    server = start_hub()
    async with server.clients() as (first, victim, third):
        async with blocked(victim, tmp_path):
            served = await connect_many(server, 10)
            for client in (first, third, *served):
                assert await client.ask("server.worker_id") in (0, 2)
                assert await client.ask(f"server.push({first.fd}, 'hello')")
                assert await first.receive() == "hello"
                assert await client.ask(f"server.push({victim.fd}, 'later')")
            with server.publisher() as hub:
                assert await asyncio.to_thread(hub.push, first.fd, "from outside")
            assert await first.receive() == "from outside"
        for _ in (first, third, *served):
            assert await victim.receive() == "later"
        await end(served)


async def test_connections_wait_while_all_workers_are_blocked(start_hub: StartHub, tmp_path: Path) -> None:
    server = start_hub()
    async with server.clients() as (first, second, third):
        async with blocked(first, tmp_path), blocked(second, tmp_path), blocked(third, tmp_path):
            attempts = [asyncio.create_task(server.connect()) for _ in range(30)]
            done, _ = await asyncio.wait(attempts, timeout=PAUSE)
            assert not done
        served = await asyncio.gather(*attempts)
        for client in served:
            assert await client.ask("1 + 1") == 2
        await end(served)
