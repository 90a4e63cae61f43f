"""Two hosts find Redis through Sentinels, which make a replica the master when the master dies."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bystanders import bystanding
from raw_peer import PATIENCE
from redis_server import RedisServer, StartRedis
from several_hosts import StartHosts, hears

NAME = "the-master"


@pytest.fixture
def sentinels(redis_program: str, redis: RedisServer) -> Iterator[list[RedisServer]]:
    """Three Sentinels that watch `redis`."""
    with ExitStack() as stack:
        started = []
        for _ in range(3):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            configuration = directory / "sentinel.conf"
            configuration.write_text(
                f"sentinel monitor {NAME} 127.0.0.1 {redis.port} 2\n"
                f"sentinel down-after-milliseconds {NAME} 1000\n"
                f"sentinel failover-timeout {NAME} 3000\n"
            )
            started.append(RedisServer(redis_program, directory, configuration))
            stack.callback(started[-1].kill)
        yield started


def knows(sentinel: RedisServer, sentinels: int, replicas: int) -> bool:
    """Return whether a Sentinel knows so many others and replicas."""
    answer = sentinel.ask("SENTINEL", "MASTER", NAME)
    assert isinstance(answer, list)
    facts = dict(zip(answer[::2], answer[1::2], strict=True))
    return int(facts["num-other-sentinels"]) == sentinels and int(facts["num-slaves"]) == replicas


async def test_hosts_follow_a_failover(
    redis: RedisServer, start_redis: StartRedis, sentinels: list[RedisServer], start_hosts: StartHosts
) -> None:
    replica = start_redis(replicaof=f"127.0.0.1 {redis.port}")
    deadline = time.monotonic() + PATIENCE
    while not all(knows(sentinel, 2, 1) for sentinel in sentinels):
        assert time.monotonic() < deadline, "the Sentinels do not find each other"
        await asyncio.sleep(0.1)
    places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    hosts = start_hosts(*[f"redis+sentinel://{NAME}@{places}/0"] * 2)
    async with bystanding(hosts) as bystanders, hosts.clients() as (first, second):
        redis.kill()
        await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts(2 * PATIENCE)
        assert replica.ask("PUBSUB", "CHANNELS", "*"), "nobody has subscribed at the new master"
        await first.ask(f"server.push({second.fd}, 'through the new master')")
        assert await hears(second) == "through the new master"


async def test_sentinels_that_are_dead_are_passed_over(
    redis: RedisServer, sentinels: list[RedisServer], start_hosts: StartHosts
) -> None:
    sentinels[0].kill()
    places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    hosts = start_hosts(*[f"redis+sentinel://{NAME}@{places}/0"] * 2)
    async with bystanding(hosts):
        assert redis.ask("PUBSUB", "CHANNELS", "*")
