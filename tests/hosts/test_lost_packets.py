"""The network between hosts and Redis loses everything without a word: on one connection, on both, of one host."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bystanders import bystanding
from raw_peer import PATIENCE
from redis_server import RedisServer
from relay import COMMANDS, SUBSCRIPTIONS, relaying
from several_hosts import NOTICED, StartHosts, hears

# What a busy machine may add to a deadline.
TOLERANCE = 4.0
PROGRAM = Path(__file__).with_name("dropping_network.py")


@pytest.mark.parametrize("case", ["commands", "subscriptions", "one host", "both hosts"])
def test_packets_that_the_kernel_drops_are_missed(in_own_network: list[str], redis_program: str, case: str) -> None:
    run = subprocess.run(
        [*in_own_network, sys.executable, str(PROGRAM), redis_program, case], capture_output=True, text=True, timeout=55
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("kinds", [(COMMANDS,), (SUBSCRIPTIONS,), (COMMANDS, SUBSCRIPTIONS)], ids="+".join)
async def test_a_host_whose_packets_are_lost_notices_it_and_heals(
    redis: RedisServer, start_hosts: StartHosts, kinds: tuple[str, ...]
) -> None:
    with relaying(redis.port) as relay:
        hosts = start_hosts(relay.url(), redis.url())
        async with bystanding(hosts) as bystanders, hosts.clients() as (first, second):
            with relay.holding(*kinds):
                took = await asyncio.to_thread(hosts[0].becomes_degraded)
                assert took < NOTICED + TOLERANCE, f"noticed after {took:.1f} s"
                await bystanders.local_delivery_goes_on()
                assert hosts[1].is_healthy(), "the other host is not affected"
            await bystanders.reach_all_hosts()
            # What comes late out of the old connections must not be out of order.
            for sender, receiver in ((first, second), (second, first)):
                await sender.ask(f"[server.push({receiver.fd}, str(n)) for n in range(500)] and None")
                assert [int(await hears(receiver)) for _ in range(500)] == list(range(500))


async def test_packets_of_all_hosts_are_lost(redis: RedisServer, start_hosts: StartHosts) -> None:
    with relaying(redis.port) as relay:
        hosts = start_hosts(relay.url(), relay.url())
        async with bystanding(hosts) as bystanders:
            with relay.holding(COMMANDS, SUBSCRIPTIONS):
                begin = time.monotonic()
                for host in hosts:
                    await asyncio.to_thread(host.becomes_degraded)
                assert time.monotonic() - begin < NOTICED + TOLERANCE
                await bystanders.local_delivery_goes_on()
            await bystanders.reach_all_hosts()


async def test_the_subscribers_of_other_hosts_are_told_of_a_gap_though_nobody_publishes_again(
    redis: RedisServer, start_hosts: StartHosts
) -> None:
    with relaying(redis.port) as relay:
        hosts = start_hosts(relay.url(), redis.url())
        async with hosts.clients() as clients:
            for client in clients:
                await client.ask("server.join(fd, 'room:gap')")
            await clients[0].ask("server.publish('room:gap', 'before')")
            for client in clients:
                assert json.loads(await hears(client))["data"] == "before"
            with relay.holding(COMMANDS, SUBSCRIPTIONS):
                await asyncio.to_thread(hosts[0].becomes_degraded)
                await clients[0].ask("server.publish('room:gap', 'meanwhile')")
                assert json.loads(await hears(clients[0]))["data"] == "meanwhile"
            async with asyncio.timeout(PATIENCE):
                for client in clients:
                    await client.ends()
            assert [client.close_code for client in clients] == [1013, 1013]


async def test_pushes_stay_in_order_while_packets_are_lost_again_and_again(
    redis: RedisServer, start_hosts: StartHosts
) -> None:
    with relaying(redis.port) as relay:
        hosts = start_hosts(relay.url(), redis.url())
        async with bystanding(hosts) as bystanders, hosts.clients() as (first, second):
            number = 0
            for kinds, seconds in (((COMMANDS,), 0.5), ((SUBSCRIPTIONS,), 0.5), ((COMMANDS,), 6.0)):
                with relay.holding(*kinds):
                    begin = time.monotonic()
                    while time.monotonic() - begin < seconds:
                        await first.ask(f"server.push({second.fd}, '{number}')")
                        await second.ask(f"server.push({first.fd}, '{number}')")
                        number += 1
                await bystanders.reach_all_hosts()
            for sender, receiver in ((first, second), (second, first)):
                await sender.ask(f"server.push({receiver.fd}, '{number}')")
                heard = [-1]
                while heard[-1] != number:
                    heard.append(int(await hears(receiver)))
                assert heard == sorted(set(heard)), "twice, or not in order"
