"""More hosts on one Redis: what each message costs, and what is busy first."""

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from across_hosts.bench import Bench, Sample, Target, median, spread, threads
from across_hosts.clients import HUBBUB, Client, Load, Receivers, close, wait_until_heard
from across_hosts.servers import Host, usage
from tables import figure

HOSTS = (1, 2, 4, 8)
FLIGHT = 64
"""Messages that may be on their way from each host."""
PLACED = 64
"""Connections that are placed at random on the hosts."""
ROOMS = 16
"""Their topics, with as many members each."""
PUSHES = f"Pushes to {PLACED} connections that are placed at random"
PUBLISHES = f"Publishes to {ROOMS} topics with {PLACED // ROOMS} subscribers each, placed at random"


@dataclass(frozen=True)
class Idle:
    """CPU time in seconds for each second without messages."""

    redis: float
    masters: float


def growth(bench: Bench) -> list[Target]:
    """Push to connections that are anywhere, and publish to topics whose subscribers are anywhere."""
    samples: dict[str, dict[int, list[Sample]]] = {
        title: {count: [] for count in HOSTS} for title in (PUSHES, PUBLISHES)
    }
    idle: dict[int, list[Idle]] = {count: [] for count in HOSTS}
    for round_ in range(bench.rounds):
        for turn in range(len(HOSTS)):
            count = HOSTS[(round_ + turn) % len(HOSTS)]
            with bench.hosts(count) as hosts:
                idle[count].append(doing_nothing(bench, hosts))
                for title, sample in under_load(bench, hosts):
                    samples[title][count].append(sample)
    for title, found in samples.items():
        bench.show(
            title,
            ("hosts", "messages/s", "commands to Redis", *(f"{whose}, µs of CPU time" for whose in WHOSE)),
            [
                (
                    str(count),
                    spread([each.rate for each in of_one]),
                    spread([each.commands for each in of_one]),
                    spread([each.redis for each in of_one]),
                    threads([each.sender for each in of_one]),
                    spread([each.sender.workers for each in of_one]),
                )
                for count, of_one in found.items()
            ],
            f"For each message. One worker a host; at each a client that sends, with {FLIGHT} messages on their way. "
            "The parts of the masters' two busy threads are in brackets.",
        )
        bench.show(
            f"Messages per second at which a core would be busy: {title.lower()}",
            ("hosts", "that of Redis", "those of the masters' hubs", "of their links", "of the workers"),
            [
                (
                    str(count),
                    limit([each.redis for each in of_one], 1),
                    limit([each.sender.hub for each in of_one], count),
                    limit([each.sender.link for each in of_one], count),
                    limit([each.sender.workers for each in of_one], count),
                )
                for count, of_one in found.items()
            ],
            "Of all hosts together; computed from the CPU time above, as if each thread had a core of its own.",
        )
    bench.show(
        "Without messages",
        ("hosts", "Redis, ms of CPU time a second", "each master"),
        [
            (
                str(count),
                spread([1e3 * each.redis for each in of_one]),
                spread([1e3 * each.masters / count for each in of_one]),
            )
            for count, of_one in idle.items()
        ],
        "Leases, probes, and what the hosts tell one another each second.",
    )
    return []


WHOSE = ("Redis", "all masters", "all workers")


def doing_nothing(bench: Bench, hosts: Sequence[Host]) -> Idle:
    """Measure hosts without messages."""
    redis, masters = bench.redis.cpu_seconds, usage(hosts).master
    begin = time.monotonic()
    time.sleep(bench.seconds)
    seconds = time.monotonic() - begin
    return Idle((bench.redis.cpu_seconds - redis) / seconds, (usage(hosts).master - masters) / seconds)


def under_load(bench: Bench, hosts: Sequence[Host]) -> list[tuple[str, Sample]]:
    """Measure pushes, and publishes."""
    samples = []
    with ExitStack() as stack:
        senders = [Client(host.port, HUBBUB) for host in hosts]
        placed = [Client(random.choice(hosts).port, HUBBUB, f"topic{number % ROOMS}") for number in range(PLACED)]
        stack.callback(close, [*senders, *placed])
        receivers = Receivers(placed)
        ids = [f"{client.id} " for client in placed]
        topics = [f"topic{number} " for number in range(ROOMS)]
        # From each sender a message that is pushed, and one that is published.
        numbers = range(len(senders))
        frames = [
            b"".join([HUBBUB.sent(2 * number, to) for to in ids] + [HUBBUB.sent(2 * number + 1, to) for to in topics])
            for number in numbers
        ]

        def send() -> None:
            for number in numbers:
                senders[number].socket.sendall(frames[number])

        wait_until_heard(send, receivers, *(HUBBUB.heard(number) for number in range(2 * len(senders))))
        for title, to, deliveries in ((PUSHES, ids, 1), (PUBLISHES, topics, PLACED // ROOMS)):
            make = lambda chunks: anywhere(senders, to, deliveries, chunks)  # noqa: B023, E731
            samples.append((title, bench.measure_for_long(hosts, receivers, make, sending=len(hosts))))
            receivers.drain()
    return samples


def anywhere(senders: Sequence[Client], to: Sequence[str], deliveries: int, chunks: int) -> Load:
    """Return a load of messages to random destinations, from each sender in turn."""
    per_chunk = FLIGHT // 4
    frames = [
        b"".join(HUBBUB.sent(number, random.choice(to)) for number in range(per_chunk)) for _ in range(min(chunks, 500))
    ]
    send = lambda chunk: senders[chunk % len(senders)].socket.sendall(frames[chunk % len(frames)])  # noqa: E731
    return Load(send, chunks, per_chunk, deliveries, len(HUBBUB.heard(0)), FLIGHT * len(senders))


def limit(costs: Sequence[float], cores: int) -> str:
    """Return how many messages of that cost so many cores can carry in a second."""
    cost = median(costs)
    return figure(cores * 1e6 / cost) if cost > 0.01 else "–"
