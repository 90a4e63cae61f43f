"""The tasks that async handlers share; see `batch.rs`."""

import _asyncio
import asyncio
import sys
from typing import Any

from ._core import HandlerCoroutine, note_use

__all__ = ["shared_task_class"]


class HandlerTask(asyncio.Task[Any]):
    """A task that runs one handler after another until one of them has used it.

    It notes any use. To a handler it looks like a task of its own.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        note_use()
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        note_use()
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        note_use()
        super().__delattr__(name)

    def __hash__(self) -> int:
        note_use()
        return super().__hash__()

    def get_coro(self) -> Any:
        """Return the coroutine of the handler."""
        coroutine: object = super().get_coro()
        return coroutine.current() if isinstance(coroutine, HandlerCoroutine) else coroutine

    # What asyncio itself reads, for `repr` and `get_stack`.
    _coro = property(get_coro)


def shared_task_class() -> type[asyncio.Task[Any]] | None:
    """Return the class, or None if each handler needs a task of its own.

    Sharing relies on tasks that start at once, and on how asyncio refers to the current task. So it is only for the
    version of CPython that it was tested with, and not if another library has replaced asyncio's tasks.
    """
    is_known = sys.version_info[:2] == (3, 13) and sys.implementation.name == "cpython"
    is_own = getattr(_asyncio, "Task", None) is asyncio.Task and HandlerTask.__base__ is asyncio.Task
    return HandlerTask if is_known and is_own else None
