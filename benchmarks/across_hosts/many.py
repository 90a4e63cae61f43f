"""Redis alone, with the connections of a hundred hosts: what it can carry, and what it keeps in memory.

The clients say what the masters of so many hosts would say. They do less than masters, so that Redis is what is busy.
"""

import random
import select
import socket
import time
from dataclasses import dataclass

from across_hosts.bench import Bench, Target, median, spread
from across_hosts.clients import PATIENCE, SIZE
from processes import Failed
from tables import figure

HOSTS = 100
CONNECTIONS = 10_000_000
"""Of all hosts together, for the arithmetic."""
FRAME = SIZE + 24
"""About the bytes of a push on its way to another host."""
COMMANDS = 8
"""Commands that a host sends at a time."""
FLIGHT = 40_000
"""Messages that Redis may have to deliver, at most; and commands that may be on their way, at most."""
FLIGHT_OF_COMMANDS = 400
TOPICS = 100_000


@dataclass(frozen=True)
class Kind:
    """Commands of one kind.

    Attributes:
        name: For the table.
        pushes: How many each carries.
        reaches_all: Whether each is for all hosts, as a publish to a topic with subscribers everywhere.
    """

    name: str
    pushes: int = 1
    reaches_all: bool = False


KINDS = (
    Kind("a push to another host"),
    Kind("4 pushes to another host", 4),
    Kind("16 pushes to another host", 16),
    Kind(f"a publish to all {HOSTS} hosts", reaches_all=True),
)


def many(bench: Bench) -> list[Target]:
    """Measure what a command costs Redis, and what a topic takes there."""
    samples: dict[Kind, list[Carried]] = {kind: [] for kind in KINDS}
    bench.redis.flush()
    hosts = Hosts(bench)
    for round_ in range(bench.rounds + 1):
        for kind in KINDS:
            sample = hosts.carry(kind, bench.seconds if round_ else bench.seconds / 4)
            # The first round warms up.
            if round_:
                samples[kind].append(sample)
    telling = median([hosts.tell(bench.seconds) for _ in range(bench.rounds)])
    hosts.close()
    memory = median([memory_of_topics(bench) for _ in range(bench.rounds)])
    limits = {kind: [1e6 * kind.pushes / each.cost for each in of_one] for kind, of_one in samples.items()}
    bench.show(
        f"Redis with {HOSTS} hosts",
        ("a command", "commands/s", "µs of CPU time of Redis", "messages/s at which its core is busy"),
        [
            (
                kind.name,
                spread([each.rate for each in of_one]),
                spread([each.cost for each in of_one]),
                spread(limits[kind]),
            )
            for kind, of_one in samples.items()
        ],
        f"Clients say what masters would say: {COMMANDS} commands at a time, each to a host that is chosen at random.",
    )
    every = {kind: CONNECTIONS / median(of_one) for kind, of_one in limits.items()}
    bench.show(
        f"{HOSTS} hosts with {CONNECTIONS:,} connections: where Redis ends",
        ("what they do", ""),
        [
            *(
                (f"push to each connection, {kind.pushes} in a command", f"at most once in {figure(every[kind])} s")
                for kind in KINDS[:-1]
            ),
            (
                "publish to a topic that has subscribers on all hosts",
                f"at most {figure(median(limits[KINDS[-1]]))} times a second",
            ),
            ("tell one another once a second that they are there", f"{figure(100 * telling)} % of the core of Redis"),
            (
                "subscribe each connection to a topic of its own",
                f"{figure(CONNECTIONS * memory / 2**30)} GiB of memory",
            ),
        ],
        f"Computed from the table above. A topic that one host subscribes to takes {figure(memory)} bytes in Redis: "
        f"{TOPICS:,} with names of 22 characters. How hosts tell that they are there was measured at that pace.",
    )
    return []


@dataclass(frozen=True)
class Carried:
    """Commands per second, and µs of CPU time of Redis for each."""

    rate: float
    cost: float


