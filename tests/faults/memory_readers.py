"""Clients that come and go read numbered messages of topics with history: the common part of the models.

Each client must get every message since its position, once and in order, or be told that this is not possible, which
must then be true. Who is in a topic is compared with who joined it.
"""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from hub_client import HubClient, Lost, end
from raw_peer import PATIENCE
from server_process import wait_until

from hubbub import Publisher

ROOMS = [f"room:{number}" for number in range(10)]
HISTORY = 400
OPTIONS = {"history": HISTORY, "seconds": 3600, "envelope": True, "presence": True}
# So small that a client that stops reading for a while is closed.
SETTINGS = {"send_queue_size": 65_536, "close_timeout": 1}
CLIENTS = 200
# So often is a last message published to each topic, if topics may lose their history until then.
SETTLING = 5
PUBLISHERS = 3
# Messages that a publisher publishes at a time.
BATCH = 20


class Servers(Protocol):
    """A servers, or several that are one."""

    @property
    def connected(self) -> list[HubClient]:
        """All clients that have ever received their ids."""

    async def connect(self, **how: Any) -> HubClient:
        """Connect to whichever worker."""

    def client_of(self, worker_id: int, **how: Any) -> AbstractAsyncContextManager[HubClient]:
        """Connect to a worker, for a block."""

    def publisher(self, **how: Any) -> Publisher:
        """Return a publisher to one of them."""


Disturb = Callable[[int], Awaitable[None]]
"""Disturbs the servers for the nth time."""


@dataclass
class Record:
    """What all clients together have seen."""

    messages: dict[tuple[str, str, int], tuple[str, int]] = field(default_factory=dict)
    """By topic, epoch and offset: the publisher and its number."""
    loses_history: bool = False
    """Whether the history may be lost, so that another epoch begins."""
    received: int = 0
    recoveries: int = 0
    recovered: int = 0
    """Messages that were recovered."""
    refusals: int = 0
    """Times that a position was too old, or of another history."""
    unplaced: int = 0
    """Messages received without a place in the history, while the broker was away."""
    joins: dict[int, str] = field(default_factory=dict)
    """The topic that each connection has joined."""

    async def until_received(self, count: int, publishing: "Publishing") -> None:
        """Wait until so many more messages have been received, or all have been published."""
        last = self.received + count
        while publishing.left and self.received < last:  # noqa: ASYNC110 - many readers receive them
            await asyncio.sleep(0.01)


