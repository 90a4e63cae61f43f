"""While connections come and go and workers are killed, the server never reports anything impossible about them."""

import asyncio
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hub_client import Lost
from hub_server import HubServer, StartHub
from sightings import Sightings

SEATS = 60
KILLS = 5
# Visits between one kill and the next.
VISITS = 400


class Visitors:
    """Clients that connect, send something and leave."""

    def __init__(self, server: HubServer) -> None:
        self.is_enough = False
        self.lost = 0
        """How many connections ended before they had an id."""
        self._server = server
        self._visits = asyncio.Semaphore(0)

    async def come(self, count: int) -> None:
        """Wait until that many more clients have connected and left."""
        self._visits = asyncio.Semaphore(0)
        for _ in range(count):
            await self._visits.acquire()

    async def come_and_go(self) -> None:
        while not self.is_enough:
            try:
                client = await self._server.connect()
                for _ in range(random.randrange(4)):
                    await client.ask(f"server.exists({client.fd}) and server.info({client.fd}).fd")
                client.abort()
            except (Lost, ConnectionError):
                self.lost += 1
            self._visits.release()


@contextmanager
def publisher_looks(server: HubServer) -> Iterator[list[dict[str, Any]]]:
    """Look from a thread of this process; yield a list, which contains the report after the block."""
    reports: list[dict[str, Any]] = []
    enough = threading.Event()
    with server.publisher() as hub:
        sightings = Sightings(hub.connections, lambda fd: hub.info(fd) is not None, hub.info, hub.stats)

        def look_on() -> None:
            while not enough.is_set():
                sightings.look()

        thread = threading.Thread(target=look_on)
        thread.start()
        try:
            yield reports
        finally:
            enough.set()
            thread.join()
            reports.append(sightings.report())


async def test_no_answer_is_impossible_while_connections_and_workers_come_and_go(start_hub: StartHub) -> None:
    server = start_hub()
    visitors = Visitors(server)
    reports: list[dict[str, Any]] = []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(SEATS):
            tasks.create_task(visitors.come_and_go())
        with publisher_looks(server) as publishers:
            for kill in range(KILLS):
                async with server.clients() as watchers:
                    for watcher in watchers:
                        await watcher.ask("looks.append(Look())")
                    await visitors.come(VISITS)
                    # The observations of the killed worker are lost, but the other workers observe its death.
                    victim = watchers[kill % 3]
                    os.kill(victim.pid, signal.SIGKILL)
                    await victim.ends()
                    await server.replaced(victim)
                    for watcher in watchers:
                        if watcher is not victim:
                            reports += await watcher.ask("looks.pop().end()")
        reports += publishers
        visitors.is_enough = True
    assert not [fault for report in reports for fault in report["faults"]]
    assert all(report["looks"] > 10 for report in reports)
    check_ports(reports, server, visitors.lost)


def check_ports(reports: list[dict[str, Any]], server: HubServer, lost: int) -> None:
    """Assert that all ids were given out, and that their ports and workers are those of their clients."""
    seen: dict[int, tuple[int, int]] = {}
    for report in reports:
        for fd, port, worker_id in report["ports"]:
            assert seen.setdefault(fd, (port, worker_id)) == (port, worker_id)
    known = {client.fd: (client.port, client.worker_id) for client in server.connected}
    common = seen.keys() & known.keys()
    assert {fd: seen[fd] for fd in common} == {fd: known[fd] for fd in common}
    assert len(seen.keys() - known.keys()) <= lost
