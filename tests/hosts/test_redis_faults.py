"""Redis fails in many ways under two hosts: inside a host everything goes on, and afterwards they are one again."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from bystanders import MIB, bystanding, flood
from hub_client import HubClient, Lost, Refused
from raw_peer import PATIENCE
from redis_server import RedisError, RedisServer, StartRedis
from several_hosts import KEPT, LEASE, NOTICED, Hosts, StartHosts, hears, until

# What a busy machine may add to a deadline.
TOLERANCE = 4.0
# Seconds for which Redis is frozen in the longest test: longer than a lease.
FROZEN = 20.0


def says_that_redis_was_away(hosts: Hosts) -> None:
    """Assert that each host has logged it."""
    for host in hosts:
        warnings = [line for line in host.log().splitlines() if "warn" in line.lower() or "error" in line.lower()]
        assert warnings, f"the host at port {host.port} has not logged that Redis was away:\n{host.log()}"


def become_degraded(hosts: Hosts) -> None:
    """Wait until each host says that it does not reach the others; they notice in time."""
    begin = time.monotonic()
    for host in hosts:
        host.becomes_degraded()
    took = time.monotonic() - begin
    assert took < NOTICED + TOLERANCE, f"noticed after {took:.1f} s"


async def test_redis_is_killed_and_comes_back_empty(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders:
        redis.kill()
        await asyncio.to_thread(become_degraded, two_hosts)
        await bystanders.local_delivery_goes_on()
        await asyncio.to_thread(redis.start)
        await bystanders.reach_all_hosts()
    says_that_redis_was_away(two_hosts)


async def test_redis_is_killed_ten_times(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders:
        for _ in range(10):
            redis.kill()
            await bystanders.local_delivery_goes_on()
            await asyncio.to_thread(redis.start)
        await bystanders.reach_all_hosts()


async def test_redis_is_frozen(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders:
        with redis.frozen():
            await asyncio.to_thread(become_degraded, two_hosts)
            await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts()
    says_that_redis_was_away(two_hosts)


async def test_redis_is_flushed(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders:
        assert redis.ask("FLUSHALL") == "OK"
        await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts()
        # The hosts notice, and have their numbers again.
        await asyncio.to_thread(has_leases, redis, two_hosts)


def has_leases(redis: RedisServer, hosts: Hosts) -> None:
    """Wait until there is a lease for each host."""
    deadline = time.monotonic() + PATIENCE
    while len(redis.keys("hubbub:lease:*")) != len(hosts):
        assert time.monotonic() < deadline, redis.keys("*")
        time.sleep(0.02)


async def test_redis_has_no_memory_left(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders, two_hosts.clients() as (first, second):
        await first.ask("server.join(fd, 'room:full')")
        redis.configure("maxmemory", "1mb")
        # Longer than a lease is renewed: an existing lease must outlive a full Redis.
        begin = time.monotonic()
        while time.monotonic() - begin < KEPT:
            await second.ask("server.publish('room:full', 'x' * 1000)")
            await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts()
        redis.configure("maxmemory", "0")
        await until_published(first, "room:full")
    says_that_redis_was_away(two_hosts)


async def until_published(client: HubClient, topic: str) -> None:
    """Publish to a topic with history until a message is in it."""
    deadline = time.monotonic() + PATIENCE
    while "again" not in str(await client.ask(f"texts({topic!r})")):
        assert time.monotonic() < deadline, f"nothing can be published to {topic}"
        await client.ask(f"server.publish({topic!r}, 'again')")
        await asyncio.sleep(0.1)


async def test_redis_is_slow_and_nothing_is_lost_or_out_of_order(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders, two_hosts.clients() as (first, second):
        for turn in range(3):
            assert redis.ask("CLIENT", "PAUSE", 1500, "ALL") == "OK"
            numbers = range(turn * 500, turn * 500 + 500)
            assert await first.ask(f"[server.push({second.fd}, str(n)) for n in {numbers!r}] == [True] * 500")
            await bystanders.local_delivery_goes_on()
            assert [int(await hears(second)) for _ in numbers] == list(numbers)
        assert await first.ask("server.hosts() and None") is None


async def test_redis_is_a_replica_for_a_while(start_redis: StartRedis, redis: RedisServer, two_hosts: Hosts) -> None:
    other = start_redis()
    async with bystanding(two_hosts) as bystanders:
        assert redis.ask("REPLICAOF", "127.0.0.1", other.port) == "OK"
        await bystanders.local_delivery_goes_on()
        deadline = time.monotonic() + LEASE
        while all(host.is_healthy() for host in two_hosts) and time.monotonic() < deadline:
            await bystanders.local_delivery_goes_on()
        assert redis.ask("REPLICAOF", "NO", "ONE") == "OK"
        await bystanders.reach_all_hosts()
    says_that_redis_was_away(two_hosts)


async def test_the_password_of_redis_is_changed_and_changed_back(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders:
        redis.configure("requirepass", "new")
        with redis.client() as client:
            client.ask("AUTH", "new")
            client.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with suppress(RedisError):
                client.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.to_thread(become_degraded, two_hosts)
            await bystanders.local_delivery_goes_on()
            client.ask("CONFIG", "SET", "requirepass", "")
        await bystanders.reach_all_hosts()
    says_that_redis_was_away(two_hosts)


async def test_redis_cuts_a_subscriber_that_does_not_read(redis: RedisServer, two_hosts: Hosts) -> None:
    redis.configure("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    async with bystanding(two_hosts) as bystanders, two_hosts.clients() as (first, second):
        await second.ask("server.subscribe(fd, 'much')")
        await first.ask("server.subscribe(fd, 'much')")
        before = {client["id"] for client in redis.clients()}
        with two_hosts[1].frozen():
            # As much as the outbox of its own subscriber holds, again and again.
            for _ in range(20):
                await first.ask("[server.publish('much', 'x' * 100_000) for _ in range(10)] and None")
                assert [await hears(first) for _ in range(10)] == ["x" * 100_000] * 10
            deadline = time.monotonic() + KEPT
            while before <= {client["id"] for client in redis.clients()}:
                assert time.monotonic() < deadline, "Redis has cut nobody"
                await asyncio.sleep(0.05)
        await bystanders.reach_all_hosts()
        await bystanders.local_delivery_goes_on()
    assert any("Redis" in line or "broker" in line for line in two_hosts[1].log().splitlines()), two_hosts[1].log()


async def test_somebody_else_publishes_garbage_on_all_channels(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders, two_hosts.clients() as (first, second):
        listed = redis.ask("PUBSUB", "CHANNELS", "*")
        assert isinstance(listed, list)
        channels = [str(channel) for channel in listed]
        assert channels
        with redis.client() as client:
            for channel in channels:
                for length in (0, 1, 3, 4, 5, 6, 7, 8, 12, 100, 1000, 100_000):
                    client.ask("PUBLISH", channel, b"\xff" * length)
                    client.ask("PUBLISH", channel, b"\x00" * length)
                    client.ask("PUBLISH", channel, bytes(range(256)) * (length // 256 + 1))
                for number in range(256):
                    # Each kind of a message, with nothing that belongs to it.
                    for body in (b"", b"\x00" * 40, b"\xff" * 40):
                        frame = bytes([number]) + body
                        client.ask("PUBLISH", channel, len(frame).to_bytes(4, "little") + frame)
                        client.ask("PUBLISH", channel, bytes([1]) + len(frame).to_bytes(4, "little") + frame)
        await first.ask(f"server.push({second.fd}, 'after the garbage')")
        assert await hears(second) == "after the garbage"
        assert not first.ended.done()
        await bystanders.local_delivery_goes_on()
    for host in two_hosts:
        assert "panicked" not in host.log()


async def test_what_waits_for_redis_is_bounded_and_what_is_dropped_is_counted(
    redis: RedisServer, start_hosts: StartHosts
) -> None:
    hosts = start_hosts(redis.url(), redis.url(), broker_queue_size=4 * MIB, send_queue_size=2 * MIB)
    # `bystanding` compares the memory of the masters.
    async with bystanding(hosts) as bystanders:
        with redis.frozen():
            await asyncio.to_thread(become_degraded, hosts)
            for _ in range(20):
                await flood(bystanders, 1000)
                await bystanders.local_delivery_goes_on()
            first, second = bystanders.of
            # The way to the other host has no room.
            assert await first.clients[0].ask(f"server.push({second.clients[0].fd}, 'news x')") is False
            dropped = [await each.clients[0].ask("server.stats()['commands_dropped']") for each in bystanders.of]
        await bystanders.reach_all_hosts()
    assert all(count > 0 for count in dropped), dropped


async def test_no_older_push_is_replayed_after_redis_was_away_for_long(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders, two_hosts.clients() as (first, second):
        with redis.frozen():
            await asyncio.to_thread(become_degraded, two_hosts)
            await first.ask(f"server.push({second.fd}, 'too old')")
            begin = time.monotonic()
            while time.monotonic() - begin < KEPT + 1:
                await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts()
        await first.ask(f"server.push({second.fd}, 'new')")
        assert await hears(second) == "new"


async def test_without_redis_ids_end_with_the_lease_and_connections_live_on(
    redis: RedisServer, two_hosts: Hosts
) -> None:
    async with bystanding(two_hosts) as bystanders:
        with redis.frozen():
            begin = time.monotonic()
            deadline = begin + LEASE + TOLERANCE
            statuses: list[int] = []
            while len(statuses) < len(two_hosts):
                assert time.monotonic() < deadline, "ids are given out although the lease has ended"
                try:
                    client = await two_hosts[len(statuses)].connect()
                    client.abort()
                except Refused as refused:
                    statuses.append(refused.status)
            assert statuses == [503, 503]
            # Until the lease has also ended for Redis.
            while time.monotonic() - begin < FROZEN:
                await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts()
        for host in two_hosts:
            await until_connects(host.connect)


async def until_connects(connect: Callable[[], Awaitable[HubClient]]) -> None:
    """Connect, as soon as the server gives out ids again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(Refused, Lost):
            (await connect()).abort()
            return
        assert time.monotonic() < deadline, "no ids are given out"
        await asyncio.sleep(0.05)


