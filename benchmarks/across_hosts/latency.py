"""Latency of pushes to another host, beside pushes within a host."""

import select
import time
from collections.abc import Sequence
from contextlib import ExitStack

from across_hosts.bench import Bench, Target, median, percentile, spread
from across_hosts.clients import HUBBUB, Client, Receivers, close, wait_until_heard
from processes import Failed

RATE = 2000
"""Messages per second."""


def latency(bench: Bench) -> list[Target]:
    """Push in turn to connections of the same worker, of another worker of the same host, and of another host."""
    kinds = ("the same worker", "another worker", "another host")
    measured: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    with bench.hosts(2, workers=2) as hosts, ExitStack() as stack:
        clients = [Client(hosts[0].port, HUBBUB) for _ in range(8)] + [Client(hosts[1].port, HUBBUB)]
        stack.callback(close, clients)
        sender = clients[0]
        on_host = clients[1:-1]
        targets = [
            next(client for client in on_host if client.worker == sender.worker),
            next(client for client in on_host if client.worker != sender.worker),
            clients[-1],
        ]
        receivers = Receivers(targets)
        to_each = b"".join(HUBBUB.sent(0, f"{client.id} ") for client in targets)
        wait_until_heard(lambda: sender.socket.sendall(to_each), receivers, HUBBUB.heard(0))
        for round_ in range(bench.rounds + 1):
            found = latencies(sender, targets, int(RATE * bench.seconds * (2 if round_ else 0.3)))
            for kind, values in zip(kinds, found, strict=True):
                if round_:
                    measured[kind].append(values)
    rows = (
        (
            kind,
            spread([median(values) for values in of_one]),
            spread([percentile(values, 0.99) for values in of_one]),
        )
        for kind, of_one in measured.items()
    )
    bench.show(
        f"Latency of a push, in turn to each, {RATE:,} a second in all",
        ("to a connection of", "median, µs", "99th percentile, µs"),
        rows,
        "From the message that the handler pushes on, until the push has arrived.",
    )
    far = measured["another host"]
    return [
        Target(
            f"µs more in the median to another host than to {kind}",
            median([median(other) - median(near) for near, other in zip(measured[kind], far, strict=True)]),
            at_most=150,
        )
        for kind in kinds[:-1]
    ]


def latencies(sender: Client, targets: Sequence[Client], count: int) -> list[list[float]]:
    """Return the µs of each push, by its target."""
    found: list[list[float]] = [[] for _ in targets]
    ids = [client.id for client in targets]
    frames = [HUBBUB.sent(number, f"{ids[number % len(targets)]} ") for number in range(count)]
    sent_at = [0.0] * count
    sockets = [client.socket for client in targets]
    begin = time.perf_counter()
    sent, heard = 0, 0
    last_at = begin
    while heard < count:
        now = time.perf_counter()
        due = begin + sent / RATE
        if sent < count and due <= now:
            sent_at[sent] = time.perf_counter()
            sender.socket.sendall(frames[sent])
            sent += 1
            continue
        ready = select.select(sockets, [], [], due - now if sent < count else 1.0)[0]
        at = time.perf_counter()
        for socket in ready:
            place = sockets.index(socket)
            data = socket.recv(65_536)
            length = len(HUBBUB.heard(0))
            for begin_of in range(0, len(data), length):
                number = int(data[begin_of + 2 : begin_of + 18], 16)
                found[place].append(1e6 * (at - sent_at[number]))
                heard += 1
                last_at = at
        if at - last_at > 10:
            raise Failed(f"{count - heard} pushes did not arrive")
    return found