class Hosts:
    """The connections of so many hosts."""

    def __init__(self, bench: Bench) -> None:
        """Connect, and subscribe to the hosts' channels."""
        self._redis = bench.redis
        self._publishers = [connected(bench.redis.port) for _ in range(HOSTS)]
        self._subscribers = [connected(bench.redis.port) for _ in range(HOSTS)]
        self._poll = select.epoll()
        self._sockets = {each.fileno(): each for each in (*self._publishers, *self._subscribers)}
        for descriptor in self._sockets:
            self._poll.register(descriptor, select.EPOLLIN)
        for number, subscriber in enumerate(self._subscribers):
            subscriber.sendall(command(b"SUBSCRIBE", channel(number), EVERYBODY))
        while self._read(0.2):
            pass

    def carry(self, kind: Kind, seconds: float) -> Carried:
        """Publish for about so long."""
        payload = bytes(11 + kind.pushes * FRAME)
        deliveries = HOSTS if kind.reaches_all else 1

        def places() -> list[bytes]:
            return [
                EVERYBODY if kind.reaches_all else channel(place) for place in random.sample(range(HOSTS), COMMANDS)
            ]

        turns = [b"".join(command(b"PUBLISH", place, payload) for place in places()) for _ in range(500)]
        # Of each command, what goes to subscribers and what comes back to the publisher.
        length = deliveries * len(command(b"message", places()[0], payload)) + len(f":{deliveries}\r\n")
        flight = min(FLIGHT // deliveries, FLIGHT_OF_COMMANDS)
        begin, spent = time.monotonic(), self._redis.cpu_seconds
        sent = received = 0
        while (goes_on := time.monotonic() < begin + seconds) or received < sent * length:
            if goes_on and sent + COMMANDS - received // length <= flight:
                turn = sent // COMMANDS
                self._publishers[turn % HOSTS].sendall(turns[turn % len(turns)])
                sent += COMMANDS
                received += self._read(0)
            elif count := self._read(1):
                received += count
            elif time.monotonic() > begin + seconds + PATIENCE:
                raise Failed("Redis does not pass everything on")
        took, spent = time.monotonic() - begin, self._redis.cpu_seconds - spent
        return Carried(sent / took, 1e6 * spent / sent)

    def tell(self, seconds: float) -> float:
        """Have each host say once a second that it is there. Returns the CPU time of Redis in a second."""
        telling = command(b"PUBLISH", EVERYBODY, bytes(FRAME))
        begin, spent = time.monotonic(), self._redis.cpu_seconds
        for turn in range(int(HOSTS * seconds)):
            self._publishers[turn % HOSTS].sendall(telling)
            until = begin + (turn + 1) / HOSTS
            while (left := until - time.monotonic()) > 0:
                self._read(left)
        return (self._redis.cpu_seconds - spent) / (time.monotonic() - begin)

    def _read(self, wait: float) -> int:
        return sum(len(self._sockets[descriptor].recv(262_144)) for descriptor, _ in self._poll.poll(wait))

    def close(self) -> None:
        """Close all."""
        self._poll.close()
        for each in self._sockets.values():
            each.close()


def memory_of_topics(bench: Bench) -> float:
    """Return the bytes that a topic takes that is subscribed to."""
    before = bench.redis.memory()
    with connected(bench.redis.port) as subscriber, subscriber.makefile("rb") as answers:
        # As many at a time as hosts do.
        for first in range(0, TOPICS, 500):
            names = [b"hubbub:t:user:%08d" % number for number in range(first, first + 500)]
            subscriber.sendall(command(b"SUBSCRIBE", *names))
            answers.read(sum(len(confirmation(name, number)) for number, name in enumerate(names, first + 1)))
        memory = bench.redis.memory() - before
    time.sleep(0.2)
    return memory / TOPICS


def confirmation(name: bytes, number: int) -> bytes:
    """Return what Redis says about a subscription, the one of that number."""
    return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:%d\r\n" % (len(name), name, number)


EVERYBODY = b"hubbub:all"


def channel(host: int) -> bytes:
    """Return the channel of a host; all are as long."""
    return b"hubbub:h:%d" % (100 + host)


def command(*parts: bytes) -> bytes:
    """Return a command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def connected(port: int) -> socket.socket:
    """Connect to Redis."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
