"""What each of the two commands measures, how often, and which targets the results must meet."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from servers import LIMIT
from workloads import (
    BROADCAST,
    CROSS_PUSH,
    FAN_OUT,
    FAN_OUT_COMPRESSED,
    FASTAPI,
    FILE,
    HANDSHAKE,
    HTTP,
    IDLE,
    KEPT,
    LARGE,
    PUBLISHER,
    RATES,
    STREAM,
    X1,
    X16,
    Workload,
    connections,
    latency,
)

START_SECONDS = 0.6
"""About how long a server takes to start and to stop."""
OPENING_SECONDS = 0.0003
"""About how long one connection takes to open and to close."""


@dataclass(frozen=True)
class Target:
    """The required result of `server`: as a share of `peer`'s result, or an absolute value without a peer."""

    workload: str
    server: str
    peer: str | None
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that one command measures.

    Attributes:
        name: Its `make` target.
        workloads: The workloads; each names its servers.
        targets: What the results must meet.
        rounds: How many rounds there are; each measures every server of a workload once.
        seconds: About how long one measurement takes, except of memory.
    """

    name: str
    workloads: tuple[Workload, ...]
    targets: tuple[Target, ...]
    rounds: int
    seconds: float

    def rounds_of(self, workload: Workload) -> int:
        """Return how many rounds a workload has."""
        return min(self.rounds, workload.rounds or self.rounds)

    def expected_seconds(self, servers: Sequence[str]) -> float:
        """Return about how long all of it takes on these servers; a workload may use only some of them."""
        return sum(
            self.warm_up_seconds(workload) + self.rounds_of(workload) * self.round_seconds(workload)
            for workload in self.workloads
            for server in workload.servers
            if server in servers
        )

    def warm_up_seconds(self, workload: Workload) -> float:
        """About how long it takes until a server of a workload is ready to be measured."""
        if workload.measure == "memory":
            return 0.0
        warming_up = 0.5 if workload.rate is not None else 1.5
        return START_SECONDS + warming_up * self.seconds + 2 * workload.connections * OPENING_SECONDS

    def round_seconds(self, workload: Workload) -> float:
        """About how long one measurement takes."""
        opening = workload.connections * OPENING_SECONDS
        return opening + (START_SECONDS if workload.measure == "memory" else workload.longer * self.seconds)


BENCH_SERVERS = (LIMIT, "hubbub", "picows", "websockets", "uvicorn")
CONNECTIONS = (10, 100, 1000, 10_000)

BENCH = Plan(
    name="bench",
    workloads=(
        X1.on(*BENCH_SERVERS, "hubbub, async def", "hubbub, wss", "hubbub, 2 workers", "hubbub, ASGI"),
        X16.on(*BENCH_SERVERS, "hubbub, async def", "hubbub, ASGI"),
        LARGE.on(*BENCH_SERVERS),
        FAN_OUT.on(*BENCH_SERVERS, "hubbub, history"),
        *(connections(count).on(LIMIT, "hubbub") for count in CONNECTIONS),
        HANDSHAKE.on(*BENCH_SERVERS, "hubbub, embedded"),
        # Memory varies little from round to round.
        IDLE.on("hubbub", "picows", "websockets", "uvicorn").in_rounds(5),
        KEPT.on("hubbub", "hubbub, ASGI").in_rounds(3),
        CROSS_PUSH.on("hubbub, same worker", "hubbub, other worker"),
        BROADCAST.on(LIMIT, "hubbub, 4 workers"),
        PUBLISHER.on("hubbub"),
        *(latency(rate).on(LIMIT, "hubbub", "picows").in_rounds(3) for rate in RATES),
        HTTP.on("hubbub", "hubbub, ASGI", "uvicorn", "granian, ASGI").in_rounds(3),
        *(workload.on("hubbub, ASGI", "uvicorn").in_rounds(3) for workload in (FASTAPI, STREAM, FILE)),
    ),
    targets=(
        Target("x1", "hubbub", "picows", 0.90),
        Target("x16", "hubbub", "picows", 0.12),
        Target("16K", "hubbub", "picows", 0.60),
        Target("fan-out", "hubbub", "picows", 0.20),
        Target("fan-out", "hubbub, history", "hubbub", 1.3),
        *(
            (
                Target("x1", "hubbub, async def", "hubbub", 1.25),
                Target("x16", "hubbub, async def", "hubbub", 3.0),
            )
            if sys.version_info >= (3, 12)
            else ()
        ),
        Target("x1", "hubbub, ASGI", "uvicorn", 0.35),
        Target("x16", "hubbub, ASGI", "uvicorn", 0.15),
        Target("http", "hubbub, ASGI", "granian, ASGI", 0.60),
        Target("http", "hubbub, ASGI", "uvicorn", 0.35),
        Target("fastapi", "hubbub, ASGI", "uvicorn", 0.90),
        Target("stream", "hubbub, ASGI", "uvicorn", 0.50),
        Target("file", "hubbub, ASGI", "uvicorn", 0.20),
        *(Target(f"connections-{count}", "hubbub", LIMIT, 1.3) for count in CONNECTIONS),
        Target("idle", "hubbub", None, 1024),
        *(Target("kept", server, None, 1024) for server in ("hubbub", "hubbub, ASGI")),
        Target("handshake", "hubbub, embedded", "picows", 0.40),
        Target("handshake", "hubbub", "picows", 0.45),
        Target("x1", "hubbub, wss", "hubbub", 1.35),
        Target("x1", "hubbub, 2 workers", "hubbub", 1.10),
        Target("cross-push", "hubbub, other worker", "hubbub, same worker", 1.8),
        Target("broadcast-4000", "hubbub, 4 workers", LIMIT, 1.2),
        Target("publisher", "hubbub", None, at_least=200_000),
        *(Target(f"latency-{rate}", "hubbub", LIMIT, 1.4) for rate in RATES),
        *(Target(f"latency-{rate}", "hubbub", "picows", 1.0) for rate in RATES),
    ),
    rounds=8,
    seconds=1.0,
)

HUBBUB = ("hubbub", "hubbub, async def", "hubbub, 2 workers", "hubbub, 2 workers, async def")
COMPRESSING_PEERS = ("picows", "websockets", "aiohttp", "Starlette on uvicorn", "socketify")
ALL_PEERS = ("picows", "websockets", "aiohttp", "Starlette on uvicorn", "granian", "socketify")

BENCH_ALL = Plan(
    name="bench-all",
    workloads=(
        X1.on(LIMIT, *HUBBUB, *ALL_PEERS),
        X16.on(LIMIT, *HUBBUB, *ALL_PEERS),
        LARGE.on(LIMIT, *HUBBUB, *ALL_PEERS),
        FAN_OUT.on(LIMIT, "hubbub", "hubbub, 2 workers", *ALL_PEERS),
        FAN_OUT_COMPRESSED.on("hubbub", "hubbub, 2 workers", *COMPRESSING_PEERS),
        HANDSHAKE.on(LIMIT, "hubbub", "hubbub, 2 workers", *ALL_PEERS),
        IDLE.on("hubbub", "hubbub, 2 workers", *ALL_PEERS).in_rounds(3),
        *(latency(rate).on(LIMIT, *HUBBUB, *ALL_PEERS) for rate in RATES),
        *(connections(count).on(LIMIT, "hubbub", *ALL_PEERS).in_rounds(3) for count in (*CONNECTIONS, 15_000)),
    ),
    targets=(),
    rounds=5,
    seconds=1.0,
)

PLANS = {plan.name: plan for plan in (BENCH, BENCH_ALL)}
