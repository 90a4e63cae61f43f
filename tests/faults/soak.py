"""Puts a server under steady load for minutes, and checks whether memory or descriptors of any process grow.

    python tests/faults/soak.py [--minutes 10]

TLS and compression are on. One publisher numbers messages for a crowd of subscribers, which must miss none; other
clients come, have messages echoed, and leave, half of them without a closing handshake. Prints the PSS, the
descriptors and the threads of every process, and the slope that a line fitted to its PSS after the first fifth has.
Needs hubbub, websockets and trustme in this Python. Linux only.
"""

import argparse
import asyncio
import json
import random
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from hub_server import HubServer, hub_serving
from websockets.asyncio.client import ClientConnection, connect

SUBSCRIBERS = 100
VISITORS = 10
# Echoes of one visit, and characters of one.
ECHOES = 20
MAX_CHARACTERS = 20_000
# Seconds between two messages of the publisher, and between two measurements of the processes.
PUBLISHING_INTERVAL = 0.02
SAMPLING_INTERVAL = 2.0
# The share of the time that is left out of the fit: caches, pools and the allocator still grow to their size.
WARMING_UP = 0.2
TOPIC = "news"


@dataclass
class Series:
    """The measurements of one process: times in seconds, PSS in bytes."""

    times: list[float] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, pid: int, now: float) -> None:
        """Take a sample."""
        process = Path(f"/proc/{pid}")
        self.times.append(now)
        self.pss.append(kib(process / "smaps_rollup", "Pss:") * 1024)
        self.descriptors.append(sum(1 for _ in (process / "fd").iterdir()))
        self.threads.append(sum(1 for _ in (process / "task").iterdir()))

    def slope(self) -> float:
        """Bytes a minute, by least squares, without the time of warming up."""
        first = int(len(self.times) * WARMING_UP)
        return statistics.linear_regression(self.times[first:], self.pss[first:]).slope * 60


def kib(path: Path, key: str) -> int:
    """The number of KiB in the line of that key."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(key))


class Load:
    """The clients and the publisher."""

    def __init__(self, server: HubServer, context: ssl.SSLContext) -> None:
        self.published = 0
        self.received = 0
        self.visits = 0
        self.echoes = 0
        self.is_over = False
        self._server = server
        self._context = context

    async def run(self, minutes: float) -> None:
        """Keep the server under load for this many minutes."""
        with self._server.publisher() as hub:
            subscribers = [await self._connect(f"?topics={TOPIC}") for _ in range(SUBSCRIBERS)]
            async with asyncio.TaskGroup() as tasks:
                listening = [tasks.create_task(self._listen(subscriber)) for subscriber in subscribers]
                visiting = [tasks.create_task(self._visit_again_and_again()) for _ in range(VISITORS)]
                end = time.monotonic() + minutes * 60
                while time.monotonic() < end:
                    hub.publish(TOPIC, f"{self.published} " + "x" * random.randrange(4000))
                    self.published += 1
                    await asyncio.sleep(PUBLISHING_INTERVAL)
                self.is_over = True
                await asyncio.gather(*visiting)
                hub.publish(TOPIC, "end")
                await asyncio.gather(*listening)

    def _connect(self, query: str = "") -> connect:
        return connect(f"wss://127.0.0.1:{self._server.port}/{query}", ssl=self._context, ping_interval=None)

    async def _listen(self, subscriber: ClientConnection) -> None:
        """Expect each number in its turn."""
        expected = 0
        async with subscriber:
            await subscriber.recv()
            async for message in subscriber:
                if message == "end":
                    assert expected == self.published, f"{self.published - expected} messages are missing at the end"
                    return
                number = int(str(message).split()[0])
                assert number == expected, f"message {number} came instead of {expected}"
                expected += 1
                self.received += 1

    async def _visit_again_and_again(self) -> None:
        while not self.is_over:
            visitor = await self._connect()
            await visitor.recv()
            for _ in range(ECHOES):
                text = "".join(random.choices("abcdefgh ", k=random.randrange(MAX_CHARACTERS)))
                await visitor.send(repr(text))
                assert json.loads(str(await visitor.recv())[1:]) == text
                self.echoes += 1
            if random.random() < 0.5:
                visitor.transport.abort()
            await visitor.close()
            self.visits += 1


async def soak(server: HubServer, context: ssl.SSLContext, minutes: float) -> tuple[Load, dict[int, Series]]:
    """Load a server for that many minutes, and measure its processes meanwhile."""
    load = Load(server, context)
    processes = {pid: Series() for pid in server.pids()}

    async def look_again_and_again() -> None:
        began = time.monotonic()
        while True:
            for pid, series in processes.items():
                series.look(pid, time.monotonic() - began)
            await asyncio.sleep(SAMPLING_INTERVAL)

    looking = asyncio.create_task(look_again_and_again())
    await load.run(minutes)
    looking.cancel()
    return load, processes


def certified(directory: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """Settings with a new certificate for 127.0.0.1, and a client's context that trusts it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}, context


def main() -> int:
    """Soak, and print what was seen."""
    parser = argparse.ArgumentParser(description="Load a server for minutes, and see whether it grows.")
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as directory:
        settings, context = certified(Path(directory))
        with hub_serving(Path(directory), workers=2, compression=True, ping_interval=5.0, **settings) as server:
            load, processes = asyncio.run(soak(server, context, minutes))
    print(
        f"{minutes:g} minutes: {load.published:,} messages published, {load.received:,} received in order by "
        f"{SUBSCRIBERS} subscribers; {load.visits:,} visits, {load.echoes:,} echoes"
    )
    for name, series in zip(("master", "worker", "worker"), processes.values(), strict=True):
        first = int(len(series.times) * WARMING_UP)
        print(
            f"{name}: PSS {series.pss[first] / 1e6:.2f} MB after warming up, {series.pss[-1] / 1e6:.2f} MB at the end, "
            f"at most {max(series.pss) / 1e6:.2f} MB; slope {series.slope() / 1e3:+.1f} KB a minute; descriptors "
            f"{series.descriptors[first]} then {series.descriptors[-1]}, threads {series.threads[first]} then "
            f"{series.threads[-1]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