class Reader:
    """One client, over all of its connections."""

    client: HubClient

    def __init__(self, number: int, record: Record, servers: Servers) -> None:
        self.number = number
        self.topic = ROOMS[number % len(ROOMS)]
        self.position: list[Any] | None = None
        """That of the last message, or of the last outcome of a join."""
        self._record = record
        self._servers = servers
        self._asked: list[Any] | None = None
        self._early: list[tuple[str, int]] = []
        """Positions of messages that came before the outcome of the join."""
        self._unplaced: set[tuple[str, int]] = set()
        """Messages of this connection without a place in the history."""
        self.has_heard = asyncio.Event()
        """Set with each message, and when a connection ends."""
        self._joined: asyncio.Future[None]

    async def connect(self) -> None:
        """Connect and join, from the position reached before."""
        self._asked, self._early, self._unplaced = self.position, [], set()
        self._joined = asyncio.get_running_loop().create_future()
        self.client = await self._servers.connect(hear=self._hear)
        self.client.ended.add_done_callback(lambda _: self.has_heard.set())
        self._record.joins[self.client.fd] = self.topic
        name = f"reader {self.number}"
        await self.client.ask(f"join(fd, {self.topic!r}, {self._asked!r}, {name!r})")
        await asyncio.wait([self._joined, self.client.ended], return_when=asyncio.FIRST_COMPLETED)
        if not self._joined.done():
            raise Lost

    def has(self, data: tuple[str, int]) -> bool:
        """Return whether it is connected, and this was the last message."""
        assert self.position is not None
        epoch, offset = self.position
        is_last = self._record.messages.get((self.topic, epoch, offset)) == data
        return is_last and not self.client.ended.done()

    async def gets_or_ends(self, data: tuple[str, int]) -> None:
        """Wait until this was the last message, or the connection has ended, or something has failed."""
        while not (failures or self.has(data) or self.client.ended.done()):
            self.has_heard.clear()
            await self.has_heard.wait()

    def _hear(self, text: str) -> None:
        try:
            self._take(text)
        except BaseException as error:
            if not self._joined.done():
                self._joined.set_exception(error)
            failures.append(error)
            self.client.abort()
        self.has_heard.set()

    def _take(self, text: str) -> None:
        if text.startswith("joined "):
            self._take_outcome(*json.loads(text.removeprefix("joined ")))
            return
        message = json.loads(text)
        topic, epoch, offset, data = message["topic"], message["epoch"], message["offset"], message["data"]
        assert topic == self.topic, (self.topic, message)
        if not epoch:
            self._unplaced.add(tuple(data))
            self._record.unplaced += 1
            return
        assert tuple(data) not in self._unplaced, f"{data} came without a place in the history, and again with one"
        seen = self._record.messages.setdefault((topic, epoch, offset), tuple(data))
        assert seen == tuple(data), (seen, message)
        self._record.received += 1
        if self._joined.done():
            assert self.position is not None
            last_epoch, last_offset = self.position
            self._must_follow(last_epoch, last_offset, epoch, offset)
        else:
            if self._early:
                self._must_follow(*self._early[-1], epoch, offset)
            self._early.append((epoch, offset))
        self.position = [epoch, offset]

    def _must_follow(self, last_epoch: str, last_offset: int, epoch: str, offset: int) -> None:
        """Assert that one position follows another, or is the first of an epoch, which tells that history was lost."""
        follows = (epoch, offset) == (last_epoch, last_offset + 1)
        begins = self._record.loses_history and epoch != last_epoch and offset == 1
        assert follows or begins, f"after {last_epoch} {last_offset} comes {epoch} {offset} in {self.topic}"

    def _take_outcome(self, recovered: bool, count: int, position: list[Any]) -> None:
        epoch, top = position
        if recovered:
            assert self._asked is not None
            assert self._asked[0] == epoch, (self._asked, position)
            assert top - self._asked[1] == count, (self._asked, position, count)
            self._record.recoveries += 1
            self._record.recovered += count
            first = self._asked[1] + 1
        else:
            assert count == 0
            if self._asked is not None:
                # The newest message that the server had by then.
                newest = self._early[-1][1] if self._early else top
                assert self._asked[0] != epoch or newest - self._asked[1] > HISTORY, (self._asked, position, newest)
                self._record.refusals += 1
            first = top + 1
        if self._early:
            assert self._early[0] == (epoch, first), (self._asked, recovered, position, self._early[0])
            assert self._early[-1][1] >= top, (position, self._early[-1])
        else:
            assert not recovered or count == 0
            self.position = position
        self._joined.set_result(None)


failures: list[BaseException] = []


async def flap(reader: Reader, until: asyncio.Event) -> None:
    """Stay connected for a while, leave in some way, stay away for a while, and come back."""
    while not until.is_set():
        with suppress(Lost, OSError):
            await reader.connect()
            await sleep_or_end(until, random.expovariate(1 / 2), reader.client.ended)
            if until.is_set():
                return
            if random.random() < 0.1:
                # It stops reading, and may be closed for that.
                reader.client.pause()
                await sleep_or_end(until, 0.5, reader.client.ended)
                reader.client.resume()
                await sleep_or_end(until, 0.5, reader.client.ended)
            reader.client.abort()
            await reader.client.ends()
        await sleep_or_end(until, random.expovariate(1 / 0.3))


async def sleep_or_end(until: asyncio.Event, seconds: float, ended: asyncio.Future[None] | None = None) -> None:
    """Sleep, unless it is enough or the connection ends."""
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(until.wait())]
    if ended:
        waiting.append(asyncio.shield(ended))
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()


