"""Several servers of two workers each, which are one through Redis. All run on this machine."""

import asyncio
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from hub_client import HubClient, Lost, Refused, end
from hub_server import HubServer
from memory_readers import OPTIONS
from raw_peer import PATIENCE
from server_process import wait_until

from hubbub import Publisher

PROGRAM = Path(__file__).with_name("host_program.py")
WORKERS = 2
# DESIGN.md: seconds for which a number is a host's, unless it says that it is still there.
LEASE = 15.0
# Seconds within which a lost or half-dead connection must have been noticed.
NOTICED = 4.0
# Seconds for which messages for other hosts are kept while Redis is away.
KEPT = 5.0


class Host(HubServer):
    """One of several servers, with the processes of its workers, which can be killed and frozen together."""

    process_group = 0
    is_offered = True
    """Whether `Hosts.connect` may choose it."""

    def __init__(self, directory: Path, members_log: Path, /, **settings: Any) -> None:
        """Start it, and wait until it accepts connections."""
        self.directory = directory
        self._settings = settings
        self._members_log = members_log
        self._is_running = False
        self._start()

    def _start(self) -> None:
        command = (str(PROGRAM), json.dumps(OPTIONS), str(self._members_log))
        super().__init__(self.directory, command, **{"workers": WORKERS, **self._settings})
        self._is_running = True

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not been killed or frozen."""
        return self._is_running

    def use_broker(self, broker: str) -> None:
        """From the next start on, be one with the servers of this broker."""
        self._settings["broker"] = broker

    def stop(self) -> None:
        """See `HubServer.stop`."""
        super().stop()
        self.kill()

    def restart(self) -> None:
        """Start it again after it was killed or stopped."""
        connected = self.connected
        self._start()
        self.connected = connected

    def kill_all(self) -> None:
        """Kill all of its processes at once, as a machine that loses its power."""
        self.kill()

    def kill(self) -> None:
        """See `kill_all`."""
        self._is_running = False
        # Once the master has been waited for, its number may be another's.
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        super().kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze all of its processes, for a block."""
        self._is_running = False
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)
            self._is_running = True

    def health(self) -> tuple[int, str]:
        """Return the status and the text of its health check."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def is_healthy(self) -> bool:
        """Return whether it is, and reaches the others."""
        return self.health() == (200, "ok")

    def becomes_healthy(self) -> None:
        """Wait until it reaches the others."""
        wait_until(self.is_healthy, f"the host at port {self.port} becomes healthy; {self.log()[-2000:]}")

    def becomes_degraded(self, within: float = PATIENCE) -> float:
        """Wait until it says that it does not reach the others, and return how many seconds that took."""
        begin = time.monotonic()
        wait_until(lambda: self.health()[1] != "ok", f"the host at port {self.port} becomes degraded")
        took = time.monotonic() - begin
        assert took <= within, f"the host at port {self.port} was degraded after {took:.1f} s, not within {within} s"
        return took

    def tells_of_loss(self) -> float:
        """Wait until it has logged that it lost the others, and return how many seconds that took.

        If a new connection heals it at once, its health check says so for too short a time to be seen.
        """
        begin = time.monotonic()
        wait_until(
            lambda: "no connection to other hosts" in self.log(), f"the host at port {self.port} tells of a loss"
        )
        return time.monotonic() - begin

    def tells_of_return(self) -> None:
        """Wait until it has logged that it reaches the others again."""
        wait_until(
            lambda: "connected to other hosts again, after" in self.log(), f"the one at {self.port} tells of that"
        )


class Hosts:
    """Several servers that are one; each test of a module may kill, freeze and restart them."""

    def __init__(self, hosts: list[Host], members_log: Path) -> None:
        self.all = hosts
        self.members_log = members_log

    def __getitem__(self, place: int) -> Host:
        return self.all[place]

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Host]:
        return iter(self.all)

    @property
    def connected(self) -> list[HubClient]:
        """All clients that have ever received their ids."""
        return [client for host in self.all for client in host.connected]

    async def connect(self, **how: Any) -> HubClient:
        """Connect to any host, as a client behind a load balancer does: if one host takes none, to another."""
        async with asyncio.timeout(PATIENCE):
            while True:
                host = random.choice(self.all)
                if host.is_running and host.is_offered:
                    with suppress(OSError, Lost, Refused):
                        async with asyncio.timeout(5):
                            return await host.connect(**how)
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def client_of(self, worker_id: int, **how: Any) -> AsyncIterator[HubClient]:
        """Connect to a worker, for a block; they are counted over all hosts."""
        host = self.all[worker_id // WORKERS]
        try:
            async with host.client_of(worker_id % WORKERS, **how) as client:
                yield client
        except Refused:
            raise Lost from None

    @asynccontextmanager
    async def clients(self, **how: Any) -> AsyncIterator[list[HubClient]]:
        """Connect once to each host."""
        clients = [await host.connect(**how) for host in self.all]
        try:
            yield clients
        finally:
            await end(clients)

    def publisher(self, **how: Any) -> Publisher:
        """Return a publisher to the first host."""
        return self.all[0].publisher(**how)

    async def know_each_other(self) -> None:
        """Wait until each worker of each host knows all hosts."""
        for place in range(len(self.all) * WORKERS):
            async with self.client_of(place) as client:
                await until(client, "len(server.hosts())", lambda count: count == len(self.all))

    def become_healthy(self) -> None:
        """Wait until every host reaches the others."""
        for host in self.all:
            host.becomes_healthy()


async def until(client: HubClient, expression: str, condition: Callable[[Any], object]) -> Any:
    """Evaluate an expression again and again until its value is as it should be, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not condition(value := await client.ask(expression)):
        assert time.monotonic() < deadline, f"{expression} is still {value!r}"
        await asyncio.sleep(0.02)
    return value


async def hears(client: HubClient, within: float = PATIENCE) -> str:
    """Return the next message of a client."""
    async with asyncio.timeout(within):
        return await client.receive()


def number_of(fd: int) -> int:
    """Return the number of the host that an id belongs to."""
    return fd >> 45


@contextmanager
def hosts_running(
    directory: Path, brokers: Sequence[str | None], /, *, each: Sequence[dict[str, Any]] | None = None, **settings: Any
) -> Iterator[Hosts]:
    """Run a server for each of these addresses of Redis, for a block; in the end those that run must stop properly.

    Args:
        directory: For their files.
        brokers: The addresses; `None` for a server that is alone.
        each: Further settings of each.
        settings: Of all of them.
    """
    members_log = directory / "members"
    hosts: list[Host] = []
    try:
        for number, broker in enumerate(brokers):
            own = directory / f"host{number}"
            own.mkdir()
            further = {**({"broker": broker} if broker else {}), **(each[number] if each else {})}
            hosts.append(Host(own, members_log, **{**settings, **further}))
        yield Hosts(hosts, members_log)
        for host in hosts:
            if host.is_running:
                host.stop()
    finally:
        for host in hosts:
            host.kill()


class StartHosts(Protocol):
    """The fixture `start_hosts`: starts one host for each address of Redis; they end with the test."""

    def __call__(self, *brokers: str | None, each: list[dict[str, Any]] | None = None, **settings: Any) -> Hosts: ...
