"""The same messages to a room whose members are on two hosts, through Hubbub and through its peers."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from across_hosts.bench import Bench, Sample, Target, median, spread
from across_hosts.clients import (
    HUBBUB,
    PLAIN,
    SOCKET_IO,
    Client,
    Dialect,
    Load,
    Receivers,
    close,
    wait_until_heard,
)
from across_hosts.servers import hubbubs, peers
from processes import Failed

MEMBERS = 50
"""Members of the larger room on each host."""
FLIGHT = 64
"""Messages that may be on their way. Some of the peers drop messages when it is more than 100."""


@dataclass(frozen=True)
class Peer:
    """A server that two hosts run."""

    name: str
    dialect: Dialect
    program: str = ""
    options: tuple[str, ...] = ()
    to: str = ""


PEERS = (
    Peer("hubbub", HUBBUB, to="room "),
    Peer("python-socketio, Redis manager", SOCKET_IO, "socketio_server.py"),
    Peer("Django Channels, RedisChannelLayer", PLAIN, "channels_server.py"),
    Peer("Django Channels, RedisPubSubChannelLayer", PLAIN, "channels_server.py", ("--layer", "pubsub")),
)


class Running:
    """Two hosts of a server, with their clients."""

    def __init__(self, bench: Bench, peer: Peer, members: Sequence[int], stack: ExitStack) -> None:
        """Start it, and connect as many members as each host has."""
        self.peer = peer
        self._bench = bench
        if peer.program:
            running = peers(bench.redis, peer.name, peer.program, *peer.options)
            self.hosts = stack.enter_context(running)
        else:
            self.hosts = stack.enter_context(hubbubs(bench.redis, bench.directory, 2))
        self._sender = Client(self.hosts[0].port, peer.dialect)
        clients = [
            Client(host.port, peer.dialect, "room")
            for host, count in zip(self.hosts, members, strict=True)
            for _ in range(count)
        ]
        stack.callback(close, [self._sender, *clients])
        self._receivers = Receivers(clients)
        first = peer.dialect.sent(0, peer.to)
        wait_until_heard(lambda: self._sender.socket.sendall(first), self._receivers, peer.dialect.heard(0))
        self.samples: list[Sample] = []

    def take(self) -> None:
        """Measure once."""
        try:
            self.samples.append(self._bench.measure_for_long(self.hosts, self._receivers, self._load))
        except (Failed, OSError) as failure:
            said = "\n".join(host.said() for host in self.hosts)
            raise Failed(f"{self.peer.name}: {failure}\n{said}") from None
        received = [client.take() for client in self._receivers.clients]
        if self.peer.program:
            length = len(self.peer.dialect.heard(0))
            received = [
                b"".join(sorted(each[at : at + length] for at in range(0, len(each), length))) for each in received
            ]
        if any(each != self._expected for each in received):
            raise Failed(f"{self.peer.name}: the messages of a run did not arrive as they should")

    def _load(self, chunks: int) -> Load:
        dialect, per_chunk, to = self.peer.dialect, 8, self.peer.to
        numbers = range(chunks * per_chunk)
        frames = [
            b"".join(dialect.sent(number, to) for number in numbers[begin : begin + per_chunk])
            for begin in numbers[::per_chunk]
        ]
        self._expected = b"".join(dialect.heard(number) for number in numbers)
        clients = len(self._receivers.clients)
        send = lambda chunk: self._sender.socket.sendall(frames[chunk])  # noqa: E731
        return Load(send, chunks, per_chunk, clients, len(dialect.heard(0)), FLIGHT)


def beside_peers(bench: Bench) -> list[Target]:
    """Send messages to a room whose members are on two hosts, through Hubbub and its peers in turn."""
    targets = []
    for members, what in (
        ((0, 1), "one member, on the other host"),
        ((MEMBERS, MEMBERS), f"{MEMBERS} members on each host"),
    ):
        bench.redis.flush()
        with ExitStack() as stack:
            running = [Running(bench, peer, members, stack) for peer in PEERS]
            for round_ in range(bench.rounds):
                for turn in range(len(running)):
                    running[(round_ + turn) % len(running)].take()
        ours = running[0]
        rows = []
        for each in running:
            costs = [whole(sample) for sample in each.samples]
            ratios = [theirs / whole(sample) for theirs, sample in zip(costs, ours.samples, strict=True)]
            rows.append(
                (
                    each.peer.name,
                    spread([sample.rate for sample in each.samples]),
                    spread(costs),
                    spread([1e6 / cost for cost in costs]),
                    spread([sample.redis for sample in each.samples]),
                    "–" if each is ours else spread(ratios),
                )
            )
            if each is not ours:
                targets.append(
                    Target(f"times the rate per core of {each.peer.name}; {what}", median(ratios), at_least=20)
                )
        bench.show(
            f"Messages of 64 bytes to a room: {what}",
            (
                "server",
                "messages/s",
                "both servers, µs of CPU time",
                "messages/s per core",
                "Redis, µs of CPU time",
                "ratio",
            ),
            rows,
            f"A client sends, with {FLIGHT} messages on their way. All processes of both servers count, not Redis.",
        )
    return targets


def whole(sample: Sample) -> float:
    """Return the CPU time of all servers."""
    return (sample.sender + sample.receiver).whole
