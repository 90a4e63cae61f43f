"""Waiting for the end of connections, without any server."""

import asyncio

import pytest

from hubbub import NotRunning
from hubbub.closings import Closings


class Watches:
    """The calls that a worker's reactor would get."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.watched: list[int] = []
        self.unwatched: list[int] = []
        self._is_open = is_open

    def closings(self) -> Closings:
        return Closings(asyncio.get_running_loop(), self._watch, self.unwatched.append)

    def _watch(self, fd: int) -> bool:
        self.watched.append(fd)
        return self._is_open


async def waiting(*waits: "asyncio.Task[None]") -> None:
    """Let tasks begin; none of them may end."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in waits)


async def test_everybody_who_waits_for_a_connection_goes_on_and_nobody_else() -> None:
    watches = Watches()
    closings = watches.closings()
    one, two, other = (asyncio.ensure_future(closings.wait(fd)) for fd in (1, 1, 2))
    await waiting(one, two, other)
    closings.tell(1)
    await asyncio.gather(one, two)
    await waiting(other)
    closings.tell(2)
    await other
    assert watches.unwatched == []


async def test_what_is_not_open_is_not_waited_for() -> None:
    await Watches(is_open=False).closings().wait(1)


async def test_a_connection_is_given_up_with_the_last_who_is_cancelled() -> None:
    watches = Watches()
    closings = watches.closings()
    one, two = (asyncio.ensure_future(closings.wait(1)) for _ in range(2))
    await waiting(one, two)
    one.cancel()
    await asyncio.wait([one])
    assert watches.unwatched == []
    two.cancel()
    await asyncio.wait([two])
    assert watches.unwatched == [1]
    again = asyncio.ensure_future(closings.wait(1))
    await waiting(again)
    closings.tell(1)
    await again
    assert watches.watched == [1] * 3


async def test_whoever_is_cancelled_as_the_connection_ends_is_cancelled() -> None:
    watches = Watches()
    closings = watches.closings()
    task = asyncio.ensure_future(closings.wait(1))
    await waiting(task)
    task.cancel()
    closings.tell(1)
    await asyncio.wait([task])
    assert task.cancelled()
    assert watches.unwatched == []


async def test_nobody_waits_where_the_server_has_stopped() -> None:
    closings = Watches().closings()
    task = asyncio.ensure_future(closings.wait(1))
    await waiting(task)
    closings.close()
    with pytest.raises(NotRunning):
        await task
