"""Clients that come and go read numbered messages of topics with history, while the workers are disturbed.

Each client must get every message since its position, once and in order, or be told that this is not possible, which
must then be true. Who is in a topic is compared with who joined it.

    python tests/faults/memory_model.py [calm|kill|reload|stop ...] [--messages 50000] [--seed 1]

As a program it prints what it compared; `test_memory_model.py` does the same with few messages. Needs hubbub in this
Python. Linux only.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hub_server import HubServer, hub_serving, stopped
from memory_readers import CLIENTS, OPTIONS, ROOMS, SETTINGS, Result, members, run

PROGRAM = Path(__file__).with_name("memory_program.py")
# Seconds within which the members of a killed worker must be gone.
NO_GHOSTS_AFTER = 1.0


async def do_nothing(server: HubServer, turn: int) -> None:
    """Leave the server alone."""
    await asyncio.sleep(0.5)


async def kill(server: HubServer, turn: int) -> None:
    """Kill a worker; soon nobody is a member who was connected to it."""
    async with server.client_of((turn + 1) % 3) as observer, server.client_of(turn % 3) as victim:
        gone = {client.fd for client in server.connected if client.pid == victim.pid and not client.ended.done()} - {
            victim.fd
        }
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
        await victim.ends()
        rooms = random.sample(ROOMS, 3)
        for room in rooms:
            while True:
                ghosts = gone & {fd for fd, _ in await members(observer, room)}
                late = time.monotonic() - killed
                if not ghosts:
                    break
                assert late < NO_GHOSTS_AFTER, f"{ghosts} are still in {room} after {late:.2f} s"
    await server.replaced(victim)


async def reload(server: HubServer, turn: int) -> None:
    """Ask for new workers, and wait until they are there."""
    await asyncio.to_thread(server.reloads)


async def stop(server: HubServer, turn: int) -> None:
    """Stop a worker for a while."""
    async with server.client_of(turn % 3) as client:
        with stopped(client.pid):
            await asyncio.sleep(0.3)
    await asyncio.sleep(0.3)


Disturbance = Callable[[HubServer, int], Awaitable[None]]

DISTURBANCES: dict[str, Disturbance] = {"calm": do_nothing, "kill": kill, "reload": reload, "stop": stop}


@contextmanager
def memory_serving(directory: Path) -> Iterator[tuple[HubServer, Path]]:
    """Run the server; yield it and the log of its members."""
    members_log = directory / "members"
    with hub_serving(directory, (str(PROGRAM), json.dumps(OPTIONS), str(members_log)), **SETTINGS) as server:
        yield server, members_log


async def run_disturbed(
    server: HubServer, members_log: Path, name: str, messages: int, clients: int = CLIENTS
) -> Result:
    """Run the model with one of the `DISTURBANCES`."""
    return await run(server, members_log, partial(DISTURBANCES[name], server), messages, clients)


def main() -> int:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description="Number every message, and compare what is recovered.")
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(DISTURBANCES), help=", ".join(DISTURBANCES))
    parser.add_argument("--messages", type=int, default=50_000, help="to be published in each (default: 50,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - DISTURBANCES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(DISTURBANCES)}")
    for name in arguments.names:
        random.seed(arguments.seed)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as directory, memory_serving(Path(directory)) as (server, members_log):
            result = asyncio.run(run_disturbed(server, members_log, name, arguments.messages))
        record = result.record
        print(
            f"{name}, seed {arguments.seed}: {result.published:,} messages published, {record.received:,} received "
            f"as expected; {record.recoveries:,} recoveries of {record.recovered:,} messages, {record.refusals:,} "
            f"positions too old; {result.member_events:,} joins and leaves; {result.disturbances} turns, "
            f"{len(server.connected):,} connections, {time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
