"""Three servers that are one: each call means the same for a connection of another host as for one's own."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise

import pytest
from hub_client import HubClient
from raw_peer import PATIENCE
from several_hosts import WORKERS, Hosts, hears, number_of, until

from hubbub import Publisher


@pytest.fixture
async def clients(three_hosts: Hosts) -> AsyncIterator[list[HubClient]]:
    """A client of each host."""
    await three_hosts.know_each_other()
    async with three_hosts.clients() as clients:
        ids = sorted(client.fd for client in clients)
        # Those of before are gone.
        await until(clients[0], "server.cluster.connections()", lambda connections: connections == ids)
        yield clients


async def subscribe_all(clients: list[HubClient], topic: str) -> None:
    """Subscribe the clients to a topic, each at its own host, and wait until the others know."""
    for client in clients:
        assert await client.ask(f"server.subscribe(fd, {topic!r})")
    for client in clients:
        await hears_everybody(client, clients, topic)


async def hears_everybody(listener: HubClient, clients: list[HubClient], topic: str) -> None:
    """Wait until a subscriber hears what is published at each of the hosts, and nothing else any more."""
    for number, client in enumerate(clients):
        text = ""
        while text != f"test {number}":
            await client.ask(f"server.publish({topic!r}, 'test {number}', exclude={excluded(clients, listener)})")
            try:
                text = await hears(listener, 0.5)
            except TimeoutError:
                continue
    await until_quiet(listener, clients)


def excluded(clients: list[HubClient], listener: HubClient) -> list[int]:
    return [client.fd for client in clients if client is not listener]


async def until_quiet(listener: HubClient, senders: list[HubClient]) -> None:
    """Read what still comes from these, up to a last push of each."""
    for sender in senders:
        await sender.ask(f"server.push({listener.fd}, 'that is all')")
        while await hears(listener) != "that is all":
            pass


async def test_each_host_has_a_number_of_its_own_and_its_ids_begin_with_it(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    numbers = {number_of(client.fd) for client in clients}
    assert len(numbers) == 3
    assert numbers <= set(range(1, 256))
    for place in range(len(three_hosts) * WORKERS):
        async with three_hosts.client_of(place) as client:
            assert {host["number"] for host in await client.ask("server.hosts()")} == numbers
            assert number_of(client.fd) == number_of(clients[place // WORKERS].fd)


async def test_the_hosts_are_listed_with_their_names_ages_and_connections(clients: list[HubClient]) -> None:
    for client in clients:
        hosts = await until(
            client, "server.hosts()", lambda hosts: [host["connections"] for host in hosts] == [1] * len(clients)
        )
        for host in hosts:
            assert host["name"]
            assert host["age"] >= 0
            assert host["started_at"] > 1_700_000_000


async def test_a_push_reaches_a_connection_of_another_host(clients: list[HubClient]) -> None:
    for sender in clients:
        for receiver in clients:
            assert await sender.ask(f"server.push({receiver.fd}, 'to you')") is True
            assert await hears(receiver) == "to you"


async def test_pushes_to_another_host_arrive_in_the_order_of_the_calls(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    assert await sender.ask(f"[server.push({receiver.fd}, str(number)) for number in range(1000)] == [True] * 1000")
    heard = [int(await hears(receiver)) for _ in range(1000)]
    assert heard == list(range(1000))


async def test_a_large_push_arrives_whole(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    assert await sender.ask(f"server.push({receiver.fd}, 'x' * 3_000_000)")
    assert await hears(receiver) == "x" * 3_000_000


async def test_a_push_to_a_host_that_does_not_exist_is_false(clients: list[HubClient]) -> None:
    used = {number_of(client.fd) for client in clients}
    unused = next(number for number in range(1, 256) if number not in used)
    assert await clients[0].ask(f"server.push({unused << 45 | 1 << 38 | 7}, 'to nobody')") is False


async def test_ids_that_no_host_can_have_get_nothing(clients: list[HubClient]) -> None:
    for fd in (0, -1, 1 << 53, 1 << 63, (1 << 64) + 5, 10**30):
        assert await clients[0].ask(f"server.push({fd}, 'to nobody')") is False


async def test_a_ping_reaches_a_connection_of_another_host(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    assert await sender.ask(f"server.ping({receiver.fd}, b'are you there')") is True
    await until_quiet(receiver, [sender])
    assert receiver.pings == [b"are you there"]


async def test_a_disconnect_by_another_host_sends_first_what_was_pushed_before(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    calls = [["push", receiver.fd, "first"], ["disconnect", receiver.fd, 4123, "by another host"]]
    assert await sender.ask(f"call({calls!r})") == [True, True]
    await asyncio.wait_for(receiver.ends(), 30)
    assert receiver.received() == "first"
    assert (receiver.close_code, receiver.close_reason) == (4123, "by another host")


async def test_a_host_subscribes_and_unsubscribes_connections_of_another(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    await subscribe_all(clients, "ours")
    for client in clients:
        await client.ask("server.unsubscribe(fd, 'ours')")
    calls = [
        ["publish", "ours", "too early"],
        ["subscribe", receiver.fd, "ours"],
        ["publish", "ours", "in time"],
        ["unsubscribe", receiver.fd, "ours"],
        ["publish", "ours", "too late"],
        ["push", receiver.fd, "the end"],
    ]
    await sender.ask(f"call({calls!r})")
    assert [await hears(receiver) for _ in range(2)] == ["in time", "the end"]


async def test_a_subscription_by_another_host_takes_effect_even_if_nobody_there_had_the_topic(
    clients: list[HubClient],
) -> None:
    sender, receiver, _ = clients
    assert await sender.ask(f"server.subscribe({receiver.fd}, 'new here')") is True
    await hears_everybody(receiver, [sender], "new here")


async def test_a_publish_reaches_each_subscriber_of_each_host_once_except_the_excluded(
    clients: list[HubClient],
) -> None:
    await subscribe_all(clients, "news")
    for sender in clients:
        await sender.ask(f"server.publish('news', 'all of you', exclude=[{clients[2].fd}])")
        await sender.ask("server.publish('news', 'really all')")
        for client in clients[:2]:
            assert [await hears(client) for _ in range(2)] == ["all of you", "really all"]
        assert await hears(clients[2]) == "really all"
    for client in clients:
        await until_quiet_and_empty(client, clients)


async def until_quiet_and_empty(listener: HubClient, senders: list[HubClient]) -> None:
    """Assert that nothing comes but a last push of each sender."""
    for sender in senders:
        await sender.ask(f"server.push({listener.fd}, 'that is all')")
        assert await hears(listener) == "that is all"


async def test_a_broadcast_reaches_each_connection_of_each_host_once_except_the_excluded(
    clients: list[HubClient],
) -> None:
    for sender in clients:
        await sender.ask(f"server.broadcast('to all', exclude=[{clients[1].fd}])")
        for client in (clients[0], clients[2]):
            assert await hears(client) == "to all"
        await until_quiet_and_empty(clients[1], clients)


async def test_bytes_dicts_and_text_cross_as_they_are(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    await sender.ask(f"server.push({receiver.fd}, {{'a': ['ü', 1]}})")
    assert await hears(receiver) == '{"a":["ü",1]}'
    await sender.ask(f"server.push({receiver.fd}, b'in bytes')")
    assert await hears(receiver) == "in bytes"


async def test_send_to_another_host_arrives_and_is_true(clients: list[HubClient]) -> None:
    sender, receiver, _ = clients
    assert await sender.ask(f"server.send({receiver.fd}, 'sent')") is True
    assert await hears(receiver) == "sent"


async def test_send_to_what_is_not_open_on_another_host_is_false(three_hosts: Hosts, clients: list[HubClient]) -> None:
    gone = await three_hosts[1].connect()
    gone.abort()
    await until(clients[1], f"server.exists({gone.fd})", lambda is_open: not is_open)
    for fd in (gone.fd, clients[1].fd + 1000):
        async with asyncio.timeout(PATIENCE):
            assert await clients[0].ask(f"all_of(server.send({fd}, 'hello') for _ in range(3))") == [False] * 3


async def test_wait_closed_returns_when_a_connection_of_another_host_has_ended(clients: list[HubClient]) -> None:
    waiter, closing, _ = clients
    waiting = asyncio.ensure_future(waiter.ask(f"server.wait_closed({closing.fd})"))
    # The question has arrived at the other host when a later push of the same worker has.
    await waiter_is_asking(waiting, closing)
    closing.abort()
    assert await asyncio.wait_for(waiting, 30) is None


async def waiter_is_asking(waiting: asyncio.Future[None], closing: HubClient) -> None:
    assert await closing.ask("1") == 1
    assert not waiting.done(), "wait_closed returned for a connection that is open"


async def test_wait_closed_returns_at_once_for_a_connection_that_has_ended(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    gone = await three_hosts[1].connect()
    gone.abort()
    await until(clients[1], f"server.exists({gone.fd})", lambda exists: not exists)
    assert await asyncio.wait_for(clients[0].ask(f"server.wait_closed({gone.fd})"), 30) is None


def publisher(hosts: Hosts, place: int) -> Publisher:
    return hosts[place].publisher()


async def test_a_publisher_at_one_host_reaches_connections_of_another_and_learns_the_truth(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    _, receiver, _ = clients
    gone = await three_hosts[1].connect()
    gone.abort()
    await until(clients[1], f"server.exists({gone.fd})", lambda exists: not exists)
    with publisher(three_hosts, 0) as hub:
        assert await asyncio.to_thread(hub.push, receiver.fd, "from outside") is True
        assert await hears(receiver) == "from outside"
        assert await asyncio.to_thread(hub.push, gone.fd, "to nobody") is False
        for number in range(100):
            assert await asyncio.to_thread(hub.push, receiver.fd, str(number))
    assert [int(await hears(receiver)) for _ in range(100)] == list(range(100))


async def test_a_publisher_publishes_broadcasts_and_disconnects_over_hosts(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    await subscribe_all(clients, "outside")
    with publisher(three_hosts, 2) as hub:
        await asyncio.to_thread(hub.publish, "outside", "published")
        await asyncio.to_thread(hub.broadcast, "broadcast")
        await asyncio.to_thread(hub.push, clients[0].fd, "bye")
        assert await asyncio.to_thread(hub.disconnect, clients[0].fd, 4001, "from outside")
    for client in clients:
        assert [await hears(client) for _ in range(2)] == ["published", "broadcast"]
    await asyncio.wait_for(clients[0].ends(), 30)
    assert clients[0].received() == "bye"
    assert clients[0].close_code == 4001


# ---- looking ---------------------------------------------------------------------------------------------


async def test_looking_tells_of_this_host_and_cluster_of_all(three_hosts: Hosts, clients: list[HubClient]) -> None:
    ids = sorted(client.fd for client in clients)
    for client in clients:
        assert await client.ask("list(server.connections)") == [client.fd]
        assert await client.ask(f"[server.exists(fd) for fd in {ids}]") == [fd == client.fd for fd in ids]
        assert await client.ask("server.cluster.connections()") == ids
        for other in clients:
            assert await client.ask(f"server.cluster.exists({other.fd})") is True
            assert (await client.ask(f"server.cluster.info({other.fd})"))["client"][1] == other.port
        assert await client.ask(f"server.cluster.exists({clients[0].fd + 1000})") is False
        assert await client.ask(f"server.cluster.info({clients[0].fd + 1000})") is None


async def test_the_subscribers_and_topics_of_all_hosts_are_counted(clients: list[HubClient]) -> None:
    await subscribe_all(clients, "counted")
    ids = sorted(client.fd for client in clients)
    for client in clients:
        assert await client.ask("server.cluster.subscribers('counted')") == 3
        assert sorted(await client.ask("server.cluster.members('counted')")) == ids
        assert (await client.ask("server.cluster.topics(prefix='count')"))["counted"] == 3


async def test_the_statistics_of_all_hosts_are_summed_up(clients: list[HubClient]) -> None:
    assert (await clients[0].ask("server.stats()"))["connections"] == 1
    assert (await clients[0].ask("server.cluster.stats()"))["connections"] == 3


async def test_a_host_that_does_not_answer_is_named_and_the_others_are_counted(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    first, second, third = clients
    with three_hosts[2].frozen():
        assert await first.ask("silent(server.cluster.connections())") == [number_of(third.fd)]
        assert sorted(await first.ask("server.cluster.connections()")) == sorted([first.fd, second.fd])
        answer = await first.ask(f"server.cluster.info({third.fd})")
        assert answer.startswith("TimeoutError"), answer
        assert str(number_of(third.fd)) in answer
    await until(first, "silent(server.cluster.connections())", lambda silent: silent == [])


# ---- topics with memory ----------------------------------------------------------------------------------


async def test_history_is_the_same_from_every_host(clients: list[HubClient]) -> None:
    for number, client in enumerate(clients):
        await client.ask(f"server.publish('room:history', ['host', {number}])")
        # It has an offset once it is in the history.
        await until(client, "texts('room:history')", partial(has_length, number + 1))
    for client in clients:
        assert await client.ask("texts('room:history')") == ['["host",0]', '["host",1]', '["host",2]']
        assert await client.ask("offsets('room:history')") == [1, 2, 3]
    epochs = {await client.ask("epoch('room:history')") for client in clients}
    assert len(epochs) == 1


async def test_a_join_at_any_host_resumes_from_a_position_of_another(clients: list[HubClient]) -> None:
    first, second, third = clients
    await first.ask("server.publish('room:resume', 'a')")
    await until(first, "offsets('room:resume')", lambda offsets: offsets == [1])
    position = (await first.ask("server.join(fd, 'room:resume')"))["position"]
    await second.ask("[server.publish('room:resume', text) for text in 'bcd'] and None")
    await until(second, "offsets('room:resume')", lambda offsets: offsets == [1, 2, 3, 4])
    for client in (second, third):
        joined = await client.ask(f"server.join(fd, 'room:resume', since={position!r})")
        assert (joined["recovered"], joined["count"]) == (True, 3)
        assert [data_of(await hears(client)) for _ in range(3)] == ["b", "c", "d"]
    await third.ask("server.publish('room:resume', 'e')")
    for client, missed in ((first, ["b", "c", "d", "e"]), (second, ["e"]), (third, ["e"])):
        assert [data_of(await hears(client)) for _ in missed] == missed


def has_length(length: int, values: list[str]) -> bool:
    return len(values) == length


def data_of(text: str) -> object:
    """Return what was published, without its envelope."""
    return json.loads(text)["data"]


async def test_all_hosts_get_a_topic_with_history_in_one_order(clients: list[HubClient]) -> None:
    for client in clients:
        await client.ask("server.join(fd, 'room:order')")
    await asyncio.gather(
        *(client.ask(f"publish('room:order', 'host {number}', 0, 200)") for number, client in enumerate(clients))
    )
    heard = [[await hears(client) for _ in range(600)] for client in clients]
    assert heard[0] == heard[1] == heard[2]
    offsets = [json.loads(text)["offset"] for text in heard[0]]
    assert all(later == earlier + 1 for earlier, later in pairwise(offsets))


async def test_forget_at_one_host_is_forgotten_at_all(clients: list[HubClient]) -> None:
    await clients[0].ask("server.publish('room:forget', 'secret')")
    await until(clients[1], "offsets('room:forget')", lambda offsets: offsets == [1])
    before = await clients[0].ask("epoch('room:forget')")
    await clients[2].ask("server.forget('room:forget')")
    for client in clients:
        await until(client, "texts('room:forget')", lambda texts: texts == [])
    assert await clients[1].ask("epoch('room:forget')") != before


async def test_members_are_the_same_from_every_host_and_each_comes_and_goes_once(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    for number, client in enumerate(clients):
        await client.ask(f"server.join(fd, 'room:presence', info={{'host': {number}}})")
    expected = {str(client.fd): {"host": number} for number, client in enumerate(clients)}
    for client in clients:
        await until(client, "server.presence('room:presence')", lambda members: members == expected)
    leaver = clients.pop()
    leaver.abort()
    for client in clients:
        await until(client, "server.presence('room:presence')", lambda members: str(leaver.fd) not in members)
    events: list[str] = []
    while len(events) < 4:
        events = [
            line.split(", ")[0][2:-1] + line.split(", ")[2]
            for line in three_hosts.members_log.read_text().splitlines()
            if "room:presence" in line
        ]
        await asyncio.sleep(0.02)
    joins = sorted(f"join{fd}" for fd in expected)
    assert sorted(events) == sorted([*joins, f"leave{leaver.fd}"])


# ---- the command line ------------------------------------------------------------------------------------


async def test_the_command_line_lists_hosts_and_the_connections_of_all(
    three_hosts: Hosts, clients: list[HubClient]
) -> None:
    control = str(three_hosts[0].control)
    hosts = await command("hosts", "--control", control, "--json")
    for client in clients:
        assert str(number_of(client.fd)) in hosts
    listed = await command("--all-hosts", "connections", "--control", control, "--json")
    for client in clients:
        assert str(client.fd) in listed
    own = await command("connections", "--control", control, "--json")
    assert [str(client.fd) in own for client in clients] == [True, False, False]


async def command(*words: str) -> str:
    """Return what a command of ours prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hubbub", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()
