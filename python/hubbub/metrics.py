"""Metrics for Prometheus, at `/metrics` of a port of its own on 127.0.0.1.

Each scrape makes a thread of the master read the counters of all processes; the workers are not involved. Counters are
for the whole server, and include the counts of workers that have died, so they never decrease.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import _core
from .errors import CannotServe

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Exposition"]

log = logging.getLogger("hubbub")

# Connections served at the same time, and connections that the kernel queues meanwhile.
MAX_CONNECTIONS = 32
BACKLOG = 128
# Seconds for a request and its answer, and bytes of a request.
MAX_VISIT = 5.0
MAX_HEAD = 16 * 1024
# Seconds until the next attempt to accept after a failed one, and between two log lines about that.
RETRY = 0.1
COMPLAINT_INTERVAL = 10.0

# The counters that are totals of `stats`, by their names there.
COUNTERS = {
    "accepted": ("hubbub_accepted", "Handshakes accepted."),
    "messages_dropped": ("hubbub_messages_dropped", 'Messages dropped by slow_consumer="drop".'),
    "messages_expired": ("hubbub_messages_expired", "Messages left out because they waited for longer than ttl."),
    "messages_replaced": ("hubbub_messages_replaced", "Messages replaced by a later one with the same key."),
    "history_evicted": ("hubbub_history_evicted", "Messages removed from histories beyond history_memory."),
    "commands_dropped": (
        "hubbub_commands_dropped",
        "Calls from other threads and processes dropped because a queue was full.",
    ),
    "subscriptions_refused": (
        "hubbub_subscriptions_refused",
        "Subscriptions refused because the connection had max_topics.",
    ),
    "restarts": ("hubbub_restarts", "Workers replaced after they died."),
    "slow_consumers_closed": (
        "hubbub_slow_consumers_closed",
        "Connections closed with 1013 because their outbox was full.",
    ),
}
# Counters with two directions.
TRAFFIC = {
    "messages": ("hubbub_messages", "WebSocket messages."),
    "bytes": ("hubbub_bytes", "Payload bytes of WebSocket messages."),
}
# Current values of each worker.
GAUGES = {
    "connections": ("hubbub_connections", "Open WebSockets."),
    "queued_bytes": ("hubbub_queued_bytes", "Unsent bytes in outboxes."),
    "outliving": ("hubbub_outliving_handlers", "Connections that have ended but whose handlers are still running."),
    "held_bytes": ("hubbub_held_bytes", "Memory that connections hold for queued output and unfinished input."),
}
TIMES = {
    "turns": ("hubbub_turn_seconds", "Duration of the reactors' turns, including the handlers that they call."),
    "handlers": (
        "hubbub_handler_seconds",
        "How long a handler's call holds the event loop; every 64th call is measured.",
    ),
}


class Collector:
    """Converts measurements to Prometheus metrics."""

    def __init__(self, measure: Callable[[], dict[str, Any]]) -> None:
        """Create a collector that calls `Hub.metrics` or `Reactor.metrics`."""
        self._measure = measure

    def collect(self) -> "Iterator[Metric]":
        """Yield the current values of all metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        measured = self._measure()
        stats = measured["stats"]
        for key, (name, text) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["worker"])
            for worker in stats["workers"]:
                gauge.add_metric([str(worker["worker_id"])], worker[key])
            yield gauge
        stuck = GaugeMetricFamily("hubbub_worker_stuck", "1 while the event loop is blocked.", labels=["worker"])
        for worker_id, is_stuck in measured["stuck"].items():
            stuck.add_metric([str(worker_id)], int(is_stuck))
        yield stuck
        for key, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, value=stats[key])
        for key, (name, text) in TRAFFIC.items():
            traffic = CounterMetricFamily(name, text, labels=["direction"])
            for direction in ("in", "out"):
                traffic.add_metric([direction], stats[f"{key}_{direction}"])
            yield traffic
        closed = CounterMetricFamily(
            "hubbub_closed",
            "WebSockets ended, by close code; 3000 stands for 3000 to 3999, and 4000 for 4000 to 4999.",
            labels=["code"],
        )
        for code, count in measured["closed"].items():
            closed.add_metric([str(code)], count)
        yield closed
        refused = CounterMetricFamily(
            "hubbub_refused", "Requests refused, by status; 101 is a refusal with a close code.", labels=["status"]
        )
        for status, count in measured["refused"].items():
            refused.add_metric([str(status) if status else "other"], count)
        yield refused
        for_memory = CounterMetricFamily(
            "hubbub_memory_closed",
            "Connections closed because a worker's connections together held more than max_memory, by what they held: "
            "output, input (an unfinished message) or body (an unfinished request).",
            labels=["held"],
        )
        for held, count in measured["closed_for_memory"].items():
            for_memory.add_metric([held], count)
        yield for_memory
        for key, (name, text) in TIMES.items():
            buckets, seconds = measured[key]
            yield HistogramMetricFamily(name, text, buckets=list(_cumulative(buckets)), sum_value=seconds)
        yield GaugeMetricFamily("hubbub_start_time_seconds", "When the server was started.", value=stats["started_at"])
        if measured["broker"] is not None:
            is_up, losses, hosts = measured["broker"]
            yield GaugeMetricFamily("hubbub_broker_up", "1 while the broker can be reached.", value=int(is_up))
            yield CounterMetricFamily(
                "hubbub_broker_lost", "How often the broker could not be reached any more.", value=losses
            )
            yield GaugeMetricFamily("hubbub_hosts", "Hosts that are alive, this one included.", value=hosts)


