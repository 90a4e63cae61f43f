"""The crowd of `faults/numbering_crowd.py` over several hosts; its clients also subscribe and disconnect each other."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from hub_client import HubClient, Lost, Refused, end
from numbering_crowd import GROUPS, OUTSIDE, Crowd, Member
from raw_peer import PATIENCE
from redis_server import RedisServer
from relay import Relay
from several_hosts import WORKERS, Hosts, number_of

from hubbub import Publisher

DISCONNECTED = 4001
# Seconds after which an outside publisher's message has certainly left its process.
UNANSWERED = 1.0
# Seconds within which a beat must be heard from everywhere, or is repeated.
BEAT = 2.0


@dataclass
class Window:
    """A time in which messages between hosts may be lost."""

    begin: float
    end: float = float("inf")


class Observers:
    """A client of each worker of each host, subscribed to everything, so that all hosts get all messages.

    A subscription of the first subscriber of a host takes effect when Redis has heard of it. With these, those of all
    others take effect at once, and so the model is exact.
    """

    def __init__(self, hosts: Hosts, topics: list[str]) -> None:
        self._hosts = hosts
        self._topics = topics
        self._clients: dict[int, HubClient] = {}
        self._heard: Counter[tuple[int, int, int]] = Counter()
        """Beats by the place that has heard it, the place that it comes from, and its number."""
        self._number = 0
        self._has_heard = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.join()
        await self.beats_are_heard()
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._clients.values())

    async def join(self) -> None:
        """Connect to each worker that has no observer."""
        for place in range(len(self._hosts) * WORKERS):
            if place in self._clients and not self._clients[place].ended.done():
                continue
            async with asyncio.timeout(PATIENCE):
                while True:
                    with suppress(Lost, OSError, Refused):
                        self._clients[place] = await self._connect(place)
                        break
                    await asyncio.sleep(0.02)

    async def _connect(self, place: int) -> HubClient:
        host, worker_id = divmod(place, WORKERS)
        others = []
        try:
            while True:
                client = await self._hosts[host].connect(hear=lambda text: self._hear(place, text))
                if client.worker_id == worker_id:
                    break
                others.append(client)
        finally:
            await end(others)
        await client.ask(f"[server.subscribe(fd, topic) for topic in {['beat', *self._topics]!r}] and None")
        return client

    def _hear(self, place: int, text: str) -> None:
        if text.startswith("beat "):
            _, source, number = text.split()
            self._heard[place, int(source), int(number)] += 1
            self._has_heard.set()

    async def beat(self, within: float = BEAT) -> float | None:
        """Publish in each worker, and wait until every worker has heard it from each.

        What these workers had sent before has crossed to all hosts by then.

        Returns:
            When this began; `None` if something was not heard in time.
        """
        self._number += 1
        number, begin = self._number, time.monotonic()
        places = list(self._clients)
        expected = {(place, source, number) for place in places for source in places}
        try:
            async with asyncio.timeout(within):
                await asyncio.gather(
                    *(
                        client.ask(f"server.publish('beat', 'beat {place} {number}')")
                        for place, client in self._clients.items()
                    )
                )
                while expected - self._heard.keys():
                    self._has_heard.clear()
                    await self._has_heard.wait()
        except (TimeoutError, Lost):
            return None
        return begin

    async def beats_are_heard(self, within: float = PATIENCE) -> float:
        """Beat until a beat is heard everywhere, and return when that one began."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            await self.join()
            if begin := await self.beat():
                return begin
        missing = {
            (place, source)
            for place in self._clients
            for source in self._clients
            if not self._heard[place, source, self._number]
        }
        raise AssertionError(f"these do not hear these workers (counted over all hosts): {sorted(missing)}")

    def check(self) -> None:
        """Assert that no beat came twice."""
        assert max(self._heard.values()) == 1, "a beat came twice"


