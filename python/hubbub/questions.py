"""Ask all workers, and wait for their answer."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from .errors import NotRunning

__all__ = ["PATIENCE", "Questions"]

T = TypeVar("T")

# Seconds that a question to other processes may take.
PATIENCE = 5.0


class Questions:
    """The questions of one event loop that are not answered yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answerer: str, forget: Callable[[int], None]) -> None:
        """Start with no questions.

        Args:
            loop: The event loop in which all methods are called.
            answerer: The process that collects the answers, for error messages.
            forget: Called with the number of a question whose answer no longer matters.
        """
        self._loop = loop
        self._answerer = answerer
        self._forget = forget
        self._answers: set[asyncio.Future[Any]] = set()
        self._is_closed = False

    async def ask(self, put: Callable[[Callable[[T | None, list[int]], None]], int], patience: float) -> T:
        """Ask all workers, and wait for the answer.

        Args:
            put: Is given the function that takes the answer, an exception, or `None` and the silent workers; returns
                the question's number.
            patience: Seconds to wait.

        Raises:
            TimeoutError: Not all have answered in time.
            RuntimeError: Too many questions are waiting.
            NotRunning: The server has stopped meanwhile.
        """
        answer: asyncio.Future[T] = self._loop.create_future()

        def then(value: T | None, silent: list[int]) -> None:
            if answer.done():
                return
            if isinstance(value, BaseException):
                answer.set_exception(value)
            elif value is not None:
                answer.set_result(value)
            elif silent:
                answer.set_exception(TimeoutError(_describe_silence(silent)))
            else:
                answer.set_exception(RuntimeError("too many questions are waiting for answers"))

        number = put(then)
        self._answers.add(answer)
        try:
            # The hub reports a little earlier which workers are silent.
            await asyncio.wait([answer], timeout=patience)
            if not answer.done():
                raise TimeoutError(f"{self._answerer} did not answer within {PATIENCE:g} s")
            return answer.result()
        finally:
            self._answers.remove(answer)
            answer.cancel()
            if not self._is_closed:
                self._forget(number)

    def close(self) -> None:
        """Make all waiting callers fail with `NotRunning`."""
        self._is_closed = True
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(NotRunning("the server has stopped"))


def _describe_silence(workers: list[int]) -> str:
    names = ", ".join(map(str, workers))
    name = "worker" if len(workers) == 1 else "workers"
    return f"{name} {names} did not answer within {PATIENCE:g} s"
