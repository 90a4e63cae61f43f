"""`send` to a connection of a worker that is stopped, or killed, while the message waits."""

import asyncio
import json
import os
import signal

import pytest
from hub_client import HubClient
from hub_server import StartHub, stopped

SIZE = 64 * 1024
LIMIT = 16 * SIZE
COUNT = 40
# Much longer than such a message takes to reach a worker that runs.
PAUSE = 0.5
PATIENCE = 30


async def send_all(sender: HubClient, receiver: HubClient) -> None:
    """Have one worker send to a client of another, and push the outcomes to its own client at the end."""
    await sender.ask(
        f"report(fd, gather_in_order([server.send({receiver.fd}, '%4d' % n + 'x' * {SIZE}) for n in range({COUNT})]))"
    )


async def send_in_vain(sender: HubClient, receiver: HubClient) -> None:
    """Do the same while the receiver's worker is stopped: the outcomes do not come."""
    await send_all(sender, receiver)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sender.receive(), PAUSE)


async def test_what_waits_for_a_stopped_worker_arrives_once_it_runs_again(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=LIMIT)
    async with asyncio.timeout(PATIENCE), server.clients() as (first, victim, _):
        with stopped(victim.pid):
            await send_in_vain(first, victim)
        received = [await victim.receive() for _ in range(COUNT)]
        assert [int(text[:4]) for text in received] == list(range(COUNT))
        assert json.loads(await first.receive()) == [True] * COUNT
        assert await first.ask("server.stats()['commands_dropped']") == 0


async def test_false_if_the_worker_is_killed(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=LIMIT)
    async with asyncio.timeout(PATIENCE), server.clients() as (first, victim, _):
        with stopped(victim.pid):
            await send_in_vain(first, victim)
            os.kill(victim.pid, signal.SIGKILL)
            outcome = json.loads(await first.receive())
        # At most half of the outbox was on its way.
        assert outcome.count(True) == LIMIT // 2 // SIZE
        assert outcome == sorted(outcome, reverse=True)
        assert outcome[-1] is False
        await server.replaced(victim)
        assert await first.ask("len(server._role.worker._sendings._waiting)") == 0


async def test_a_worker_that_is_killed_while_it_waits_leaves_the_connection_as_it_is(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=LIMIT)
    async with asyncio.timeout(PATIENCE), server.clients() as (sender, receiver, third):
        with stopped(receiver.pid):
            await send_all(sender, receiver)
            assert await sender.ask("1 + 1") == 2
            os.kill(sender.pid, signal.SIGKILL)
            await sender.ends()
        await server.replaced(sender)
        assert await third.ask(f"server.push({receiver.fd}, 'hello')")
        while await receiver.receive() != "hello":
            pass
        assert receiver.close_code is None
