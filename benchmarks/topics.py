"""What topics with history cost beyond `run.py`: the hub's share of a publish, and a crowd that resumes.

    python benchmarks/topics.py [--clients 10000] [--publishes 200000] [--topics 2000] [--rounds 3]

Prints the CPU time of the hub's thread for each publish by another program, to a topic with a history of 100 messages
and to one without options; the memory of topics in the master; and the time from the death of the only worker until all
its clients have reconnected, and until they have reconnected and resumed 10 messages each. Needs hubbub in this Python,
Linux, and room for as many open files as there are clients.
"""

import argparse
import contextlib
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hubbub import Publisher

PROGRAM = Path(__file__).parent / "peers" / "hubbub_topics_server.py"
ROOMS = 100
MISSED = 10
# Messages that an outbox has room for.
AT_ONCE = 10_000
# Clients that connect at the same time.
CONNECTING = 256
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
HEAD = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + KEY
PATIENCE = 60


@dataclass
class Server:
    """A running server."""

    pid: int
    port: int
    control: Path

    @property
    def worker(self) -> int:
        """The process id of the worker."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def memory(self) -> int:
        """Return the memory of the master in bytes."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))

    def hub_seconds(self) -> float:
        """Return the CPU time of the hub's thread so far."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            if (thread / "comm").read_text() == "hubbub-hub\n":
                return int((thread / "schedstat").read_text().split()[0]) / 1e9
        raise LookupError("there is no thread of that name")


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server."""
    with tempfile.TemporaryDirectory() as directory:
        control = Path(directory) / "control"
        command = [sys.executable, str(PROGRAM), "--control", str(control)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout
        try:
            yield Server(process.pid, int(process.stdout.readline()), control)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


class Client:
    """A WebSocket that waits for the outcome of its join, or for a greeting."""

    def __init__(self, port: int, query: str) -> None:
        """Begin to connect."""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.received = b""
        self._query = query
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))

    def send_head(self) -> None:
        """Ask for the upgrade, once connected."""
        self.socket.sendall(f"GET /?{self._query} HTTP/1.1\r\n".encode() + HEAD)

    def reads_last(self) -> bool:
        """Read what has come; return whether it ends with what the client waits for."""
        while True:
            try:
                data = self.socket.recv(65_536)
            except BlockingIOError:
                break
            if not data:
                raise ConnectionError("the server has closed a connection")
            self.received += data
        return b"joined " in self.received or self.received.endswith(b"welcome")

    @property
    def outcome(self) -> list[str]:
        """The words of the outcome."""
        return self.received[self.received.rindex(b"joined ") :].decode().split()[1:]


def connect_all(port: int, queries: list[str]) -> list[Client]:
    """Connect a client for each query, and wait until all have what they wait for."""
    poll = select.epoll()
    clients: dict[int, Client] = {}
    done: list[Client] = []
    waiting = iter(queries)
    deadline = time.monotonic() + PATIENCE
    while len(done) < len(queries):
        assert time.monotonic() < deadline, f"{len(done)} of {len(queries)} clients are served"
        while len(clients) - len(done) < CONNECTING and (query := next(waiting, None)) is not None:
            client = Client(port, query)
            clients[client.socket.fileno()] = client
            poll.register(client.socket, select.EPOLLOUT)
        for descriptor, flags in poll.poll(1):
            client = clients[descriptor]
            if flags & select.EPOLLOUT:
                client.send_head()
                poll.modify(descriptor, select.EPOLLIN)
            elif client.reads_last():
                poll.unregister(descriptor)
                done.append(client)
    poll.close()
    return done


