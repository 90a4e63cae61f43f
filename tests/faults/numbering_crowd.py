"""An exact model of a server under faults: a crowd of clients that number every message; each must arrive once."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

from hub_client import HubClient, Lost
from raw_peer import PATIENCE

from hubbub import Publisher

# Topics, each with a tenth of the clients; all clients also subscribe to "all".
GROUPS = [f"group{number}" for number in range(10)]
MARKER = "marker"
# Stands for a publisher, in place of a member's number.
OUTSIDE = -1


class Servers(Protocol):
    """A server, or several that are one."""

    async def connect(self, **how: Any) -> HubClient:
        """Connect to whichever worker."""


class Member:
    """One connection of the crowd, with the numbers of the messages sent to it and received by it, by sender."""

    client: HubClient

    def __init__(self, number: int) -> None:
        self.number = number
        self.group = random.choice(GROUPS)
        self.answered = 0
        """The server has confirmed that it carried out the messages below this number."""
        self.expected: defaultdict[int, list[int]] = defaultdict(list)
        self.received: defaultdict[int, list[int]] = defaultdict(list)
        self.strays: list[str] = []
        self.markers: asyncio.Queue[str] = asyncio.Queue()
        self.addresses = {"all", self.group}
        """What this member's messages may be addressed to."""

    async def enter(self, servers: Servers) -> None:
        self.client = await servers.connect(topics=f"all,{self.group}", hear=self._hear)
        self.addresses.add(str(self.client.fd))

    @property
    def is_open(self) -> bool:
        return not self.client.ended.done()

    async def hears_marker(self) -> None:
        """Wait for the next marker."""
        marker = asyncio.ensure_future(self.markers.get())
        either: list[asyncio.Future[Any]] = [marker, self.client.ended]
        await asyncio.wait(either, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert marker.done(), (
            f"no marker came to member {self.number}, which is {'still' if self.is_open else 'not'} open"
        )

    def _hear(self, message: str) -> None:
        if message == MARKER:
            self.markers.put_nowait(message)
            return
        sender, number, address = message.split()
        self.received[int(sender)].append(int(number))
        if address not in self.addresses:
            self.strays.append(message)


class Crowd:
    """A publisher, and clients that send each other numbered messages, and reconnect when their worker has died."""

    def __init__(self, servers: Servers, hub: Publisher, clients: int) -> None:
        """Call `take_part` once for each of the `clients`."""
        self.members: list[Member] = []
        self.open: list[Member] = []
        self.gone: list[int] = []
        """Ids whose worker is dead and has been replaced."""
        self.sent = 0
        self.sent_by: defaultdict[int, int] = defaultdict(int)
        """By the sender's number."""
        self.is_enough = False
        self._servers = servers
        self._hub = hub
        self._clients = clients
        self._changed = asyncio.Event()
        self._refused: list[tuple[int, Member, int]] = []
        """Pushes that the server refused: sender, receiver and number."""
        self._sent_to_gone: list[int] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; check it whenever a member has entered, left or sent something."""
        while not condition():
            self._changed.clear()
            async with asyncio.timeout(PATIENCE):
                await self._changed.wait()

    async def until_sent(self, count: int) -> None:
        """Wait until so many more messages have been sent."""
        last = self.sent + count
        await self.until(lambda: self.sent >= last)

    def is_complete(self) -> bool:
        return len(self.open) == self._clients and all(member.is_open for member in self.open)

    async def take_part(self) -> None:
        """Connect, send until the connection is lost, and connect again. If connecting fails, so does the test."""
        while not self.is_enough:
            member = Member(len(self.members))
            self.members.append(member)
            await member.enter(self._servers)
            self.open.append(member)
            try:
                while not self.is_enough:
                    self._changed.set()
                    await self._say_something(member)
                    member.answered = self.sent_by[member.number]
            except Lost:
                self.open.remove(member)
                self._changed.set()

    async def _say_something(self, sender: Member) -> None:
        self.sent += 1
        chance = random.random()
        if chance < 0.05:
            self._publish_from_outside()
        number = self._take_number(sender.number)
        if chance < 0.02 and self.gone:
            fd = random.choice(self.gone)
            if await sender.client.ask(f"server.push({fd}, '{sender.number} {number} {fd}')"):
                self._sent_to_gone.append(fd)
        elif chance < 0.2:
            topic = self._expect_by_topic(sender.number, number)
            await sender.client.ask(f"server.publish('{topic}', '{sender.number} {number} {topic}')")
        else:
            receiver = random.choice(self.open)
            receiver.expected[sender.number].append(number)
            fd = receiver.client.fd
            if not await sender.client.ask(f"server.push({fd}, '{sender.number} {number} {fd}')"):
                self._refused.append((sender.number, receiver, number))

    def _take_number(self, sender: int) -> int:
        """Return the number of the sender's next message."""
        number = self.sent_by[sender]
        self.sent_by[sender] += 1
        return number

    def _publish_from_outside(self) -> None:
        number = self._take_number(OUTSIDE)
        topic = self._expect_by_topic(OUTSIDE, number)
        self._hub.publish(topic, f"{OUTSIDE} {number} {topic}")

    def _expect_by_topic(self, sender: int, number: int) -> str:
        """Choose a topic, and expect a message on it."""
        topic = random.choice([*GROUPS, "all"])
        for member in self.open:
            if topic in ("all", member.group):
                member.expected[sender].append(number)
        return topic

    async def settle(self) -> None:
        """Wait until everything sent by living processes has arrived: each worker sends a marker afterwards."""
        await asyncio.to_thread(self._hub.close)
        senders = {member.client.pid: member.client for member in self.open}
        for client in senders.values():
            await client.ask(f"server.publish('all', '{MARKER}')")
        for member in self.open:
            for _ in senders:
                await member.hears_marker()

    def may_be_lost(self, sender: int, receiver: Member, number: int) -> bool:
        """Return whether a message may be lost although neither its sender nor its receiver was."""
        return False

    def check(self, *, answers_count: bool) -> int:
        """Assert that all due messages have arrived once and in order, and no others; return how many there were.

        Args:
            answers_count: Whether no worker was killed. Then a message that the server has confirmed arrives at all
                members that are still connected, even if its sender's worker has left.
        """
        assert not self._sent_to_gone
        for refused in self._refused:
            assert refused[1] not in self.open or self.may_be_lost(*refused), "a push to an open connection was refused"
        living = {OUTSIDE, *(member.number for member in self.open)}
        arrived = 0
        for member in self.members:
            assert not member.strays
            for sender in member.expected.keys() | member.received.keys():
                expected, received = member.expected[sender], member.received[sender]
                assert received == sorted(set(received)), "twice, or not in order"
                # A topic's messages may arrive before `open` contains the member.
                received = [number for number in received if expected and number >= expected[0]]
                arrivals = set(received)
                expected = [n for n in expected if n in arrivals or not self.may_be_lost(sender, member, n)]
                if {sender, member.number} <= living:
                    must_arrive = len(expected)
                else:
                    # If the sender or the receiver has left, the last messages may be lost, but none before those.
                    must_arrive = len(received)
                    if answers_count and member.number in living:
                        certain = sum(number < self.members[sender].answered for number in expected)
                        assert must_arrive >= certain, "a message that was carried out is lost"
                assert received == expected[:must_arrive], (
                    f"of {sender}'s messages, {sorted({*expected[:must_arrive]} ^ arrivals)} are missing at member "
                    f"{member.number}, or are too many"
                )
                arrived += must_arrive
        return arrived
