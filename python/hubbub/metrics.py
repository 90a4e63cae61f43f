"""Metrics for Prometheus, at `/metrics` of a port of its own on 127.0.0.1.

Whoever asks makes a thread of the master read what all processes have counted; the workers do not notice. Counters are
those of the whole server: what a worker has counted before it died stays in them, so they never go back.
"""

import errno
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .errors import CannotServe

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import Metric

__all__ = ["Exposition"]

# The counters that are totals of `stats`, by what they are called there.
COUNTERS = {
    "accepted": ("hubbub_accepted", "Handshakes accepted."),
    "messages_dropped": ("hubbub_messages_dropped", 'Messages dropped by slow_consumer="drop".'),
    "commands_dropped": ("hubbub_commands_dropped", "Calls from other threads and processes beyond what may wait."),
    "restarts": ("hubbub_restarts", "Workers replaced after they had died."),
    "slow_consumers_closed": ("hubbub_slow_consumers_closed", "Connections closed with 1013, their outbox full."),
}
# Those that come in two directions.
TRAFFIC = {
    "messages": ("hubbub_messages", "WebSocket messages."),
    "bytes": ("hubbub_bytes", "Bytes of their payload."),
}
# What is so now, of each worker.
GAUGES = {
    "connections": ("hubbub_connections", "Open WebSockets."),
    "queued_bytes": ("hubbub_queued_bytes", "Unsent bytes in outboxes."),
}
TIMES = {
    "turns": ("hubbub_turn_seconds", "Turns of the reactors, the handlers that they call included."),
    "handlers": ("hubbub_handler_seconds", "Time for which a handler's call holds the event loop, of every 64th call."),
}


class Collector:
    """Makes Prometheus' metrics of what was measured."""

    def __init__(self, measure: Callable[[], dict[str, Any]]) -> None:
        """Make it of `Hub.metrics` or `Reactor.metrics`."""
        self._measure = measure

    def collect(self) -> "Iterator[Metric]":
        """Yield all metrics, as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        measured = self._measure()
        stats = measured["stats"]
        for key, (name, text) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["worker"])
            for worker in stats["workers"]:
                gauge.add_metric([str(worker["worker_id"])], worker[key])
            yield gauge
        stuck = GaugeMetricFamily("hubbub_worker_stuck", "1 while the event loop stands still.", labels=["worker"])
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
            "WebSockets ended, by the code of their `close` event; 3000 and 4000 stand for the thousand from there on.",
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
        for key, (name, text) in TIMES.items():
            buckets, seconds = measured[key]
            yield HistogramMetricFamily(name, text, buckets=list(_cumulative(buckets)), sum_value=seconds)
        yield GaugeMetricFamily("hubbub_start_time_seconds", "When the server was started.", value=stats["started_at"])


def _cumulative(buckets: list[tuple[float, int]]) -> Iterator[tuple[str, int]]:
    total = 0
    for bound, count in buckets:
        total += count
        yield "+Inf" if bound == math.inf else str(bound), total


class Exposition:
    """The HTTP server of the metrics, in a thread of its own."""

    def __init__(self, port: int, measure: Callable[[], dict[str, Any]]) -> None:
        """Begin to answer.

        Args:
            port: The port on 127.0.0.1.
            measure: `Hub.metrics` or `Reactor.metrics`.

        Raises:
            CannotServe: The port is in use, or the package `prometheus-client` is missing.
        """
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            wanted = "metrics_port needs the package prometheus-client: pip install 'hubbub[metrics]'"
            raise CannotServe(errno.ENOENT, wanted) from None
        registry = CollectorRegistry()
        registry.register(Collector(measure))
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, "127.0.0.1", registry)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise CannotServe(error.errno, f"cannot serve metrics on 127.0.0.1 port {port}: {reason}") from error

    def close(self) -> None:
        """Stop to answer, within half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
