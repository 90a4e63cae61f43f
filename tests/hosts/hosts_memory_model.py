"""Clients of three hosts read numbered messages of topics with history, while hosts, Redis and the network fail.

    python tests/hosts/hosts_memory_model.py [calm|kill|frozen-redis ...] [--messages 20000] [--turns 3] [--seed 1]

Each client must get every message since its position, once and in order, or be told that this is not possible, which
must then be true. As a program it prints what it compared; `test_hosts_memory_model.py` does the same with few
messages. Needs hubbub in this Python, and a `redis-server` on the PATH. Linux only.
"""

import argparse
import asyncio
import random
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "faults"))

from hosts_model import World, world
from memory_readers import ROOMS, SETTINGS, Result, events_of, members, run
from relay import COMMANDS, SUBSCRIPTIONS
from several_hosts import LEASE, WORKERS

CLIENTS = 60
# Seconds within which the members of a killed host must be gone.
NO_GHOSTS = LEASE + 5
# Seconds for which something fails that must be noticed.
LONG = 6.0
# Seconds that a publisher waits at most after a batch: messages are published before, during and after each fault.
PAUSE = 0.6
# Messages received before each fault.
BETWEEN = 1_000


async def calm(world: World, turn: int) -> None:
    """Leave everything alone."""
    await asyncio.sleep(0.5)


async def kill(world: World, turn: int) -> None:
    """Kill a host and start it again; soon nobody is a member who was connected to it."""
    host = world.hosts[1 + turn % 2]
    gone = {client.fd for client in host.connected if not client.ended.done()}
    number = host_of(host.connected[0].fd)
    host.kill_all()
    killed = time.monotonic()
    async with world.hosts.client_of(0) as observer:
        there = {fd for room in ROOMS for fd, _ in await members(observer, room) if host_of(fd) == number}
        note_half_done(world, number, there)
        await asyncio.to_thread(host.restart)
        for room in ROOMS:
            while ghosts := gone & {fd for fd, _ in await members(observer, room)}:
                late = time.monotonic() - killed
                assert late < NO_GHOSTS, f"{ghosts} are still in {room} after {late:.1f} s"
                await asyncio.sleep(0.1)


def host_of(fd: int) -> int:
    """Return the number of a connection's host."""
    return fd >> 45


def note_half_done(world: World, number: int, there: set[int]) -> None:
    """Note of which connections of a host that was killed the application is told too little, or too much.

    A host tells Redis who joins and leaves, and calls the handlers; it may die when it has done one and not the other.
    Another host reports those who are still members in Redis, and nobody else.
    """
    told = {fd: names for fd, names in events_of(world.hosts.members_log).items() if host_of(fd) == number}
    world.half_done.update({fd: names for fd, names in told.items() if names == ["join"] and fd not in there})
    world.half_done.update({fd: ["leave"] for fd in there - told.keys()})
    world.half_done.update({fd: [*told[fd], "leave"] for fd in there & told.keys() if told[fd][-1] == "leave"})


async def reload(world: World, turn: int) -> None:
    """Replace the workers of a host."""
    await asyncio.to_thread(world.hosts[turn % 3].reloads)


async def killed_redis(world: World, turn: int) -> None:
    """Kill Redis, and start it again without any data."""
    world.redis.kill()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(world.redis.start)
    await asyncio.to_thread(world.hosts.become_healthy)


async def old_dump(world: World, turn: int) -> None:
    """Kill Redis, and start it again with the data of a moment ago."""
    saved = world.redis.save()
    await asyncio.sleep(0.3)
    world.redis.kill()
    await asyncio.to_thread(world.redis.restore, saved)
    await asyncio.to_thread(world.hosts.become_healthy)


async def flushed_redis(world: World, turn: int) -> None:
    """Delete all data in Redis."""
    world.redis.ask("FLUSHALL")
    await asyncio.sleep(0.5)


async def frozen_redis(world: World, turn: int) -> None:
    """Freeze Redis for longer than anything is kept."""
    with world.redis.frozen():
        await asyncio.sleep(LONG)
    await asyncio.to_thread(world.hosts.become_healthy)


async def cut_connections(world: World, turn: int) -> None:
    """Have Redis close all connections."""
    with world.redis.client() as client:
        client.ask("CLIENT", "KILL", "SKIPME", "yes")
    await asyncio.to_thread(world.hosts.become_healthy)


async def lost_packets(world: World, turn: int) -> None:
    """Lose all packets of one or both connections of the second host."""
    kinds = ((COMMANDS,), (SUBSCRIPTIONS,), (COMMANDS, SUBSCRIPTIONS))[turn % 3]
    with world.relay.holding(*kinds):
        await asyncio.sleep(LONG)
    await asyncio.to_thread(world.hosts.become_healthy)


@dataclass(frozen=True)
class Plan:
    """A fault, and whether messages may be missing in the history afterwards."""

    fault: Callable[[World, int], Awaitable[None]]
    loses_history: bool


FAULTS = {
    "calm": Plan(calm, loses_history=False),
    "kill": Plan(kill, loses_history=False),
    "reload": Plan(reload, loses_history=False),
    "killed-redis": Plan(killed_redis, loses_history=True),
    "old-dump": Plan(old_dump, loses_history=True),
    "flushed-redis": Plan(flushed_redis, loses_history=True),
    "frozen-redis": Plan(frozen_redis, loses_history=True),
    "cut-connections": Plan(cut_connections, loses_history=True),
    "lost-packets": Plan(lost_packets, loses_history=True),
}


async def run_fault(world: World, name: str, messages: int, *, turns: int = 1, clients: int = CLIENTS) -> Result:
    """Run the model with one of the `FAULTS`; see `memory_readers.run`."""
    plan = FAULTS[name]
    await world.hosts.know_each_other()
    workers = range(0, len(world.hosts) * WORKERS, WORKERS)
    return await run(
        world.hosts,
        world.hosts.members_log,
        partial(plan.fault, world),
        messages,
        clients,
        workers=workers,
        least_turns=turns,
        loses_history=plan.loses_history,
        pause=PAUSE,
        between=BETWEEN,
        half_done=world.half_done,
    )


def main() -> int:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description="Number every message, and compare what is recovered.")
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(FAULTS), help=", ".join(FAULTS))
    parser.add_argument("--messages", type=int, default=20_000, help="to be published in each (default: 20,000)")
    parser.add_argument("--turns", type=int, default=3, help="how often each fault is caused at least (default: 3)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - FAULTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(FAULTS)}")
    program = shutil.which("redis-server")
    if program is None:
        parser.error("there is no redis-server on the PATH")
    for name in arguments.names:
        random.seed(arguments.seed)
        begin = time.monotonic()
        with world(program, **SETTINGS) as servers:
            result = asyncio.run(run_fault(servers, name, arguments.messages, turns=arguments.turns))
            connections = len(servers.hosts.connected)
        record = result.record
        print(
            f"{name}, seed {arguments.seed}: {result.published:,} messages published, {record.received:,} received as "
            f"expected and {record.unplaced:,} without a place; {record.recoveries:,} recoveries of "
            f"{record.recovered:,} messages, {record.refusals:,} positions too old or of another history; "
            f"{result.member_events:,} joins and leaves; {result.disturbances} turns, {connections:,} connections, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
