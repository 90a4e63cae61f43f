"""For tests that need connections in different workers: nearly always, the first two are."""

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import ParamSpec

from hubbub import ConnectionInfo

P = ParamSpec("P")

ATTEMPTS = 5


class InOneWorkerError(Exception):
    """One worker has all connections: if a worker does not take one within 50 ms, another worker gets it."""


def check_apart(infos: Iterable[ConnectionInfo | None]) -> None:
    """Check that not all of the connections that are open belong to the same worker.

    Raises:
        InOneWorkerError: They do.
    """
    workers = [info.worker_id for info in infos if info]
    assert len(workers) > 1, f"{len(workers)} connections are open"
    if len(set(workers)) == 1:
        raise InOneWorkerError(f"all {len(workers)} connections belong to worker {workers[0]}")


def runs_apart(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """Run a test again, from the beginning, if its connections are not in different workers."""

    @functools.wraps(test)
    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                return await test(*args, **kwargs)
            except InOneWorkerError:
                pass
        return await test(*args, **kwargs)

    return run
