"""Clients of several workers send numbered messages while the workers are disturbed; each arrives once, in order.

    python tests/faults/exact_model.py [calm|kill|stop|reload|terminate ...] [--messages 500000]

As a program it sends all messages, and prints what it compared; `test_exact_model.py` does the same
with few messages. Needs hubbub in this Python. Linux only.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hub_client import end
from hub_server import HubServer, hub_serving, stopped
from numbering_crowd import Crowd
from server_process import wait_until

CLIENTS = 300
# Messages between one disturbance and the next.
MESSAGES_BETWEEN = 2_000
# However many messages are sent meanwhile: the others do not wait until a worker has been replaced.
LEAST_DISTURBANCES = 2
# Messages that the other workers' clients send while one worker is stopped.
MESSAGES_MEANWHILE = 300


async def do_nothing(server: HubServer, crowd: Crowd, turn: int) -> None:
    """Leave the server alone."""


async def kill(server: HubServer, crowd: Crowd, turn: int) -> None:
    """Kill a worker, and wait until another process has replaced it."""
    victims = [member for member in crowd.open if member.client.worker_id == turn % 3]
    os.kill(victims[0].client.pid, signal.SIGKILL)
    for member in victims:
        await member.client.ends()
    await crowd.until(crowd.is_complete)
    await server.replaced(victims[0].client)
    crowd.gone += [member.client.fd for member in victims]


async def stop(server: HubServer, crowd: Crowd, turn: int) -> None:
    """Stop a worker for a while; the others continue."""
    pid = next(member.client.pid for member in crowd.open if member.client.worker_id == turn % 3)
    with stopped(pid):
        await crowd.until_sent(MESSAGES_MEANWHILE)


async def reload(server: HubServer, crowd: Crowd, turn: int) -> None:
    """Ask for new workers, every third time twice in a row."""
    server.reload()
    if turn % 3 == 0:
        await crowd.until_sent(MESSAGES_MEANWHILE)
        server.reload()


async def terminate(server: HubServer, crowd: Crowd, turn: int) -> None:
    """Ask one worker to leave, and wait until another process has replaced it."""
    victims = [member for member in crowd.open if member.client.worker_id == turn % 3]
    os.kill(victims[0].client.pid, signal.SIGTERM)
    for member in victims:
        await member.client.ends()
    await crowd.until(crowd.is_complete)
    await server.replaced(victims[0].client)
    crowd.gone += [member.client.fd for member in victims]


Disturbance = Callable[[HubServer, Crowd, int], Awaitable[None]]

DISTURBANCES: dict[str, Disturbance] = {
    "calm": do_nothing,
    "kill": kill,
    "stop": stop,
    "reload": reload,
    "terminate": terminate,
}


@dataclass(frozen=True)
class Result:
    """The comparisons of a run."""

    disturbances: int
    sent: int
    arrived: int
    connections: int
    restarts: int


async def run(server: HubServer, name: str, messages: int) -> Result:
    """Disturb a server until this many messages have been sent, and compare those that have arrived with those due.

    There are at least `LEAST_DISTURBANCES`.

    Raises:
        AssertionError: Something is missing, came twice, in another order, or to the wrong client.
    """
    descriptors = server.descriptors()
    with server.publisher() as hub:
        crowd = Crowd(server, hub, CLIENTS)
        turns = 0
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(crowd.take_part())
            while crowd.sent < messages or turns < LEAST_DISTURBANCES:
                await crowd.until(crowd.is_complete)
                await crowd.until_sent(max(1, min(MESSAGES_BETWEEN, messages - crowd.sent)))
                await DISTURBANCES[name](server, crowd, turns)
                turns += 1
            if name == "reload":
                await asyncio.to_thread(server.reloads)
            await crowd.until(crowd.is_complete)
            crowd.is_enough = True
        await crowd.settle()
        arrived = crowd.check(answers_count=name != "kill")
        assert not [fd for fd in crowd.gone[:20] if hub.push(fd, "lost")]
    assert len({client.fd for client in server.connected}) == len(server.connected), "an id was given out twice"
    restarts = await crowd.open[0].client.ask("server.stats()['restarts']")
    await end(member.client for member in crowd.open)
    wait_until(lambda: server.descriptors() <= descriptors, "descriptors return")
    return Result(turns, crowd.sent, arrived, len(server.connected), restarts)


def main() -> int:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description="Number every message, and compare what arrives.")
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(DISTURBANCES), help=", ".join(DISTURBANCES))
    parser.add_argument("--messages", type=int, default=500_000, help="to be sent in each (default: 500,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - DISTURBANCES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(DISTURBANCES)}")
    for name in arguments.names:
        random.seed(arguments.seed)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as directory, hub_serving(Path(directory)) as server:
            result = asyncio.run(run(server, name, arguments.messages))
        print(
            f"{name}: {result.sent:,} messages sent, {result.arrived:,} deliveries as expected; "
            f"{result.disturbances} turns, {result.connections:,} connections, {result.restarts} restarts, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