async def test_a_host_whose_lease_is_not_renewed_says_that_it_gives_out_no_ids(
    redis: RedisServer, two_hosts: Hosts
) -> None:
    """Redis answers, but may not carry out what renews a lease."""
    async with bystanding(two_hosts) as bystanders:
        assert redis.ask("ACL", "SETUSER", "default", "-eval", "-evalsha") == "OK"
        begin = time.monotonic()
        for host in two_hosts:
            await asyncio.to_thread(host.becomes_degraded)
        assert time.monotonic() - begin < LEASE + TOLERANCE
        await bystanders.local_delivery_goes_on()
        assert redis.ask("ACL", "SETUSER", "default", "+@all") == "OK"
        await bystanders.reach_all_hosts()
        for host in two_hosts:
            await until_connects(host.connect)
    says_that_redis_was_away(two_hosts)


# ---- topics with history ---------------------------------------------------------------------------------


@asynccontextmanager
async def joined(hosts: Hosts, topic: str) -> AsyncIterator[list[HubClient]]:
    """A client of each host that has joined a topic, with one message in it."""
    await hosts.know_each_other()
    async with hosts.clients() as clients:
        for client in clients:
            await client.ask(f"server.join(fd, {topic!r})")
        await clients[0].ask(f"server.publish({topic!r}, 'first')")
        for client in clients:
            assert json.loads(await hears(client))["data"] == "first"
        yield clients