class HostsCrowd(Crowd):
    """Clients of several hosts that push, publish, subscribe and disconnect, and reconnect when their host has died."""

    def __init__(self, hosts: Hosts, hub: Publisher, clients: int) -> None:
        super().__init__(hosts, hub, clients)
        self.windows: list[Window] = []
        self.slots = [f"slot:{number}" for number in range(clients)]
        """A topic for each client that sends, in which only it publishes."""
        self._free = list(self.slots)
        self._slot_of: dict[int, str] = {}
        self._begun: dict[tuple[int, int], float] = {}
        """When messages were sent, by sender and number."""
        self._answered: dict[tuple[int, int], float] = {}
        self.lost = 0
        self.disconnects = True
        """Whether members disconnect each other."""

    async def take_part(self) -> None:
        slot = self._free.pop()
        task = asyncio.current_task()
        assert task
        self._slot_of[id(task)] = slot
        await super().take_part()

    def _take_number(self, sender: int) -> int:
        number = super()._take_number(sender)
        now = time.monotonic()
        self._begun[sender, number] = now
        if sender == OUTSIDE:
            self._answered[sender, number] = now + UNANSWERED
        return number

    async def _say_something(self, sender: Member) -> None:
        first = self.sent_by[sender.number]
        chance = random.random()
        if chance < 0.1:
            await self._mix(sender)
        elif chance < 0.105 and self.disconnects:
            await self._disconnect(sender)
        else:
            await super()._say_something(sender)
        now = time.monotonic()
        for number in range(first, self.sent_by[sender.number]):
            self._answered[sender.number, number] = now

    async def _mix(self, sender: Member) -> None:
        """Push, subscribe, publish, unsubscribe and push: the receiver gets all three messages in this order."""
        task = asyncio.current_task()
        assert task
        topic = self._slot_of[id(task)]
        receiver = random.choice(self.open)
        fd = receiver.client.fd
        numbers = [self._take_number(sender.number) for _ in range(3)]
        self.sent += 3
        receiver.addresses.add(topic)
        receiver.expected[sender.number] += numbers
        calls = [
            ["push", fd, f"{sender.number} {numbers[0]} {fd}"],
            ["subscribe", fd, topic],
            ["publish", topic, f"{sender.number} {numbers[1]} {topic}"],
            ["unsubscribe", fd, topic],
            ["push", fd, f"{sender.number} {numbers[2]} {fd}"],
        ]
        results = await sender.client.ask(f"call({calls!r})")
        self._refused += [
            (sender.number, receiver, number)
            for number, result in zip(numbers[::2], results[::4], strict=True)
            if not result
        ]

    async def _disconnect(self, sender: Member) -> None:
        """Push and disconnect: the receiver gets the message before its end."""
        receiver = random.choice(self.open)
        if receiver is sender:
            return
        fd, number = receiver.client.fd, self._take_number(sender.number)
        self.sent += 1
        receiver.expected[sender.number].append(number)
        calls = [
            ["push", fd, f"{sender.number} {number} {fd}"],
            ["disconnect", fd, DISCONNECTED, f"{sender.number} {number}"],
        ]
        await sender.client.ask(f"call({calls!r})")

    def host_of(self, number: int) -> int:
        """Return the number of a member's host; of the first if the member is outside."""
        return 0 if number == OUTSIDE else number_of(self.members[number].client.fd)

    def may_be_lost(self, sender: int, receiver: Member, number: int) -> bool:
        """Return whether a message went to another host while messages may be lost."""
        if sender != OUTSIDE and self.host_of(sender) == number_of(receiver.client.fd):
            return False
        begun = self._begun[sender, number]
        answered = self._answered.get((sender, number), float("inf"))
        if any(begun <= window.end and answered >= window.begin for window in self.windows):
            self.lost += 1
            return True
        return False

    def check(self, *, answers_count: bool) -> int:
        arrived = super().check(answers_count=answers_count)
        disconnected = [member for member in self.members if member.client.close_code == DISCONNECTED]
        for member in disconnected:
            sender, number = map(int, member.client.close_reason.split())
            assert number in member.received[sender], f"what {sender} pushed before its disconnect is lost"
        return arrived


@dataclass
class Faulty:
    """What a fault can disturb."""

    hosts: Hosts
    redis: RedisServer
    relay: Relay
    """Between the second host and Redis."""
    crowd: HostsCrowd
    observers: Observers
    turn: int = 0


Fault = Callable[[Faulty], Awaitable[None]]


@dataclass(frozen=True)
class Outcome:
    """The comparisons of a run."""

    sent: int
    arrived: int
    lost: int
    """In windows in which messages between hosts may be lost."""
    disconnected: int
    connections: int


async def run(
    hosts: Hosts,
    redis: RedisServer,
    relay: Relay,
    fault: Fault,
    *,
    clients: int,
    messages: int,
    turns: int = 1,
    loses: bool = False,
) -> Outcome:
    """Have a crowd send so many messages between faults, and compare those that have arrived with those due.

    Args:
        hosts: The servers.
        redis: Theirs.
        relay: The way of the second host to Redis.
        fault: Awaited once each turn; after it the hosts must reach each other.
        clients: How many there are at any time.
        messages: So many are sent before each fault, and after the last one.
        turns: How many faults there are.
        loses: Whether messages between hosts may be lost from the beginning of the fault until they are healthy again.

    Raises:
        AssertionError: Something is missing, came twice, in another order, or to the wrong client.
    """
    topics = ["all", *GROUPS]
    with hosts.publisher() as hub:
        crowd = HostsCrowd(hosts, hub, clients)
        async with Observers(hosts, [*topics, *crowd.slots]) as observers:
            faulty = Faulty(hosts, redis, relay, crowd, observers)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(clients):
                    tasks.create_task(crowd.take_part())
                for faulty.turn in range(turns):
                    await crowd.until(crowd.is_complete)
                    await crowd.until_sent(messages)
                    begin = await observers.beats_are_heard()
                    if loses:
                        crowd.windows.append(Window(begin))
                    await fault(faulty)
                    await asyncio.to_thread(hosts.become_healthy)
                    await observers.beats_are_heard()
                    if loses:
                        crowd.windows[-1].end = time.monotonic()
                # Each member that is open in the end must have heard everything.
                crowd.disconnects = False
                await observers.beats_are_heard()
                await crowd.until(crowd.is_complete)
                await crowd.until_sent(messages)
                crowd.is_enough = True
            await crowd.settle()
            observers.check()
            arrived = crowd.check(answers_count=False)
    ids = [client.fd for client in hosts.connected]
    assert len(set(ids)) == len(ids), "an id was given out twice"
    disconnected = sum(member.client.close_code == DISCONNECTED for member in crowd.members)
    await end(member.client for member in crowd.open)
    return Outcome(crowd.sent, arrived, crowd.lost, disconnected, len(ids))
