"""Hosts that are killed, or frozen for longer than their lease: others go on, and no id is given out twice."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable

from bystanders import bystanding
from hosts_ids_model import five_hosts, run, skewing_library
from hub_client import HubClient, end
from raw_peer import PATIENCE
from redis_server import RedisServer
from several_hosts import LEASE, Hosts, StartHosts, number_of, until

# DESIGN.md: seconds within which nobody is a member of a topic who was connected to a dead host.
NO_GHOSTS = LEASE + 5


async def test_a_killed_host_is_missed_by_the_others_and_its_members_leave_once(
    redis: RedisServer, start_hosts: StartHosts
) -> None:
    hosts = start_hosts(*[redis.url()] * 3)
    await hosts.know_each_other()
    async with hosts.clients() as clients:
        for client in clients:
            await client.ask("server.join(fd, 'room:dead', info='here')")
        first, second, victim = clients
        await until(first, "server.presence('room:dead')", lambda members: len(members) == 3)
        waiting = asyncio.ensure_future(second.ask(f"server.wait_closed({victim.fd})"))
        hosts[2].kill_all()
        killed = time.monotonic()
        # What is sent to it meanwhile is lost; the others go on.
        await first.ask(f"server.push({victim.fd}, 'to the dead')")
        await first.ask(f"server.push({second.fd}, 'to the living')")
        assert await second.receive() == "to the living"
        await until(first, "[host.number for host in server.hosts()]", lambda numbers: len(numbers) == 2)
        for client in (first, second):
            await until(client, "server.presence('room:dead')", lambda members: str(victim.fd) not in members)
            took = time.monotonic() - killed
            assert took < NO_GHOSTS, f"a ghost was there for {took:.1f} s"
        assert await first.ask(f"server.push({victim.fd}, 'to the dead')") is False
        assert await asyncio.wait_for(waiting, PATIENCE) is None
        await leave_is_told_once(hosts, victim)


async def leave_is_told_once(hosts: Hosts, victim: HubClient) -> None:
    """Wait for the leave of a connection, which must have been told once, after its join."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = map(json.loads, hosts.members_log.read_text().splitlines())
        events = [event for event, _, fd, *_ in lines if fd == victim.fd]
        if "leave" in events:
            break
        assert time.monotonic() < deadline, "the leave was not told"
        await asyncio.sleep(0.05)
    assert events == ["join", "leave"]


async def test_a_host_that_is_frozen_for_longer_than_its_lease_wakes_up_with_another_number(
    redis: RedisServer, start_hosts: StartHosts
) -> None:
    hosts = start_hosts(*[redis.url()] * 2)
    await hosts.know_each_other()
    async with hosts.clients() as (first, second):
        number = number_of(second.fd)
        await second.ask("server.join(fd, 'room:frozen', info='asleep')")
        await until(first, "server.presence('room:frozen')", lambda members: str(second.fd) in members)
        begin = time.monotonic()
        with hosts[1].frozen():
            # Others count it as dead, and take its number.
            while redis.keys(f"*lease:{number}"):
                assert time.monotonic() - begin < LEASE + 5, "the lease does not end"
                await asyncio.sleep(0.1)
            await until(first, "server.presence('room:frozen')", lambda members: not members)
            redis.ask("SET", f"hubbub:lease:{number}", "of-another-host", "PX", 60_000)
        async with asyncio.timeout(PATIENCE):
            await second.ends()
        assert second.close_code == 1012
        # It takes clients again, in another name.
        again = await hosts.connect()
        deadline = time.monotonic() + PATIENCE
        while number_of(again.fd) in (number, number_of(first.fd)):
            assert number_of(again.fd) != number, "an id in the name of another host"
            assert time.monotonic() < deadline, "the host does not come back"
            again.abort()
            again = await hosts.connect()
        assert await first.ask(f"server.push({again.fd}, 'welcome back')") is True
        assert await asyncio.wait_for(again.receive(), PATIENCE) == "welcome back"
        again.abort()
        await leave_is_told_once(hosts, second)


async def test_a_host_that_is_frozen_for_less_than_its_lease_keeps_its_connections(
    redis: RedisServer, start_hosts: StartHosts
) -> None:
    hosts = start_hosts(*[redis.url()] * 2)
    async with bystanding(hosts) as bystanders:
        with hosts[1].frozen():
            begin = time.monotonic()
            while time.monotonic() - begin < 6:
                await bystanders.local_delivery_goes_on()
        await bystanders.reach_all_hosts()


async def test_a_restarted_host_takes_other_ids(redis: RedisServer, start_hosts: StartHosts) -> None:
    hosts = start_hosts(*[redis.url()] * 2)
    await hosts.know_each_other()
    seen: list[int] = []
    for _ in range(4):
        clients = [await hosts[1].connect() for _ in range(20)]
        seen += [client.fd for client in clients]
        await end(clients)
        hosts[1].kill_all()
        await asyncio.to_thread(hosts[1].restart)
    assert len(set(seen)) == len(seen)


async def test_a_host_that_stops_properly_gets_its_number_back(redis: RedisServer, start_hosts: StartHosts) -> None:
    hosts = start_hosts(*[redis.url()] * 2)
    await hosts.know_each_other()
    async with hosts.clients() as (first, second):
        number = number_of(second.fd)
        last = second.fd
        await asyncio.to_thread(hosts[1].stop)
        await until(first, "len(server.hosts())", lambda count: count == 1)
        await asyncio.to_thread(hosts[1].restart)
    await hosts.know_each_other()
    async with hosts.clients() as (_, again):
        assert number_of(again.fd) == number
        assert again.fd > last


async def test_hosts_with_the_same_name_and_the_same_files_are_two(redis: RedisServer, start_hosts: StartHosts) -> None:
    """As two machines are that were copied from one image, while one of them was running."""
    (original,) = start_hosts(redis.url())
    client = await original.connect()
    (copy,) = start_hosts(None)
    await asyncio.to_thread(copy.stop)
    for file in original.directory.iterdir():
        if file.is_file() and file.name not in ("log", copy.control.name):
            shutil.copy(file, copy.directory / file.name)
    copy.use_broker(redis.url())
    await asyncio.to_thread(copy.restart)
    hosts = Hosts([original, copy], original.directory.parent / "members")
    await hosts.know_each_other()
    async with bystanding(hosts), hosts.clients() as (first, second):
        # The original has kept its number, and its connections.
        assert number_of(first.fd) == number_of(client.fd) != number_of(second.fd)
        assert await client.ask("fd") == client.fd
    client.abort()


def test_no_id_is_given_out_twice_by_five_hosts_that_are_killed_frozen_and_skewed(
    redis_program: str, installed: Callable[..., str]
) -> None:
    installed("faketime")
    with five_hosts(redis_program) as (hosts, redis):
        given = asyncio.run(run(hosts, redis, skewing_library(), turns=8, between=400, sleeps=False))
    assert given.total() > 3_000
