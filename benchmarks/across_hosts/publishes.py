"""Publishes at one host, with the only subscriber at another: how many a second, and what each costs whom."""

from contextlib import ExitStack
from dataclasses import dataclass

from across_hosts.bench import Bench, Sample, Target, median, spread, threads
from across_hosts.clients import HUBBUB, REST, Client, Load, Receivers, close, wait_until_heard
from hubbub import Publisher
from processes import Failed

CHUNK = 50
"""Messages that a client sends at once under full load."""
WINDOW = 5000
"""Messages that may be on their way to the other host."""
PER_SECOND = 100_000
"""The publishes per second that are asked for."""


@dataclass(frozen=True)
class Way:
    """How messages are published."""

    name: str
    by_program: bool = False
    rate: int | None = None


WAYS = (
    Way("a program with a `Publisher`", by_program=True),
    Way("handlers of a worker"),
    Way(f"the same, {PER_SECOND:,} a second", rate=PER_SECOND),
    Way(f"the same, {PER_SECOND // 10:,} a second", rate=PER_SECOND // 10),
)


def publish(bench: Bench) -> list[Target]:
    """Publish at one host, with the only subscriber at another."""
    samples: dict[str, list[Sample]] = {way.name: [] for way in WAYS}
    with bench.hosts(2) as hosts, Publisher(hosts[0].control) as program, ExitStack() as stack:
        clients = [Client(hosts[0].port, HUBBUB), Client(hosts[1].port, HUBBUB, "far")]
        stack.callback(close, clients)
        sender, receiver = clients
        receivers = Receivers([receiver])
        wait_until_heard(lambda: program.publish("far", f"{0:016x}{REST}"), receivers, HUBBUB.heard(0))
        loads = [(way, *publishes(way, program, sender, bench.seconds)) for way in WAYS]
        for round_ in range(bench.rounds + 1):
            for way, load, expected in loads:
                sample = bench.measure(hosts, receivers, load)
                check(receiver.take(), expected)
                # The first round warms up.
                if round_:
                    samples[way.name].append(sample)
    heads = ("published by", "messages/s", *(f"{whose} master, µs of CPU time" for whose in ("first", "second")))
    rows = (
        (
            name,
            spread([each.rate for each in of_one]),
            threads([each.sender for each in of_one]),
            threads([each.receiver for each in of_one]),
            spread([each.redis for each in of_one]),
            spread([1 / each.commands for each in of_one]),
        )
        for name, of_one in samples.items()
    )
    bench.show(
        "Publishes of 64 bytes to another host",
        (*heads, "Redis, µs of CPU time", "messages in a command"),
        rows,
        "For each message. The parts of a master's two busy threads are in brackets: its hub, which passes messages "
        "between workers and hosts, and its link to Redis.",
    )
    full = WAYS[1].name
    return [
        Target(f"publishes/s by {full}", median([each.rate for each in samples[full]]), at_least=PER_SECOND),
        *(
            Target(f"µs of the {whose} master, {name}", median(values), at_most=3)
            for name in (full, WAYS[2].name)
            for whose, values in (
                ("first", [each.sender.master for each in samples[name]]),
                ("second", [each.receiver.master for each in samples[name]]),
            )
        ),
    ]


def check(received: bytes, expected: bytes) -> None:
    """Make sure that all messages have arrived, in order."""
    if received == expected:
        return
    length = len(HUBBUB.heard(0))
    for place in range(0, len(expected), length):
        heard, due = received[place : place + length], expected[place : place + length]
        if heard != due:
            raise Failed(f"message {place // length:,} of {len(expected) // length:,} should be {due!r}, not {heard!r}")
    raise Failed(f"{len(received) - len(expected)} bytes have arrived after the last message")


def publishes(way: Way, program: Publisher, sender: Client, seconds: float) -> tuple[Load, bytes]:
    """Return a load, and what is to arrive."""
    per_chunk = CHUNK if way.rate is None else max(1, way.rate // 1000)
    chunks = int((way.rate or 4 * PER_SECOND) * seconds / per_chunk)
    numbers = range(chunks * per_chunk)
    expected = b"".join(HUBBUB.heard(number) for number in numbers)
    of_chunk = [numbers[begin : begin + per_chunk] for begin in numbers[::per_chunk]]
    if way.by_program:
        texts = [[f"{number:016x}{REST}" for number in each] for each in of_chunk]

        def send(chunk: int) -> None:
            for text in texts[chunk]:
                program.publish("far", text)
    else:
        frames = [b"".join(HUBBUB.sent(number, "far ") for number in each) for each in of_chunk]

        def send(chunk: int) -> None:
            sender.socket.sendall(frames[chunk])

    return Load(send, chunks, per_chunk, 1, len(HUBBUB.heard(0)), WINDOW, way.rate), expected