def _cumulative(buckets: list[tuple[float, int]]) -> Iterator[tuple[str, int]]:
    total = 0
    for bound, count in buckets:
        total += count
        yield "+Inf" if bound == math.inf else str(bound), total


class Exposition:
    """The HTTP server of the metrics: one thread, and a limited number of connections, each for a limited time.

    If the limit is reached, a new connection replaces the oldest one, so that a scrape is answered however many other
    clients connect and stay silent.
    """

    def __init__(self, port: int, measure: Callable[[], dict[str, Any]]) -> None:
        """Start serving.

        Args:
            port: The port on 127.0.0.1.
            measure: `Hub.metrics` or `Reactor.metrics`.

        Raises:
            CannotServe: The port is in use, or the package `prometheus-client` is missing.
        """
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError:
            wanted = "metrics_port needs the package prometheus-client: pip install prometheus-client"
            raise CannotServe(errno.ENOENT, wanted) from None
        registry = CollectorRegistry()
        registry.register(Collector(measure))
        self._application = make_wsgi_app(registry)
        self._port = port
        self._places: dict[asyncio.Task[None], None] = {}
        self._has_ended = threading.Event()
        try:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise CannotServe(error.errno, f"cannot serve metrics on 127.0.0.1 port {port}: {reason}") from error
        self._listener.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._accepting = self._loop.create_task(self._accept())
        threading.Thread(target=self._run, name="hubbub-metrics", daemon=True).start()

    def close(self) -> None:
        """Stop accepting. Connections already accepted are still answered, if their request arrives soon."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._has_ended.wait()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(asyncio.wait([self._accepting]))
            self._listener.close()
            self._has_ended.set()
            if self._places:
                self._loop.run_until_complete(asyncio.wait(list(self._places)))
        finally:
            self._has_ended.set()
            self._loop.close()

    async def _accept(self) -> None:
        next_told = 0.0
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                if self._loop.time() >= next_told:
                    next_told = self._loop.time() + COMPLAINT_INTERVAL
                    log.warning("metrics: no connection can be accepted: %s", _core.explain(error.errno or 0))
                await asyncio.sleep(RETRY)
                continue
            if len(self._places) >= MAX_CONNECTIONS:
                longest = next(iter(self._places))
                del self._places[longest]
                longest.cancel()
            place = self._loop.create_task(self._serve(connection))
            self._places[place] = None
            place.add_done_callback(lambda place: self._places.pop(place, None))
            await asyncio.sleep(0)

    async def _serve(self, connection: socket.socket) -> None:
        """Answer one request, and close."""
        with connection, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(MAX_VISIT):
                if head := await self._head(connection):
                    await self._loop.sock_sendall(connection, self._answer(head))
                    connection.shutdown(socket.SHUT_WR)
                    # Closing a socket with unread input resets it, and the client may lose the answer.
                    read = 0
                    while read < MAX_HEAD and (more := await self._loop.sock_recv(connection, MAX_HEAD)):
                        read += len(more)

    async def _head(self, connection: socket.socket) -> bytes | None:
        """Read a request's head; return `None` if none arrives, or it is too long."""
        head = b""
        while b"\r\n\r\n" not in head:
            more = await self._loop.sock_recv(connection, MAX_HEAD)
            head += more
            if not more or len(head) > MAX_HEAD:
                return None
        return head.partition(b"\r\n\r\n")[0]

    def _answer(self, head: bytes) -> bytes:
        """Let prometheus-client answer a request."""
        request, *fields = head.decode("latin-1").split("\r\n")
        method, _, target = request.partition(" ")
        path, _, query = target.partition(" ")[0].partition("?")
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
        for field in fields:
            name, _, value = field.partition(":")
            environ["HTTP_" + name.upper().replace("-", "_")] = value.strip()
        answer: list[str] = []

        def begin(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], object]:
            lines = (f"{name}: {value}" for name, value in headers)
            answer.extend((f"HTTP/1.1 {status}", *lines))
            return lambda body: None

        body = b"".join(self._application(environ, begin))
        answer += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        return "\r\n".join(answer).encode("latin-1") + (b"" if method == "HEAD" else body)
