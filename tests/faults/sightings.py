"""Watches what a server reports about its connections, and finds answers that cannot be true."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hubbub import ConnectionInfo

WORKERS = 3
# Clocks are read in milliseconds, and rounded.
SLACK = 0.01
# More connections than are ever open at the same time, including those of dead workers; more bytes than are sent.
MOST = 500
MAX_BYTES = 1 << 30

# Totals that only grow.
GROWING = (
    "accepted",
    "refused",
    "closed",
    "messages_in",
    "messages_out",
    "bytes_in",
    "bytes_out",
    "messages_dropped",
    "messages_expired",
    "messages_replaced",
    "history_evicted",
    "commands_dropped",
    "slow_consumers_closed",
    "memory_closed",
    "restarts",
)


class Sightings:
    """Collects reports about connections: their ids and ports, and impossible answers."""

    def __init__(
        self,
        connections: Callable[[], Collection[int]],
        exists: Callable[[int], bool],
        info: Callable[[int], ConnectionInfo | None],
        stats: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Use these four methods of a server or a publisher."""
        self._connections = connections
        self._exists = exists
        self._info = info
        self._stats = stats
        self._looks = 0
        self._faults: list[str] = []
        self._seen: dict[int, ConnectionInfo] = {}
        self._gone: set[int] = set()
        """Those that did not exist any more."""
        self._totals: Mapping[str, Any] = {}

    def look(self) -> None:
        """Ask for everything once; any exception counts as a fault too."""
        self._looks += 1
        try:
            self._look_at_stats()
            connections = self._connections()
            self._expect(0 <= len(connections) < MOST, f"{len(connections)} connections")
            ids = list(connections)
            self._expect(len(ids) == len(set(ids)), f"ids twice in {ids}")
            self._expect(self._gone.isdisjoint(ids), f"{self._gone.intersection(ids)} are there again")
            for fd in ids:
                self._expect(0 < fd < 1 << 53, f"id {fd}")
                self._look_at(fd)
                if not self._exists(fd):
                    self._gone.add(fd)
        except Exception as error:
            self._expect(False, repr(error))

    def report(self) -> dict[str, Any]:
        """Return, as JSON can hold it: how often it looked, the faults, and the port seen of each id."""
        ports = [[fd, info.client[1], info.worker_id] for fd, info in self._seen.items()]
        return {"looks": self._looks, "faults": self._faults, "ports": ports}

    def _expect(self, is_so: bool, otherwise: str) -> None:
        # The first faults are enough.
        if not is_so and len(self._faults) < 10:
            self._faults.append(otherwise)

    def _look_at(self, fd: int) -> None:
        info = self._info(fd)
        if info is None:
            return
        before = self._seen.setdefault(fd, info)
        is_same = (info.fd, info.client, info.worker_id, info.opened_at) == (
            fd,
            before.client,
            before.worker_id,
            before.opened_at,
        )
        self._expect(is_same, f"{fd}: {before}, and then {info}")
        self._expect(info.client[0] == "127.0.0.1" and info.worker_id in range(WORKERS), f"{info}")
        self._expect(info.opened_at <= info.last_received_at <= time.time() + SLACK, f"{info} at {time.time()}")
        for name in ("messages_in", "messages_out", "bytes_in", "bytes_out"):
            self._expect(getattr(before, name) <= getattr(info, name) < MAX_BYTES, f"{name}: {before}, then {info}")
        self._expect(0 <= info.queued_bytes < MAX_BYTES, f"{info}")
        self._seen[fd] = info

    def _look_at_stats(self) -> None:
        stats = self._stats()
        for name in GROWING:
            before = self._totals.get(name, 0)
            self._expect(before <= stats[name] < MAX_BYTES, f"{name}: {before}, and then {stats[name]}")
        self._totals = stats
        for counts in (stats, *stats["workers"]):
            self._expect(0 <= counts["connections"] < MOST, f"{counts}")
            self._expect(counts["closed"] + counts["connections"] <= counts["accepted"], f"{counts}")
            self._expect(counts["started_at"] <= time.time() + SLACK, f"{counts} at {time.time()}")
        self._expect({each["worker_id"] for each in stats["workers"]} <= set(range(WORKERS)), f"{stats['workers']}")
