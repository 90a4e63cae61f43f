"""An exact model of a server under faults: a crowd of clients whose every message is numbered, and must arrive once."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from hub_client import HubClient, Lost
from hub_server import HubServer
from raw_peer import PATIENCE

from hubbub import Publisher

# Topics of a tenth of the clients each; all have the topic "all" too.
GROUPS = [f"group{number}" for number in range(10)]
MARKER = "marker"
# Instead of a member's number, for what a publisher has sent.
OUTSIDE = -1


class Member:
    """One connection of the crowd, with what has been sent to it and what has arrived: numbers by sender."""

    client: HubClient

    def __init__(self, number: int) -> None:
        self.number = number
        self.group = random.choice(GROUPS)
        self.sent = 0
        self.answered = 0
        """Its messages below this number were carried out: the server said so."""
        self.expected: defaultdict[int, list[int]] = defaultdict(list)
        self.received: defaultdict[int, list[int]] = defaultdict(list)
        self.strays: list[str] = []
        self.markers: asyncio.Queue[str] = asyncio.Queue()
        self._addresses = {"all", self.group}

    async def enter(self, server: HubServer) -> None:
        self.client = await server.connect(topics=f"all,{self.group}", hear=self._hear)
        self._addresses.add(str(self.client.fd))

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
        if address not in self._addresses:
            self.strays.append(message)


class Crowd:
    """Clients that send each other numbered messages, and come again when their worker has died; and a publisher."""

    def __init__(self, server: HubServer, hub: Publisher, clients: int) -> None:
        """Call `take_part` once for each of the `clients`."""
        self.members: list[Member] = []
        self.open: list[Member] = []
        self.gone: list[int] = []
        """Ids whose worker is dead and has been replaced."""
        self.sent = 0
        self.is_enough = False
        self._server = server
        self._hub = hub
        self._clients = clients
        self._sent_from_outside = 0
        self._changed = asyncio.Event()
        self._refused: list[Member] = []
        self._sent_to_gone: list[int] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that is so after a member has entered, left or said something."""
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
        """Be one member after the other, each as soon as the last one is lost. An attempt that fails fails the test."""
        while not self.is_enough:
            member = Member(len(self.members))
            self.members.append(member)
            await member.enter(self._server)
            self.open.append(member)
            try:
                while not self.is_enough:
                    self._changed.set()
                    await self._say_something(member)
                    member.answered = member.sent
            except Lost:
                self.open.remove(member)
                self._changed.set()

    async def _say_something(self, sender: Member) -> None:
        self.sent += 1
        chance = random.random()
        if chance < 0.05:
            self._publish_from_outside()
        number, sender.sent = sender.sent, sender.sent + 1
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
                self._refused.append(receiver)

    def _publish_from_outside(self) -> None:
        number, self._sent_from_outside = self._sent_from_outside, self._sent_from_outside + 1
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
        """Wait until everything sent by living processes has arrived: each worker sends a marker after it."""
        await asyncio.to_thread(self._hub.close)
        senders = {member.client.worker_id: member.client for member in self.open}
        for client in senders.values():
            await client.ask(f"server.publish('all', '{MARKER}')")
        for member in self.open:
            for _ in senders:
                await member.hears_marker()

    def check(self, *, answers_count: bool) -> int:
        """Assert that what had to arrive has arrived, once and in order, and nothing else; return how many that were.

        Args:
            answers_count: Whether no worker was killed: then a message whose sender was told that it was delivered
                arrives at whoever is still there, though its sender's worker has left.
        """
        assert not self._sent_to_gone
        assert not [member.number for member in self._refused if member in self.open]
        living = {OUTSIDE, *(member.number for member in self.open)}
        arrived = 0
        for member in self.members:
            assert not member.strays
            for sender in member.expected.keys() | member.received.keys():
                expected, received = member.expected[sender], member.received[sender]
                assert received == sorted(set(received)), "twice, or not in order"
                # A topic's messages may come before it is known here that the member is there.
                received = [number for number in received if expected and number >= expected[0]]
                if {sender, member.number} <= living:
                    must_arrive = len(expected)
                else:
                    # From or to those who left something is lost in the end, but nothing before that.
                    must_arrive = len(received)
                    if answers_count and member.number in living:
                        certain = sum(number < self.members[sender].answered for number in expected)
                        assert must_arrive >= certain, "a message that was carried out is lost"
                assert received == expected[:must_arrive]
                arrived += must_arrive
        return arrived
