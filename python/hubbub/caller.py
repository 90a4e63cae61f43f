"""Calls everything that is not on the path of a message: handlers of events without a connection, timers, answers.

It works the same in a worker and in the master: a job may be `def` or `async def`, or run in a thread, and each runs in
its own copy of the context.
"""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

from .handlers import Handler
from .logs import Throttle, name_of
from .threads import Pool

__all__ = ["CANCEL_GRACE", "Caller"]

log = logging.getLogger("hubbub")

# Seconds that a stop gives cancelled tasks to clean up, and seconds between checks whether they have ended.
CANCEL_GRACE = 1.0
STOP_POLL = 0.01
# Seconds for which a handler may hold the event loop before the log says so.
TOO_LONG = 0.1
# Failures of one handler that are logged with their tracebacks in one interval.
FAILURES = 10
# These may take long: when a server starts or ends, no client waits for the event loop.
UNHURRIED = frozenset(f"the {event} handler" for event in ("worker_start", "worker_stop", "start", "shutdown"))


class Caller:
    """Calls handlers in the running event loop, and keeps track of those that have not ended yet."""

    def __init__(self, handlers: Mapping[str, Handler], threads: int) -> None:
        """Create the caller of the running event loop.

        Args:
            handlers: The handlers, by event.
            threads: How many jobs may run in threads at the same time.
        """
        self.loop = asyncio.get_running_loop()
        # Callbacks of the event loop run in the context in which the server was started.
        self.context = contextvars.copy_context()
        # The function that creates a task for a coroutine, and its keywords; the task starts at once if Python can.
        self.make_task, self.task_options = _task_maker(self.loop)
        self.handlers = handlers
        self.running: set[asyncio.Future[Any] | Future[Any]] = set()
        # If true, a cancelled handler is not logged as a failure.
        self.is_stopping = False
        # Called with the seconds for which a handler held the event loop.
        self.held: Callable[[float], None] = _ignore
        self._slow: dict[str, Throttle] = {}
        self._failed: dict[str, Throttle] = {}
        self._pool = Pool(threads)
        self._is_closed = False

    def perform(
        self,
        what: str,
        job: Callable[[], Any],
        then: Callable[[object, BaseException | None], None],
        *,
        in_thread: bool = False,
    ) -> None:
        """Call `job`, sync or async, in its own context, and then call `then` with its result or its exception.

        SystemExit and KeyboardInterrupt are not passed to `then`: they end the event loop. `what` is the name of the
        job in the log.
        """
        context = contextvars.copy_context()
        if in_thread:
            thread = self._pool.submit(functools.partial(context.run, job))
            self.running.add(thread)
            thread.add_done_callback(lambda future: self._tell(future, then))
            return
        try:
            result = self._begin_job(what, job, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            then(None, error)
            return
        if not isinstance(result, asyncio.Future):
            then(result, None)
        elif result.done():
            self._ended(then, result)
        else:
            self.follow(result, then)

    def follow(self, task: asyncio.Future[Any], then: Callable[[object, BaseException | None], None]) -> None:
        """Call `then` with the result or the exception of a task once it has ended."""
        self.running.add(task)
        task.add_done_callback(functools.partial(self._ended, then), context=self.context)

    def _ended(
        self, then: Callable[[object, BaseException | None], None], future: asyncio.Future[Any] | Future[Any]
    ) -> None:
        self.running.discard(future)
        if self._is_closed:
            return
        if future.cancelled():
            then(None, asyncio.CancelledError())
        elif error := future.exception():
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise error
            then(None, error)
        elif inspect.iscoroutine(result := future.result()):
            result.close()
            then(None, TypeError("a threaded handler must not be async, but this one returned a coroutine"))
        else:
            then(result, None)

    def _tell(self, future: Future[Any], then: Callable[[object, BaseException | None], None]) -> None:
        """Pass on the end of a job in a thread."""
        # If the event loop is closed, the server has stopped without waiting for this job.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._ended, then, future, context=self.context)

    def _begin_job(self, what: str, job: Callable[[], Any], context: contextvars.Context) -> Any:
        """Call a job, and start its task if it is async; measure how long that holds the event loop."""
        begin = time.perf_counter()
        try:
            result = context.run(job)
            return self.make_task(result, **self.task_options) if inspect.iscoroutine(result) else result
        finally:
            seconds = time.perf_counter() - begin
            self.held(seconds)
            if seconds > TOO_LONG and what not in UNHURRIED:
                self.was_slow(what, job, seconds)

    def was_slow(self, what: str, function: Callable[..., object], seconds: float) -> None:
        """Log that a handler or a timer's function held the event loop for too long; does not log each time."""
        name = name_of(function)
        throttle = self._slow.get(name)
        if throttle is None:
            throttle = self._slow[name] = Throttle(
                self.loop, 1, lambda others: log.warning("slow: %s, %d more times", name, others)
            )
        if throttle.passes():
            log.warning("slow: %s (%s) held the event loop for %.0f ms", name, what, seconds * 1000)

    def has_failed(self, function: Callable[..., object], error: BaseException, told: str, *arguments: object) -> None:
        """Log an exception of a handler or a timer's function; not each time, as clients may be able to cause it.

        Args:
            function: The handler.
            error: The exception.
            told: The log line, with a `%s` for each of `arguments`.
            arguments: The values for the line; text sent by a client must already be escaped.
        """
        name = name_of(function)
        throttle = self._failed.get(name)
        if throttle is None:
            throttle = self._failed[name] = Throttle(
                self.loop, FAILURES, lambda others: log.error("%s failed %d more times", name, others)
            )
        if throttle.passes():
            is_cancelled = isinstance(error, asyncio.CancelledError)
            log.error(told, *arguments, exc_info=None if is_cancelled else error)

    def run(self, what: str, job: Callable[[], Any], then: Callable[[], None], *, in_thread: bool = False) -> None:
        """Call `job`, and then `then` once it has ended; a failure is logged."""

        def ended(result: object, error: BaseException | None) -> None:
            if error and not (self.is_stopping and isinstance(error, asyncio.CancelledError)):
                self.has_failed(job, error, "%s failed", what)
            then()

        self.perform(what, job, ended, in_thread=in_thread)

    def begin(self, event: str, then: Callable[[], None], *arguments: object) -> None:
        """Call the handler of an event without a connection, if there is one, and `then` once it has ended."""
        handler = self.handlers.get(event)
        if handler is None:
            then()
            return
        job = functools.partial(handler.callable, *arguments[: handler.count])
        self.run(f"the {event} handler", job, then, in_thread=handler.kind == "threaded")

    def outcome(self, event: str, *arguments: object) -> asyncio.Future[BaseException | None]:
        """Call the handler of an event without a connection, if there is one.

        Returns:
            A future of the exception that the handler raised, SystemExit included, or of `None` if it succeeded. The
                caller must report it.
        """
        outcome: asyncio.Future[BaseException | None] = self.loop.create_future()
        if handler := self.handlers.get(event):
            job = _Exiting(functools.partial(handler.callable, *arguments[: handler.count]))
            self.perform(
                f"the {event} handler",
                job.call_in_thread if handler.kind == "threaded" else job.call,
                lambda result, error: outcome.set_result(error or job.exit),
                in_thread=handler.kind == "threaded",
            )
        else:
            outcome.set_result(None)
        return outcome

    async def call(self, event: str, *arguments: object) -> None:
        """Call the handler of an event without a connection, and wait for its end; a failure is logged."""
        ended = asyncio.Event()
        self.begin(event, ended.set, *arguments)
        await ended.wait()

    async def call_until(self, deadline: float, event: str, *arguments: object) -> None:
        """Call one of the last handlers, and wait for it until `deadline`, or for `CANCEL_GRACE` if that is later."""
        try:
            async with asyncio.timeout_at(max(deadline, self.loop.time() + CANCEL_GRACE)):
                await self.call(event, *arguments)
        except TimeoutError:
            log.error("the %s handler took too long and was cancelled", event)
            self.cancel()

    async def until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait until `condition` holds, at most until `deadline`; return whether it holds."""
        while not condition():
            if self.loop.time() >= deadline:
                return False
            await asyncio.sleep(STOP_POLL)
        return True

    async def until_idle(self, deadline: float) -> bool:
        """Wait until nothing is running, at most until `deadline`; return whether that is so."""
        return await self.until(lambda: not self.running, deadline)

    def cancel(self) -> None:
        """Cancel everything that is running."""
        for future in list(self.running):
            future.cancel()

    def close(self) -> None:
        """Release everything; nothing is called after that."""
        self._is_closed = True
        self.held = _ignore
        self._pool.close()
        for throttle in (*self._slow.values(), *self._failed.values()):
            throttle.close()
        for future in self.running:
            if future.done() and not future.cancelled():
                future.exception()  # Mark it as seen: it ended the event loop, so it is known already.


class _Exiting:
    """Calls a job, and keeps its SystemExit, which, if raised, would end the event loop before it could be reported.

    In a child process that the job has forked, SystemExit is raised, so that the child ends.
    """

    def __init__(self, job: Callable[[], Any]) -> None:
        self.exit: SystemExit | None = None
        self._job = job
        self._pid = os.getpid()

    def call(self) -> Any:
        """Call the job, which may be `async def`."""
        result = self.call_in_thread()
        return self._wait_for(result) if inspect.iscoroutine(result) else result

    def call_in_thread(self) -> Any:
        """Call the job, without awaiting its result."""
        try:
            return self._job()
        except SystemExit as error:
            self._keep(error)

    async def _wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except SystemExit as error:
            self._keep(error)

    def _keep(self, error: SystemExit) -> None:
        if os.getpid() != self._pid:
            raise error
        self.exit = error


def _ignore(seconds: float) -> None:
    """Ignore how long a handler took."""


def _task_maker(loop: asyncio.AbstractEventLoop) -> tuple[Callable[..., asyncio.Task[Any]], dict[str, Any]]:
    if sys.version_info >= (3, 12):
        return asyncio.Task, {"loop": loop, "eager_start": True}
    return loop.create_task, {}