async def test_from_an_old_dump_offsets_begin_in_a_new_epoch(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts) as bystanders, joined(two_hosts, "room:dump") as (first, _):
        saved = redis.save()
        await first.ask("[server.publish('room:dump', f'lost {number}') for number in range(5)] and None")
        heard = [json.loads(await hears(first)) for _ in range(5)]
        position = [heard[-1]["epoch"], heard[-1]["offset"]]
        redis.kill()
        await asyncio.to_thread(redis.restore, saved)
        await bystanders.reach_all_hosts()
        async with two_hosts.clients() as (later, other):
            await until_published(other, "room:dump")
            outcome = await later.ask(f"server.join(fd, 'room:dump', since={position!r})")
            # What is in the place of the lost messages now must not count as what was missed.
            assert outcome["recovered"] is False
            assert outcome["position"][0] != position[0]


@pytest.mark.parametrize("fault", ["frozen", "killed", "flushed"])
async def test_subscribers_of_history_miss_nothing_silently(redis: RedisServer, two_hosts: Hosts, fault: str) -> None:
    """While Redis is away, they get what is published in their own host; afterwards they are told of the gap."""
    async with bystanding(two_hosts) as bystanders, joined(two_hosts, "room:gap") as (first, second):
        position = [await first.ask("epoch('room:gap')"), 1]
        if fault == "frozen":
            with redis.frozen():
                await asyncio.to_thread(become_degraded, two_hosts)
                await publish_locally(first)
        elif fault == "killed":
            redis.kill()
            await asyncio.to_thread(become_degraded, two_hosts)
            await publish_locally(first)
            await asyncio.to_thread(redis.start)
        else:
            redis.ask("FLUSHALL")
        await bystanders.reach_all_hosts()
        async with two_hosts.clients() as (writer, _):
            await until_published(writer, "room:gap")
            for client in (first, second):
                await gets_all_or_is_closed(client)
        await nobody_resumes(two_hosts, "room:gap", position)


