"""Clients of hosts that are in trouble: what must go on, and what must be as before afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hub_client import HubClient, end
from raw_peer import PATIENCE
from several_hosts import WORKERS, Host, Hosts, hears

MIB = 1 << 20
LOCAL = "local"
NEWS = "news"


class Locals:
    """A client of each worker of a host, which must always reach each other."""

    def __init__(self, host: Host, clients: list[HubClient]) -> None:
        self.host = host
        self.clients = clients

    async def reach_each_other(self) -> None:
        """Push, publish and broadcast from each worker to the other, which must arrive whatever other hosts do."""
        for sender in self.clients:
            for receiver in self.clients:
                if receiver is sender:
                    continue
                calls = [
                    ["push", receiver.fd, "pushed"],
                    ["publish", f"{LOCAL}:{self.host.port}", "published"],
                    ["unsubscribe", receiver.fd, f"{LOCAL}:{self.host.port}"],
                    ["subscribe", receiver.fd, f"{LOCAL}:{self.host.port}"],
                    ["push", receiver.fd, "pushed again"],
                ]
                before = time.monotonic()
                await sender.ask(f"call({calls!r})")
                assert [await hears_but_news(receiver) for _ in range(3)] == ["pushed", "published", "pushed again"]
                assert await hears_but_news(sender) == "published"
                took = time.monotonic() - before
                assert took < PATIENCE / 3, f"a push inside the host took {took:.1f} s"


async def hears_but_news(client: HubClient) -> str:
    """Return the next message that is not of the other hosts."""
    while (text := await hears(client)).startswith(NEWS):
        pass
    return text


class Bystanders:
    """Clients of each worker of some hosts, subscribed to `NEWS` too."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.of: list[Locals] = []
        self._number = 0

    async def enter(self) -> None:
        """Connect them all."""
        for host in self.hosts:
            clients: list[HubClient] = []
            for worker_id in range(WORKERS):
                clients.append(await connect_to(host, worker_id, f"{NEWS},{LOCAL}:{host.port}"))
            self.of.append(Locals(host, clients))

    async def leave(self) -> None:
        """End them all."""
        await end(client for each in self.of for client in each.clients)

    async def local_delivery_goes_on(self) -> None:
        """Assert that the clients of each host that runs reach each other."""
        for each in self.of:
            if each.host.is_running:
                await each.reach_each_other()

    async def reach_all_hosts(self, within: float = PATIENCE) -> float:
        """Publish in each host until a message has reached all others, and return how many seconds that took."""
        begin = time.monotonic()
        for source in self.of:
            while True:
                self._number += 1
                text = f"{NEWS} {self._number}"
                await source.clients[0].ask(f"server.publish({NEWS!r}, {text!r})")
                heard = [await self._hears(client, text) for each in self.of for client in each.clients]
                if all(heard):
                    break
                took = time.monotonic() - begin
                missing = [
                    (place // WORKERS, place % WORKERS) for place, has_heard in enumerate(heard) if not has_heard
                ]
                assert took < within, f"after {took:.0f} s host {self.of.index(source)} does not reach {missing}"
        return time.monotonic() - begin

    async def _hears(self, client: HubClient, text: str) -> bool:
        try:
            async with asyncio.timeout(0.5):
                while await client.receive() != text:
                    pass
        except TimeoutError:
            return False
        return True


async def connect_to(host: Host, worker_id: int, topics: str = "") -> HubClient:
    """Connect to a worker of a host."""
    others: list[HubClient] = []
    try:
        while True:
            client = await host.connect(topics=topics)
            if client.worker_id == worker_id:
                return client
            others.append(client)
    finally:
        await end(others)


@asynccontextmanager
async def bystanding(hosts: Hosts, growth: int = 16 * MIB) -> AsyncIterator[Bystanders]:
    """Have bystanders for a block; at its end all hosts must be healthy and reach each other.

    The masters may not have grown by more than `growth` bytes, no id may have been given out twice, and the clients
    must still be connected.
    """
    await hosts.know_each_other()
    bystanders = Bystanders(hosts)
    await bystanders.enter()
    await bystanders.reach_all_hosts()
    memory = [host.memory() for host in hosts]
    yield bystanders
    await asyncio.to_thread(hosts.become_healthy)
    await bystanders.reach_all_hosts()
    await bystanders.local_delivery_goes_on()
    for host, before in zip(hosts, memory, strict=True):
        grown = host.memory() - before
        assert grown < growth, f"the master of the host at port {host.port} has grown by {grown:,} bytes"
    for each in bystanders.of:
        for client in each.clients:
            assert not client.ended.done(), f"a connection of the host at port {each.host.port} has ended"
    ids = [client.fd for client in hosts.connected]
    assert len(set(ids)) == len(ids), "an id was given out twice"
    await bystanders.leave()


async def flood(bystanders: Bystanders, messages: int, size: int = 1000) -> None:
    """Publish to other hosts and push to their connections, so much that not everything can wait."""
    for source in bystanders.of:
        if source.host.is_running:
            others = [each.clients[0].fd for each in bystanders.of if each is not source]
            await source.clients[0].ask(f"flood({others!r}, 'flood', {size}, {messages})")
