"""Clients of three hosts send numbered messages while hosts, Redis and the network fail; each arrives once, in order.

    python tests/hosts/hosts_model.py [calm|kill|frozen-redis ...] [--messages 20000] [--turns 5] [--seed 1]

As a program it prints what it compared; `test_hosts_model.py` does the same with few messages. Needs hubbub in this
Python, and a `redis-server` on the PATH. Linux only.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "faults"))

from hosts_crowd import Fault, Faulty, Outcome, run
from redis_server import RedisServer, redis_running
from relay import COMMANDS, SUBSCRIPTIONS, Relay, relaying
from several_hosts import Hosts, hosts_running

CLIENTS = 60
# Messages that are sent during a fault that would otherwise be over at once.
MEANWHILE = 300
# Seconds for which something fails that must be noticed.
LONG = 5.0


async def calm(faulty: Faulty) -> None:
    """Leave everything alone."""
    await faulty.crowd.until_sent(MEANWHILE)


async def kill(faulty: Faulty) -> None:
    """Kill a host, the second or the third, and start it again."""
    host = faulty.hosts[1 + faulty.turn % 2]
    victims = [member for member in faulty.crowd.open if member.client in host.connected]
    host.is_offered = False
    host.kill_all()
    await asyncio.gather(*(member.client.ends() for member in victims))
    await faulty.crowd.until_sent(MEANWHILE)
    await asyncio.to_thread(host.restart)
    # Its subscriptions take effect, and then it gets clients.
    await faulty.observers.beats_are_heard()
    host.is_offered = True
    await faulty.crowd.until_sent(MEANWHILE)


async def reload(faulty: Faulty) -> None:
    """Replace the workers of a host."""
    host = faulty.hosts[faulty.turn % 3]
    await asyncio.to_thread(host.reloads)


async def frozen_host(faulty: Faulty) -> None:
    """Freeze a host for less than its lease."""
    host = faulty.hosts[1 + faulty.turn % 2]
    with host.frozen():
        await asyncio.sleep(LONG)


async def killed_redis(faulty: Faulty) -> None:
    """Kill Redis, and start it again without any data."""
    faulty.redis.kill()
    await faulty.crowd.until_sent(MEANWHILE)
    await asyncio.to_thread(faulty.redis.start)


async def frozen_redis(faulty: Faulty) -> None:
    """Freeze Redis for longer than anything is kept."""
    with faulty.redis.frozen():
        await asyncio.sleep(LONG + 1)


async def slow_redis(faulty: Faulty) -> None:
    """Have Redis answer late, but so early that nothing is lost."""
    for _ in range(2):
        faulty.redis.ask("CLIENT", "PAUSE", 1000, "ALL")
        await faulty.crowd.until_sent(MEANWHILE)


async def flushed_redis(faulty: Faulty) -> None:
    """Delete all data in Redis, which nothing that is on its way needs."""
    faulty.redis.ask("FLUSHALL")
    await faulty.crowd.until_sent(MEANWHILE)


async def cut_connections(faulty: Faulty) -> None:
    """Have Redis close all connections, as it does with those of clients that read too slowly."""
    with faulty.redis.client() as client:
        client.ask("CLIENT", "KILL", "SKIPME", "yes")
    await faulty.crowd.until_sent(MEANWHILE)


async def lost_commands(faulty: Faulty) -> None:
    """Lose all packets of the second host's connection for commands."""
    with faulty.relay.holding(COMMANDS):
        await asyncio.sleep(LONG)


async def lost_subscriptions(faulty: Faulty) -> None:
    """Lose all packets of the second host's connection for subscriptions."""
    with faulty.relay.holding(SUBSCRIPTIONS):
        await asyncio.sleep(LONG)


async def lost_packets(faulty: Faulty) -> None:
    """Lose all packets of the second host."""
    with faulty.relay.holding(COMMANDS, SUBSCRIPTIONS):
        await asyncio.sleep(LONG)


@dataclass(frozen=True)
class Plan:
    """A fault, and whether it may lose messages between hosts."""

    fault: Fault
    loses: bool


FAULTS = {
    "calm": Plan(calm, loses=False),
    "kill": Plan(kill, loses=False),
    "reload": Plan(reload, loses=False),
    "slow-redis": Plan(slow_redis, loses=False),
    "flushed-redis": Plan(flushed_redis, loses=False),
    "frozen-host": Plan(frozen_host, loses=True),
    "killed-redis": Plan(killed_redis, loses=True),
    "frozen-redis": Plan(frozen_redis, loses=True),
    "cut-connections": Plan(cut_connections, loses=True),
    "lost-commands": Plan(lost_commands, loses=True),
    "lost-subscriptions": Plan(lost_subscriptions, loses=True),
    "lost-packets": Plan(lost_packets, loses=True),
}


@dataclass
class World:
    """Three hosts, their Redis, and the way of the second one to it."""

    hosts: Hosts
    redis: RedisServer
    relay: Relay
    half_done: dict[int, list[str]] = field(default_factory=dict)
    """The events of connections that were just joining or leaving when their host was killed."""


@contextmanager
def world(redis_program: str, **settings: Any) -> Iterator[World]:
    """Run three hosts for a block, with settings."""
    with (
        tempfile.TemporaryDirectory() as own,
        tempfile.TemporaryDirectory() as directory,
        redis_running(redis_program, Path(own)) as redis,
        relaying(redis.port) as relay,
        hosts_running(Path(directory), [redis.url(), relay.url(), redis.url()], **settings) as hosts,
    ):
        yield World(hosts, redis, relay)


async def run_fault(world: World, name: str, *, messages: int, turns: int = 1, clients: int = CLIENTS) -> Outcome:
    """Run the model with one of the `FAULTS`.

    Raises:
        AssertionError: Something is missing, came twice, in another order, or to the wrong client; or messages were
            lost, and no host has logged anything.
    """
    plan = FAULTS[name]
    await world.hosts.know_each_other()
    outcome = await run(
        world.hosts,
        world.redis,
        world.relay,
        plan.fault,
        clients=clients,
        messages=messages,
        turns=turns,
        loses=plan.loses,
    )
    if outcome.lost:
        logs = "\n".join(host.log() for host in world.hosts)
        assert "warn" in logs.lower() or "error" in logs.lower(), f"{outcome.lost} messages were lost without a word"
    return outcome


def main() -> int:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description="Number every message, and compare what arrives.")
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(FAULTS), help=", ".join(FAULTS))
    parser.add_argument("--messages", type=int, default=20_000, help="between faults (default: 20,000)")
    parser.add_argument("--turns", type=int, default=5, help="how often each fault is caused (default: 5)")
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
        with world(program) as servers:
            outcome = asyncio.run(run_fault(servers, name, messages=arguments.messages, turns=arguments.turns))
        print(
            f"{name}: {outcome.sent:,} messages sent, {outcome.arrived:,} deliveries as expected, {outcome.lost:,} "
            f"between hosts lost while that was told; {outcome.disconnected:,} connections closed by others, "
            f"{outcome.connections:,} connections, {time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
