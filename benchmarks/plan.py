"""What is measured, on which servers, and what must come out of it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Attributes:
        name: Its name in the results.
        program: A file of `peers/`, or the name of a Rust binary of this crate.
        packages: The distributions whose versions belong to the result.
        options: Of the program, beside `--workload`.
        echo: What its `--workload` is called where messages come back to their sender.
        load: Options of the load generator that are meant for this server.
        variant_of: The server that this is another way to run; it has no column of its own in the results.
        tls: Whether it speaks TLS.
    """

    name: str
    program: str
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    echo: str = "echo"
    load: tuple[str, ...] = ()
    variant_of: str | None = None
    tls: bool = False


@dataclass(frozen=True)
class Workload:
    """A load to put on the servers.

    Attributes:
        name: Its name in the results, and for `--only`.
        meaning: What it is, for the table.
        unit: What is counted: the result is the cost of one, or how many there are in a second.
        measure: CPU time of the whole server in µs, its memory in bytes, or the rate, by the clock.
        serves: Which of its workloads the server is started with.
        load: The load generator's subcommand and options, but for `counted`.
        counted: The option that says how much to do.
        least: The smallest sensible value of `counted`, for the first warm-up.
        servers: Names of those to measure.
        sender: A program of `peers/` that sends what the load generator receives. It has the same options.
    """

    name: str
    meaning: str
    unit: str
    measure: Literal["cpu", "memory", "rate"]
    serves: Literal["echo", "fanout", "broadcast", "push"]
    load: tuple[str, ...]
    counted: str
    least: int
    servers: tuple[str, ...]
    sender: str | None = None


@dataclass(frozen=True)
class Target:
    """What the result of `server` has to be: as a share of `peer`'s, or, without a peer, in itself."""

    workload: str
    server: str
    peer: str | None
    at_most: float | None = None
    at_least: float | None = None


def hubbub(how: str, *options: str, echo: str = "echo", load: tuple[str, ...] = (), tls: bool = False) -> Server:
    """Hubbub, run in another way than with one worker and handlers that are `def`."""
    return Server(f"hubbub, {how}", "hubbub_server.py", ("hubbub",), options, echo, load, "hubbub", tls)


SERVERS = {
    server.name: server
    for server in (
        Server("bare loop", "bare"),
        Server("hubbub", "hubbub_server.py", ("hubbub",)),
        hubbub("async def", echo="echo-async"),
        hubbub("embedded", "--embedded"),
        hubbub("wss", tls=True),
        hubbub("2 workers", "--workers", "2"),
        hubbub("4 workers", "--workers", "4"),
        hubbub("same worker", "--workers", "2", load=("--to", "same")),
        hubbub("other worker", "--workers", "2", load=("--to", "other")),
        Server("picows", "picows_server.py", ("picows", "uvloop")),
        Server("websockets", "websockets_server.py", ("websockets", "uvloop")),
    )
}

ONE_OF_EACH = ("bare loop", "hubbub", "picows", "websockets")
CONNECTIONS = (10, 100, 1000, 10_000)


def echo(name: str, connections: int, in_flight: int, size: int, meaning: str, servers: tuple[str, ...]) -> Workload:
    """A workload whose messages of `size` bytes come back, `in_flight` of them on each connection."""
    options = ("--connections", str(connections), "--in-flight", str(in_flight), "--size", str(size))
    return Workload(
        name,
        meaning,
        "message",
        "cpu",
        "echo",
        ("echo", *options),
        "--messages",
        max(5000, 2 * connections * in_flight),
        servers,
    )


WORKLOADS = (
    echo(
        "x1",
        64,
        1,
        64,
        "echo, 64 connections, 1 message in flight on each, 64 bytes",
        (*ONE_OF_EACH, "hubbub, async def", "hubbub, wss", "hubbub, 2 workers"),
    ),
    echo(
        "x16",
        64,
        16,
        64,
        "echo, 64 connections, 16 messages in flight on each, 64 bytes",
        (*ONE_OF_EACH, "hubbub, async def"),
    ),
    echo("16K", 8, 4, 16_384, "echo, 8 connections, 4 messages in flight on each, 16 KiB", ONE_OF_EACH),
    Workload(
        "fan-out",
        "1,000 subscribers, 128 bytes, 8 publishes in flight; per delivery",
        "delivery",
        "cpu",
        "fanout",
        ("fanout", "--subscribers", "1000", "--size", "128", "--in-flight", "8"),
        "--publishes",
        32,
        ONE_OF_EACH,
    ),
    *(
        echo(
            f"connections-{count}",
            count,
            1,
            64,
            f"echo, {count:,} connections, 1 message in flight on each, 64 bytes",
            ("bare loop", "hubbub"),
        )
        for count in CONNECTIONS
    ),
    Workload(
        "handshake",
        "connect, upgrade, closing handshake; 64 at a time",
        "handshake",
        "cpu",
        "echo",
        ("handshake", "--parallel", "64"),
        "--connections",
        500,
        (*ONE_OF_EACH, "hubbub, embedded"),
    ),
    Workload(
        "idle",
        "memory of 8,000 open connections that say nothing",
        "connection",
        "memory",
        "echo",
        ("idle",),
        "--connections",
        8000,
        ("hubbub", "picows", "websockets"),
    ),
    Workload(
        "cross-push",
        "each message is pushed to 100 connections of the same worker, or of the other one; 128 bytes; per push",
        "push",
        "cpu",
        "push",
        ("push", "--recipients", "100", "--size", "128", "--in-flight", "1"),
        "--messages",
        50,
        ("hubbub, same worker", "hubbub, other worker"),
    ),
    Workload(
        "broadcast-4000",
        "a broadcast to 4,000 connections, 128 bytes, 8 in flight; per delivery",
        "delivery",
        "cpu",
        "broadcast",
        ("fanout", "--subscribers", "4000", "--size", "128", "--in-flight", "8"),
        "--publishes",
        16,
        ("bare loop", "hubbub, 4 workers"),
    ),
    Workload(
        "publisher",
        "another program publishes 100 bytes to a topic with one subscriber, until that has the last message",
        "publishes",
        "rate",
        "fanout",
        ("receive", "--size", "100"),
        "--messages",
        20_000,
        ("hubbub",),
        sender="hubbub_publisher.py",
    ),
)

TARGETS = (
    Target("x1", "hubbub", "picows", 0.90),
    Target("x16", "hubbub", "picows", 0.12),
    Target("16K", "hubbub", "picows", 0.60),
    Target("fan-out", "hubbub", "picows", 0.20),
    *(
        (
            Target("x1", "hubbub, async def", "hubbub", 1.25),
            Target("x16", "hubbub, async def", "hubbub", 3.0),
        )
        if sys.version_info >= (3, 12)
        else ()
    ),
    *(Target(f"connections-{count}", "hubbub", "bare loop", 1.3) for count in CONNECTIONS),
    Target("idle", "hubbub", None, 1024),
    Target("handshake", "hubbub, embedded", "picows", 0.40),
    Target("handshake", "hubbub", "picows", 0.45),
    Target("x1", "hubbub, wss", "hubbub", 1.35),
    Target("x1", "hubbub, 2 workers", "hubbub", 1.10),
    Target("cross-push", "hubbub, other worker", "hubbub, same worker", 1.8),
    Target("broadcast-4000", "hubbub, 4 workers", "bare loop", 1.2),
    Target("publisher", "hubbub", None, at_least=200_000),
)
