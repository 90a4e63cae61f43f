"""The workloads: what the load generator sends."""

from dataclasses import dataclass, replace
from typing import Literal, Self

MESSAGE_CONNECTIONS = 64
"""The number of connections of `x1`, `x16` and the latency workloads."""


@dataclass(frozen=True)
class Workload:
    """A workload for servers.

    Attributes:
        name: Its name in the results, and for `--only`.
        meaning: Its description in the table.
        unit: What is counted: the result is the cost of one, or the number of them in a second.
        measure: What is measured: CPU time of the whole server in µs, its memory in bytes, the rate by the clock, or
            the time to an answer in µs.
        serves: Which of its workloads the server is started with.
        load: The load generator's subcommand and options, without `counted`.
        counted: The option that says how much to do.
        least: The smallest useful value of `counted`, for the first warm-up.
        connections: How many each measurement opens.
        servers: Names of those to measure.
        sender: A program of `peers/` that sends what the load generator receives, with the same options.
        rate: The number of messages sent per second while latency is measured.
        rounds: The number of rounds, if it has fewer than other workloads.
        longer: How many times longer than others a measurement takes, to have enough to count.
    """

    name: str
    meaning: str
    unit: str
    measure: Literal["cpu", "memory", "rate", "latency"]
    serves: Literal["echo", "fanout", "fanout-deflate", "broadcast", "push", "hello", "fastapi", "stream", "file"]
    load: tuple[str, ...]
    counted: str
    least: int
    connections: int
    servers: tuple[str, ...] = ()
    sender: str | None = None
    rate: int | None = None
    rounds: int | None = None
    longer: float = 1.0

    def on(self, *servers: str) -> Self:
        """Return the same workload, on these servers."""
        return replace(self, servers=servers)

    def in_rounds(self, rounds: int) -> Self:
        """Return the same workload, with at most that many rounds."""
        return replace(self, rounds=rounds)


def echo(name: str, connections: int, in_flight: int, size: int, meaning: str) -> Workload:
    """A workload whose messages of `size` bytes come back, `in_flight` of them on each connection."""
    options = ("--connections", str(connections), "--in-flight", str(in_flight), "--size", str(size))
    least = max(5000, 2 * connections * in_flight)
    return Workload(name, meaning, "message", "cpu", "echo", ("echo", *options), "--messages", least, connections)


X1 = echo("x1", MESSAGE_CONNECTIONS, 1, 64, "echo, 64 connections, 1 message in flight on each, 64 bytes")
X16 = echo("x16", MESSAGE_CONNECTIONS, 16, 64, "echo, 64 connections, 16 messages in flight on each, 64 bytes")
LARGE = echo("16K", 8, 4, 16_384, "echo, 8 connections, 4 messages in flight on each, 16 KiB")


def connections(count: int) -> Workload:
    """As `x1`, with another number of connections."""
    meaning = f"echo, {count:,} connections, 1 message in flight on each, 64 bytes"
    return echo(f"connections-{count}", count, 1, 64, meaning)


RATES = (5000, 20_000, 50_000)
"""The messages a second at which latency is compared. They are the same for every server."""


def latency(rate: int) -> Workload:
    """Messages on a fixed schedule, so many a second."""
    return Workload(
        f"latency-{rate}",
        f"echo, 64 connections, 64 bytes, on a fixed schedule of {rate:,} messages a second",
        "message",
        "latency",
        "echo",
        ("latency", "--connections", str(MESSAGE_CONNECTIONS), "--size", "64", "--rate", str(rate)),
        "--messages",
        5000,
        MESSAGE_CONNECTIONS,
        rate=rate,
        longer=2.0,
    )


FAN_OUT = Workload(
    "fan-out",
    "1,000 subscribers, 128 bytes, 8 publishes in flight; per delivery",
    "delivery",
    "cpu",
    "fanout",
    ("fanout", "--subscribers", "1000", "--size", "128", "--in-flight", "8"),
    "--publishes",
    32,
    1001,
)
FAN_OUT_COMPRESSED = Workload(
    "fan-out-deflate",
    "1,000 subscribers with permessage-deflate, 2 KiB of JSON, 8 publishes in flight; per delivery",
    "delivery",
    "cpu",
    "fanout-deflate",
    ("fanout", "--subscribers", "1000", "--size", "2048", "--in-flight", "8", "--deflate"),
    "--publishes",
    16,
    1001,
)
HANDSHAKE = Workload(
    "handshake",
    "connect, upgrade, closing handshake; 64 at a time",
    "handshake",
    "cpu",
    "echo",
    ("handshake", "--parallel", "64"),
    "--connections",
    500,
    0,
)
IDLE = Workload(
    "idle",
    "memory of 8,000 open connections that say nothing",
    "connection",
    "memory",
    "echo",
    ("idle",),
    "--connections",
    8000,
    8000,
)
KEPT = Workload(
    "kept",
    "memory of 8,000 kept HTTP connections that say nothing after one request each",
    "connection",
    "memory",
    "hello",
    ("idle", "--answered", "13"),
    "--connections",
    8000,
    8000,
)


def requests(
    name: str, serves: Literal["hello", "fastapi", "stream", "file"], connections: int, size: int, meaning: str
) -> Workload:
    """Plain HTTP requests, answered with `size` bytes."""
    options = ("--connections", str(connections), "--size", str(size))
    return Workload(
        name, meaning, "request", "cpu", serves, ("request", *options), "--requests", 4 * connections, connections
    )


MIB = 1024 * 1024
HTTP = requests("http", "hello", MESSAGE_CONNECTIONS, 13, "plain HTTP, 64 kept connections, answers of 13 bytes")
FASTAPI = requests("fastapi", "fastapi", MESSAGE_CONNECTIONS, 17, "the same, answered by FastAPI's first example")
STREAM = requests("stream", "stream", 8, MIB, "HTTP answers of 1 MiB, sent in pieces of 64 KiB; 8 connections")
FILE = requests(
    "file", "file", 8, MIB, "HTTP answers with a file of 1 MiB, by `pathsend` where there is one; 8 connections"
)
CROSS_PUSH = Workload(
    "cross-push",
    "each message is pushed to 100 connections of the same worker, or of the other one; 128 bytes; per push",
    "push",
    "cpu",
    "push",
    ("push", "--recipients", "100", "--size", "128", "--in-flight", "1"),
    "--messages",
    50,
    202,
)
BROADCAST = Workload(
    "broadcast-4000",
    "a broadcast to 4,000 connections, 128 bytes, 8 in flight; per delivery",
    "delivery",
    "cpu",
    "broadcast",
    ("fanout", "--subscribers", "4000", "--size", "128", "--in-flight", "8"),
    "--publishes",
    16,
    4001,
)
PUBLISHER = Workload(
    "publisher",
    "another program publishes 100 bytes to a topic with one subscriber, until that has the last message",
    "publishes",
    "rate",
    "fanout",
    ("receive", "--size", "100"),
    "--messages",
    20_000,
    1,
    sender="hubbub_publisher.py",
)
