"""Clients of five hosts get ids while hosts are killed, frozen and skewed by years, and Redis is emptied: none twice.

    python tests/hosts/hosts_ids_model.py [--ids 1000000] [--seed 1]

`test_dead_hosts.py` does the same with few ids. Each time a host is started again, its clock is some years ahead or
behind, and sometimes it has lost its files. The clock of Redis is skewed in the model of
`crates/engine/src/broker/redis/behaviour/ids.rs`. Needs hubbub in this Python, a `redis-server` on the PATH, and
Debian's package `faketime`. Linux only.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "faults"))

from hub_client import HubClient, Lost, Refused
from raw_peer import PATIENCE
from redis_server import RedisServer, redis_running
from several_hosts import LEASE, Host, Hosts, hosts_running, number_of

HOSTS = 5
# So many clients connect at a time.
CLIENTS = 20
YEARS = (-10, -3, -1, 0, 2, 15)
# Seconds for which a host is frozen for less than its lease, and for longer.
NAP = 1.0
SLEEP = LEASE + 3


@dataclass
class Ids:
    """All ids that clients have received, and how often."""

    given: Counter[int] = field(default_factory=Counter)
    is_enough: bool = False

    async def until(self, count: int) -> None:
        """Wait until so many more have been given out."""
        last = self.given.total() + count
        last_seen, deadline = self.given.total(), time.monotonic() + PATIENCE
        while self.given.total() < last:
            if self.given.total() > last_seen:
                last_seen, deadline = self.given.total(), time.monotonic() + PATIENCE
            assert time.monotonic() < deadline, "no ids are given out"
            await asyncio.sleep(0.01)

    async def take(self, hosts: Hosts) -> None:
        """Connect to one host after the other, for a moment each."""
        while not self.is_enough:
            host = random.choice(hosts.all)
            if not host.is_running:
                await asyncio.sleep(0.01)
                continue
            with suppress(OSError, Lost, Refused, TimeoutError):
                async with asyncio.timeout(5):
                    client = await HubClient.connect(host.port)
                self.given[client.fd] += 1
                client.abort()


def skew(host: Host, library: str) -> None:
    """Have a host live in another year from its next start on."""
    years = random.choice(YEARS)
    host.environment = {"LD_PRELOAD": library, "FAKETIME": f"{years:+d}y", "DONT_FAKE_MONOTONIC": "1"}


async def kill(host: Host, library: str) -> None:
    """Kill a host, and start it again in another year."""
    host.kill_all()
    skew(host, library)
    if random.random() < 0.3:
        for file in host.directory.iterdir():
            if file.is_file():
                file.unlink()
    await asyncio.to_thread(host.restart)


async def run(
    hosts: Hosts, redis: RedisServer, library: str, *, turns: int, between: int, sleeps: bool
) -> Counter[int]:
    """Have clients get ids while hosts and Redis fail, and return the ids.

    Args:
        hosts: The servers.
        redis: Theirs.
        library: Skews clocks.
        turns: How often something fails.
        between: So many ids are given out between faults.
        sleeps: Whether hosts are also frozen for longer than their leases.

    Raises:
        AssertionError: An id was given out twice, or in the name of another host.
    """
    await hosts.know_each_other()
    ids = Ids()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(ids.take(hosts))
        for turn in range(turns):
            await ids.until(between)
            host = random.choice(hosts.all)
            if turn % 4 == 3:
                redis.kill()
                await asyncio.to_thread(redis.start)
                await asyncio.to_thread(hosts.become_healthy)
            elif turn % 4 == 1:
                with host.frozen():
                    await asyncio.sleep(SLEEP if sleeps and turn % 8 == 1 else NAP)
            else:
                await kill(host, library)
        await ids.until(between)
        ids.is_enough = True
    twice = [fd for fd, count in ids.given.items() if count > 1]
    assert not twice, f"given out twice: {twice}"
    assert {number_of(fd) for fd in ids.given} <= set(range(1, 256))
    return ids.given


def skewing_library() -> str:
    """Return the path of the library of Debian's package `faketime`.

    Raises:
        FileNotFoundError: It is not installed.
    """
    for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
        return str(path)
    raise FileNotFoundError("libfaketimeMT.so.1 of Debian's package faketime")


@contextmanager
def five_hosts(redis_program: str) -> Iterator[tuple[Hosts, RedisServer]]:
    """Run five hosts and their Redis for a block."""
    with (
        tempfile.TemporaryDirectory() as own,
        tempfile.TemporaryDirectory() as directory,
        redis_running(redis_program, Path(own)) as redis,
        hosts_running(Path(directory), [redis.url()] * HOSTS) as hosts,
    ):
        yield hosts, redis


def main() -> int:
    """Give out as many ids as were asked for."""
    parser = argparse.ArgumentParser(description="Get ids from five hosts, and compare them.")
    parser.add_argument("--ids", type=int, default=1_000_000, help="to be given out (default: 1,000,000)")
    parser.add_argument("--turns", type=int, default=40, help="how often something fails (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    program = shutil.which("redis-server")
    if program is None:
        parser.error("there is no redis-server on the PATH")
    begin = time.monotonic()
    with five_hosts(program) as (hosts, redis):
        between = arguments.ids // (arguments.turns + 1) + 1
        given = asyncio.run(run(hosts, redis, skewing_library(), turns=arguments.turns, between=between, sleeps=True))
    numbers = len({number_of(fd) for fd in given})
    print(
        f"{given.total():,} ids in the names of {numbers} hosts, {arguments.turns} faults: none twice; "
        f"{time.monotonic() - begin:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
