"""The server, with several workers, that the tests try to break.

Its only argument is JSON: keywords of `Server`. Its clients send expressions.
"""

import asyncio
import json
import multiprocessing
import os  # noqa: F401 - expressions use it
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from expressions import Expressions
from forking import fork_away  # noqa: F401 - expressions call it
from sightings import Sightings

from hubbub import Server

server = Server(port=0, **json.loads(sys.argv[1]))
expressions = Expressions(server, globals())
call = expressions.call

# ---- what expressions can call ---------------------------------------------------------------------------


def in_thread(job: Callable[[], Any]) -> Any:
    """Return what `job` returns in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(job()))
    thread.start()
    thread.join()
    return results[0]


def flood(fds: list[int], topic: str, size: int, count: int) -> int:
    """Push to each of `fds`, and publish, so many times; how many pushes were refused."""
    message = b"x" * size
    refused = 0
    for _ in range(count):
        server.publish(topic, message)
        refused += sum(not server.push(fd, message) for fd in fds)
    return refused


def report(fd: int, coroutine: Coroutine[Any, Any, object]) -> None:
    """Push what a coroutine returns, or what it raises, once it has ended."""

    async def run() -> None:
        try:
            text = json.dumps(await coroutine)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        server.push(fd, text)

    tasks.append(asyncio.create_task(run()))


async def gather_in_order(coroutines: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Return the results of coroutines that run at the same time."""
    return await asyncio.gather(*coroutines)


def multiprocess_away() -> int | None:
    """Do what `fork_away` does, with a child of multiprocessing."""
    process = multiprocessing.get_context("fork").Process(target=signal.pause)
    process.start()
    return process.pid


class Look:
    """Looks again and again, from a thread of its own and in a timer, until it is enough."""

    def __init__(self) -> None:
        self._sightings = [
            Sightings(lambda: server.connections, server.exists, server.info, server.stats) for _ in range(2)
        ]
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()
        self._timer = server.tick(0.002, self._sightings[1].look)

    def _look_on(self) -> None:
        while not self._enough.is_set():
            self._sightings[0].look()
            # Let the event loop use the interpreter too.
            time.sleep(random.random() / 500)

    def end(self) -> list[dict[str, Any]]:
        """Return what either has seen."""
        self._enough.set()
        self._timer.cancel()
        self._thread.join()
        return [sightings.report() for sightings in self._sightings]


looks: list[Look] = []
tasks: list[asyncio.Task[None]] = []

server.start()