class Publishing:
    """What was published, by publisher."""

    def __init__(self, messages: int, pause: float) -> None:
        self.left = messages
        self._pause = pause
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.certain: defaultdict[str, int] = defaultdict(int)
        """How many of them the worker has confirmed."""

    async def rest(self) -> None:
        """Wait for a moment, as a publisher does after each batch."""
        await asyncio.sleep(random.random() * self._pause)

    def take(self, publisher: str) -> tuple[int, int]:
        """Return the numbers of the next messages: the first, and how many."""
        count = min(BATCH, self.left)
        self.left -= count
        first, self.sent[publisher] = self.sent[publisher], self.sent[publisher] + count
        return first, count


async def publish_in(servers: Servers, number: int, publishing: Publishing) -> None:
    """Publish through one connection after another, each of which is a publisher of its own."""
    life = 0
    while publishing.left:
        life += 1
        name = f"worker {number} life {life}"
        with suppress(Lost, OSError):
            async with servers.client_of(number) as client:
                while publishing.left:
                    first, count = publishing.take(name)
                    room = random.choice(ROOMS)
                    await client.ask(f"publish({room!r}, {name!r}, {first}, {count})")
                    publishing.certain[name] = first + count
                    await publishing.rest()


async def publish_outside(servers: Servers, publishing: Publishing) -> None:
    """Publish as another program."""
    name = "program"
    with servers.publisher() as hub:
        while publishing.left:
            first, count = publishing.take(name)
            for number in range(first, first + count):
                await asyncio.to_thread(hub.publish, random.choice(ROOMS), [name, number])
            publishing.certain[name] = first + count
            await publishing.rest()


async def members(client: HubClient, topic: str) -> list[tuple[int, str]]:
    """Return the members of a topic, as a client of some worker learns them."""
    await client.ask(f"tell_members(fd, {topic!r})")
    while not (text := await client.receive()).startswith("members "):
        pass
    return [(fd, info) for fd, info in json.loads(text.removeprefix("members "))]


# ---- running ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """The comparisons of a run."""

    disturbances: int
    published: int
    record: Record
    member_events: int


async def run(
    servers: Servers,
    members_log: Path,
    disturb: Disturb,
    messages: int,
    clients: int = CLIENTS,
    *,
    workers: Sequence[int] = range(PUBLISHERS),
    least_turns: int = 2,
    loses_history: bool = False,
    pause: float = 0.005,
    between: int = 0,
    half_done: Mapping[int, list[str]] = MappingProxyType({}),
) -> Result:
    """Publish so many messages while clients come and go and the server is disturbed, and compare.

    Args:
        servers: The server, or several.
        members_log: Where they write who joins and leaves.
        disturb: Disturbs them, again and again.
        messages: So many are published.
        clients: How many come and go.
        workers: The numbers of the workers in which messages are published and members are listed.
        least_turns: So often are they disturbed, even if all messages have been published.
        loses_history: Whether messages may get no place in the history while they are disturbed.
        pause: A publisher waits for at most so many seconds after each batch.
        between: So many messages are received before each disturbance, unless all have been published.
        half_done: The events of connections that were just joining or leaving when their host was killed.

    Raises:
        AssertionError: Something was missing, came twice or in another order, was not recovered without reason, or the
            members were not those who had joined.
    """
    failures.clear()
    record, publishing, enough = Record(loses_history=loses_history), Publishing(messages, pause), asyncio.Event()
    readers = [Reader(number, record, servers) for number in range(clients)]
    turns = 0
    async with asyncio.TaskGroup() as tasks:
        flapping = [tasks.create_task(flap(reader, enough)) for reader in readers]
        publishers = [tasks.create_task(publish_in(servers, number, publishing)) for number in workers]
        publishers.append(tasks.create_task(publish_outside(servers, publishing)))
        while publishing.left or turns < least_turns:
            await record.until_received(between, publishing)
            await disturb(turns)
            turns += 1
            assert not failures, failures[0]
        await asyncio.wait(publishers)
        enough.set()
        await asyncio.wait(flapping)
    assert not failures, failures[0]
    await settle(servers, readers, loses_history)
    assert not failures, failures[0]
    missing = check_publishers(record, publishing)
    # A room may be without connected readers for a moment; all of them together see nearly everything.
    assert loses_history or missing <= sum(publishing.certain.values()) // 10, f"nobody has seen {missing} messages"
    events = await check_members(servers, members_log, readers, workers, half_done)
    await end(reader.client for reader in readers)
    await all_have_left(servers, members_log, half_done)
    return Result(turns, sum(publishing.sent.values()), record, events)