async def nobody_resumes(hosts: Hosts, topic: str, position: list[Any]) -> None:
    """Check that each host tells clients with this position that they have missed something."""
    async with hosts.clients() as clients:
        for client in clients:
            outcome = await client.ask(f"server.join(fd, {topic!r}, since={position!r})")
            assert outcome["recovered"] is False


async def test_after_redis_had_no_memory_whoever_resumes_is_told_of_the_gap(
    redis: RedisServer, two_hosts: Hosts
) -> None:
    async with joined(two_hosts, "room:memory") as clients:
        position = [await clients[0].ask("epoch('room:memory')"), 1]
        redis.configure("maxmemory", 1)
        await clients[0].ask("server.publish('room:memory', 'not kept')")
        for client in clients:
            assert json.loads(await hears(client))["data"] == "not kept"
        redis.configure("maxmemory", 0)
        async with two_hosts.clients() as (writer, _):
            await until_published(writer, "room:memory")
        await nobody_resumes(two_hosts, "room:memory", position)


async def publish_locally(client: HubClient) -> None:
    """Publish to a topic with history without Redis: the subscribers of the host get it."""
    await client.ask("server.publish('room:gap', 'without redis')")
    assert json.loads(await hears(client))["data"] == "without redis"


async def gets_all_or_is_closed(client: HubClient) -> None:
    """Read until a message that was published afterwards, which must not come after a gap; or until close 1013."""
    position: tuple[str, int] | None = None
    async with asyncio.timeout(PATIENCE):
        while True:
            hearing = asyncio.ensure_future(client.receive())
            either: list[asyncio.Future[Any]] = [hearing, client.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                hearing.cancel()
                assert client.close_code == 1013, f"closed with {client.close_code}"
                return
            message = json.loads(hearing.result())
            if not message["epoch"]:
                continue
            if position:
                assert (message["epoch"], message["offset"] - 1) == position, "a gap that nobody was told of"
            position = message["epoch"], message["offset"]
            if message["data"] == "again":
                # Offset 1 was the first, which all have had; anything else in between was missed.
                assert position[1] == 2 or position[1] == 1, f"offset {position[1]} comes after the first"
                return


async def test_many_short_lived_topics_leave_nothing(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts, growth=64 * MIB) as bystanders, two_hosts.clients() as (first, second):
        memory: list[list[int]] = []
        # The first turns find out how much is needed while so many topics wait to be given up.
        while len(memory) < 2 or max(grown := [b - a for a, b in zip(*memory[-2:], strict=True)]) > 2 * MIB:
            assert len(memory) < 8, f"Redis and the masters grow with each turn, at last by {grown} bytes"
            first_topic = len(memory) * 50_000
            for begin in range(first_topic, first_topic + 50_000, 5_000):
                await asyncio.gather(*(client.ask(f"fill(fd, 5_000, {begin})") for client in (first, second)))
                await bystanders.local_delivery_goes_on()
            # A topic is given up 5 s after its last subscriber.
            deadline = time.monotonic() + PATIENCE
            while len(channels_of(redis)) > 10:
                assert time.monotonic() < deadline, f"{len(channels_of(redis))} channels are left"
                await asyncio.sleep(0.1)
            assert not [key for key in redis.keys("*") if "short" in key]
            memory.append([redis.counter("memory", "used_memory"), *(host.memory() for host in two_hosts)])


def channels_of(redis: RedisServer) -> list[object]:
    listed = redis.ask("PUBSUB", "CHANNELS", "*")
    assert isinstance(listed, list)
    return listed


async def test_members_are_there_again_after_redis_has_lost_them(redis: RedisServer, two_hosts: Hosts) -> None:
    async with bystanding(two_hosts), two_hosts.clients() as clients:
        for number, client in enumerate(clients):
            await client.ask(f"server.join(fd, 'room:members', info={number})")
        expected = {str(client.fd): number for number, client in enumerate(clients)}
        for client in clients:
            await until(client, "server.presence('room:members')", lambda members: members == expected)
        redis.ask("FLUSHALL")
        for client in clients:
            await until(client, "server.presence('room:members')", lambda members: members == expected)
        lines = two_hosts.members_log.read_text().splitlines()
        events = [json.loads(line)[:3] for line in lines if "room:members" in line]
        assert sorted(events) == sorted(["join", "room:members", client.fd] for client in clients)
