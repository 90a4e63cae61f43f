"""Redis alone, with the connections of a hundred hosts: what it can carry, and what it keeps in memory.

The clients say what the masters of so many hosts would say. They do less than masters, so that Redis is what is busy.
"""

import random
import select
import socket
import time
from dataclasses import dataclass

from across_hosts.bench import Bench, Target, spread
from across_hosts.clients import PATIENCE, SIZE
from processes import Failed
from tables import figure

HOSTS = 100
FRAME = SIZE + 24
"""About the bytes of a push on its way to another host."""
BATCHES = (1, 4, 16)
"""Pushes in a command."""
COMMANDS = 8
"""Commands that a host sends at a time, each for another host."""
FLIGHT = 400
"""Commands that may be on their way."""
TOPICS = 100_000


def many(bench: Bench) -> list[Target]:
    """Measure what a command costs Redis, and what a topic takes there."""
    samples: dict[int, list[Carried]] = {size: [] for size in BATCHES}
    bench.redis.flush()
    hosts = Connections(bench)
    for round_ in range(bench.rounds + 1):
        for size in BATCHES:
            sample = hosts.carry(size, bench.seconds if round_ else bench.seconds / 4)
            # The first round warms up.
            if round_:
                samples[size].append(sample)
    memory = [memory_of_topics(bench) for _ in range(bench.rounds)]
    hosts.close()
    bench.show(
        f"Redis with {HOSTS} hosts",
        ("pushes in a command", "commands/s", "µs of CPU time for a command", "pushes/s at which it is busy"),
        [
            (
                str(size),
                spread([each.rate for each in of_one]),
                spread([each.cost for each in of_one]),
                spread([1e6 * size / each.cost for each in of_one]),
            )
            for size, of_one in samples.items()
        ],
        f"Commands publish to one of {HOSTS} subscribers, chosen at random: {COMMANDS} at a time from each host, with "
        f"{FLIGHT} on their way. A topic that one host subscribes to takes {figure(sum(memory) / len(memory))} bytes: "
        f"{TOPICS:,} with names of 22 characters.",
    )
    return []


@dataclass(frozen=True)
class Carried:
    """Commands per second, and µs of CPU time of Redis for each."""

    rate: float
    cost: float


class Connections:
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
            subscriber.sendall(command(b"SUBSCRIBE", channel(number)))
        while self._read(0.2):
            pass

    def carry(self, size: int, seconds: float) -> Carried:
        """Publish batches of so many pushes for about so long."""
        payload = bytes(11 + size * FRAME)
        turns = [
            b"".join(command(b"PUBLISH", channel(place), payload) for place in random.sample(range(HOSTS), COMMANDS))
            for _ in range(500)
        ]
        # Of each command, what comes back to the publisher and what goes to the subscriber.
        length = len(command(b"message", channel(0), payload)) + len(b":1\r\n")
        begin, spent = time.monotonic(), self._redis.cpu_seconds
        sent = received = 0
        while (goes_on := time.monotonic() < begin + seconds) or received < sent * length:
            if goes_on and sent + COMMANDS - received // length <= FLIGHT:
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