async def settle(servers: Servers, readers: list[Reader], loses_history: bool) -> None:
    """Have all readers connected, and wait until each has everything.

    If history may be lost, a topic may still begin a new epoch, which closes its subscribers, or the last message may
    have got no place. In that case, another one is published.
    """
    turns = SETTLING if loses_history else 1
    for turn in range(turns):
        for reader in readers:
            while not hasattr(reader, "client") or reader.client.ended.done():
                with suppress(Lost, OSError):
                    await reader.connect()
        async with servers.client_of(0) as client:
            for topic in ROOMS:
                await client.ask(f"publish({topic!r}, 'last', {turn}, 1)")
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE / turns):
                for reader in readers:
                    await reader.gets_or_ends(("last", turn))
        if failures or all(reader.has(("last", turn)) for reader in readers):
            return
    raise AssertionError([reader.position for reader in readers if not reader.has(("last", turn))])


def check_publishers(record: Record, publishing: Publishing) -> int:
    """Check that what each publisher published is in its order in each topic, and once.

    Returns:
        How many messages nobody has seen.
    """
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    last: dict[tuple[str, str, str], int] = {}
    for (topic, epoch, _), (publisher, number) in sorted(record.messages.items()):
        if publisher != "last":
            key = (topic, epoch, publisher)
            assert last.get(key, -1) < number, f"{publisher} {number} after {last[key]} in {topic}"
            last[key] = number
            numbers[publisher].append(number)
    missing = 0
    for publisher, certain in publishing.certain.items():
        assert len(numbers[publisher]) == len(set(numbers[publisher])), f"a message of {publisher} came twice"
        missing += len(set(range(certain)) - set(numbers[publisher]))
    return missing


def events_of(members_log: Path) -> dict[int, list[str]]:
    """Return the events of each connection, in their order."""
    events: defaultdict[int, list[str]] = defaultdict(list)
    for line in members_log.read_text().splitlines():
        event, topic, fd, info, _ = json.loads(line)
        events[fd].append(event)
        assert info.startswith("reader "), line
        assert topic in ROOMS, line
    return events


async def check_members(
    servers: Servers,
    members_log: Path,
    readers: list[Reader],
    workers: Sequence[int],
    half_done: Mapping[int, list[str]],
) -> int:
    """Check that the members are those who are connected, and that everybody joined once and left at most once."""
    for worker_id in workers:
        async with servers.client_of(worker_id) as client:
            for topic in ROOMS:
                expected = {reader.client.fd: f"reader {reader.number}" for reader in readers if reader.topic == topic}
                assert dict(await members(client, topic)) == expected
    here = {reader.client.fd for reader in readers}
    # They are no longer members before the `leave` handlers run.
    events = await when_told(members_log, half_done, here)
    for fd in here:
        assert events.pop(fd) == ["join"], fd
    return sum(map(len, events.values())) + len(readers)


async def when_told(
    members_log: Path, half_done: Mapping[int, list[str]], here: Set[int] = frozenset()
) -> dict[int, list[str]]:
    """Wait until everybody who is not `here` has joined and left, and return the events of all connections."""

    def others() -> dict[int, list[str]]:
        events = events_of(members_log).items()
        return {fd: names for fd, names in events if fd not in here and names != half_done.get(fd)}

    await asyncio.to_thread(
        wait_until, lambda: all(len(names) >= 2 for names in others().values()), "the application is told who has left"
    )
    wrong = {fd: names for fd, names in others().items() if names != ["join", "leave"]}
    assert not wrong, wrong
    return events_of(members_log)


async def all_have_left(servers: Servers, members_log: Path, half_done: Mapping[int, list[str]]) -> None:
    """Wait until everybody has left."""
    async with asyncio.timeout(PATIENCE), servers.client_of(2) as client:
        for topic in ROOMS:
            while await members(client, topic):
                pass
    await when_told(members_log, half_done)