def hub_cost(publishes: int) -> dict[str, float]:
    """Return the µs of the hub's thread for each publish, by the kind of topic."""
    costs = {}
    with serving() as server, Publisher(server.control) as hub:
        for kind, topic in (("without options", "plain"), ("with history", "kept:1")):
            client = connect_all(server.port, [f"topic={topic}"])[0]
            client.socket.setblocking(True)
            for count in (publishes // 10, publishes):
                before = server.hub_seconds()
                for begin in range(0, count, AT_ONCE):
                    publish(hub, topic, min(AT_ONCE, count - begin), client)
                costs[kind] = (server.hub_seconds() - before) / count * 1e6
            client.socket.close()
    return costs


def publish(hub: Publisher, topic: str, count: int, client: Client) -> None:
    """Publish messages, and wait until a subscriber has them."""
    message, last = "x" * 100, "the last one"
    for _ in range(count - 1):
        hub.publish(topic, message)
    hub.publish(topic, last)
    received = b""
    while not received.endswith(last.encode()):
        part = client.socket.recv(1 << 20)
        if not part:
            raise ConnectionError("the server has closed the connection of the subscriber")
        received = received[-100:] + part


def memory_of_topics(count: int) -> tuple[float, float]:
    """Return the bytes of the master for each topic: without messages, and with 100 messages of 100 bytes."""
    with serving() as server, Publisher(server.control) as hub:
        hub.history("kept:first")
        before = server.memory()
        for number in range(10 * count):
            hub.history(f"kept:empty {number}", limit=1)
        empty = (server.memory() - before) / (10 * count)
        before = server.memory()
        for number in range(count):
            for _ in range(100):
                hub.publish(f"kept:full {number}", "x" * 100)
        hub.stats()
        return empty, (server.memory() - before) / count


def resuming(count: int) -> tuple[float, float]:
    """Return the seconds until all have reconnected, and until all have reconnected and resumed."""
    with serving() as server, Publisher(server.control) as hub:
        clients = connect_all(server.port, [""] * count)
        alone = reconnected(server, clients, [""] * count)
        positions = [
            client.outcome[2:] for client in connect_all(server.port, [f"topic=kept:{n}" for n in range(ROOMS)])
        ]
        queries = [
            f"topic=kept:{number % ROOMS}&epoch={positions[number % ROOMS][0]}&offset={positions[number % ROOMS][1]}"
            for number in range(count)
        ]
        clients = connect_all(server.port, [f"topic=kept:{number % ROOMS}" for number in range(count)])
        os.kill(server.worker, signal.SIGSTOP)
        for number in range(MISSED):
            for room in range(ROOMS):
                hub.publish(f"kept:{room}", f"message {number}")
        hub.stats()
        again = reconnected(server, clients, queries)
    return alone, again


def reconnected(server: Server, clients: list[Client], queries: list[str]) -> float:
    """Kill the worker, and return the seconds until all clients have reconnected."""
    begin = time.monotonic()
    os.kill(server.worker, signal.SIGKILL)
    for client in clients:
        client.socket.close()
    after = connect_all(server.port, queries)
    seconds = time.monotonic() - begin
    for client in after:
        if "topic" in client._query:
            recovered, count = client.outcome[:2]
            assert (recovered, int(count)) == ("True", MISSED), client.outcome
            assert client.received.count(b"message ") == MISSED
        client.socket.close()
    return seconds


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What topics with history cost.")
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--publishes", type=int, default=200_000)
    parser.add_argument("--topics", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    costs = [hub_cost(arguments.publishes) for _ in range(arguments.rounds)]
    for kind in costs[0]:
        each = [cost[kind] for cost in costs]
        print(
            f"the hub, a publish {kind}: {statistics.median(each):.2f} µs of CPU ({min(each):.2f} to {max(each):.2f})"
        )
    empty, full = memory_of_topics(arguments.topics)
    print(f"the memory of a topic: {empty:.0f} bytes without messages, {full:,.0f} with 100 messages of 100 bytes")
    times = [resuming(arguments.clients) for _ in range(arguments.rounds)]
    alone, again = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [second / first for first, second in times]
    print(
        f"{arguments.clients:,} clients after their worker was killed: reconnected in {alone:.2f} s, reconnected and "
        f"resumed {MISSED} messages each in {again:.2f} s; {statistics.median(ratios):.2f} times "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
