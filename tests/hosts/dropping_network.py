"""Two hosts whose packets the kernel drops on their way from Redis: `dropping_network.py REDIS-SERVER CASE`.

It has to run in a network namespace of its own. Redis runs in another one; each host reaches it by a way of its own.
What is dropped is not acknowledged either, so the kernels of both ends send it again and again, as with a broken
network. The case says what is lost: one of the connections of the first host, both, or everything for both hosts.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "faults"))

from bystanders import bystanding
from redis_server import RedisServer, redis_running
from several_hosts import NOTICED, Hosts, hears, hosts_running

# What a busy machine may add to a deadline.
TOLERANCE = 4.0
WAYS = ("10.77.1", "10.77.2")


def ip(*words: str, inside: RedisServer | None = None) -> None:
    """Change the network; `inside` that of this Redis."""
    first = ["nsenter", f"--net=/proc/{inside.pid}/ns/net"] if inside else []
    subprocess.run([*first, "ip", *words], check=True)


@contextmanager
def distant_redis(path: str) -> Iterator[RedisServer]:
    """Run a Redis in a network of its own for a block, with a way to it for each host."""
    ip("link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "distant-redis"
        program.write_text(f'#!/bin/sh\nexec unshare --net {path} "$@"\n')
        program.chmod(0o755)
        with redis_running(str(program), Path(directory), protected_mode="no") as redis:
            for number, way in enumerate(WAYS):
                here, there = f"host{number}", f"redis{number}"
                ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", str(redis.pid))
                ip("address", "add", f"{way}.1/30", "dev", here)
                ip("link", "set", here, "up")
                ip("address", "add", f"{way}.2/30", "dev", there, inside=redis)
                ip("link", "set", there, "up", inside=redis)
            yield redis


def selectors(redis: RedisServer, case: str) -> list[list[str]]:
    """Return which packets from Redis are to be dropped, as the `ip rule` command selects them."""
    first = ["to", f"{WAYS[0]}.1"]
    if case == "one host":
        return [first]
    if case == "both hosts":
        return [["to", f"{way}.1"] for way in WAYS]
    own = [client for client in redis.clients() if client["addr"].startswith(f"{WAYS[0]}.1:")]
    ports = [client["addr"].split(":")[1] for client in own if (client["sub"] != "0") == (case == "subscriptions")]
    assert len(ports) == 1, redis.clients()
    return [[*first, "ipproto", "tcp", "dport", ports[0]]]


@contextmanager
def dropping(redis: RedisServer, case: str) -> Iterator[None]:
    """Drop packets for a block."""
    chosen = selectors(redis, case)
    for selector in chosen:
        ip("rule", "add", *selector, "blackhole", inside=redis)
    try:
        yield
    finally:
        for selector in chosen:
            ip("rule", "delete", *selector, "blackhole", inside=redis)


async def run(hosts: Hosts, redis: RedisServer, case: str) -> None:
    """Drop packets until that is noticed; inside the hosts all goes on, and afterwards they are one again."""
    victims = hosts.all if case == "both hosts" else hosts.all[:1]
    async with bystanding(hosts) as bystanders, hosts.clients() as (first, second):
        with dropping(redis, case):
            begin = time.monotonic()
            for host in victims:
                await asyncio.to_thread(host.tells_of_loss)
            took = time.monotonic() - begin
            assert took < NOTICED + TOLERANCE, f"noticed after {took:.1f} s"
            for host in victims if case in ("one host", "both hosts") else ():
                assert not host.is_healthy()
            await bystanders.local_delivery_goes_on()
            assert len(victims) == len(hosts) or hosts[1].is_healthy(), "the other host is not affected"
        await bystanders.reach_all_hosts()
        # What comes late out of the old connections must not be out of order.
        for sender, receiver in ((first, second), (second, first)):
            await sender.ask(f"[server.push({receiver.fd}, str(n)) for n in range(500)] and None")
            assert [int(await hears(receiver)) for _ in range(500)] == list(range(500))
    for host in victims:
        await asyncio.to_thread(host.tells_of_return)


def main() -> None:
    """Run the case."""
    path, case = sys.argv[1:]
    with distant_redis(path) as redis, tempfile.TemporaryDirectory() as directory:
        brokers = [f"redis://{way}.2:{redis.port}/0" for way in WAYS]
        with hosts_running(Path(directory), brokers) as hosts:
            asyncio.run(run(hosts, redis, case))


if __name__ == "__main__":
    main()
