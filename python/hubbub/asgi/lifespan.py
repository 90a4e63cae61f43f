"""The ASGI lifespan protocol (version 2.0): an application is told when its worker starts and stops.

The application is called once in each worker, with a scope of its own type, in a task that lives as long as the worker.
It answers the event `lifespan.startup` before the worker accepts connections, and `lifespan.shutdown` when all of them
have ended.
"""

import asyncio
import contextvars
import enum
import logging
import os
from collections.abc import MutableMapping
from typing import Any

from ..logs import shown, shown_lines
from .application import Application

__all__ = ["Lifespan", "StartupFailed"]

log = logging.getLogger("hubbub")

# The versions of ASGI, and of its lifespan protocol, that the scope names.
VERSIONS = {"version": "3.0", "spec_version": "2.0"}

Message = MutableMapping[str, Any]


class StartupFailed(RuntimeError):
    """An application has reported that it cannot start, or has ended without a report."""


class Stage(enum.Enum):
    """How far the application has come, by its own messages."""

    STARTING = enum.auto()
    STARTED = enum.auto()
    STOPPED = enum.auto()
    """It has reported the end of its shutdown."""
    FAILED = enum.auto()
    """It has reported a failure, or has ended without a report."""


class Lifespan:
    """One application in one worker, from its startup to its shutdown."""

    state: dict[str, Any]
    """What the application has stored for its requests: each gets a copy as `scope["state"]`."""
    context: contextvars.Context
    """The context variables after the startup; each request runs in a copy."""

    def __init__(self, app: Application, *, mode: str, worker_id: int) -> None:
        """Create it in the running event loop.

        Args:
            app: The application.
            mode: The setting `lifespan`: "auto", "on" or "off".
            worker_id: Only worker 0 logs visibly that the application does not support lifespan.
        """
        self.state = {}
        self.context = contextvars.copy_context()
        self._app = app
        self._mode = mode
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._stage = Stage.STARTING
        self._has_sent = False
        # The application may report that as a failure.
        self._is_cancelled = False
        # How many events the application has received.
        self._events = 0
        self._stopping = asyncio.Event()
        # Whether the shutdown is over: the application was told, and has answered and returned, or waits for more.
        self._ended = asyncio.Event()
        # What the startup has failed with, or None if it has succeeded.
        self._started: asyncio.Future[BaseException | None] = self._loop.create_future()
        # The task of the application, once it has begun.
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Future[BaseException | None]:
        """Begin the startup.

        Returns:
            A future of the exception with which the startup has failed, SystemExit included, or of `None` once it has
                succeeded. The caller must report the exception.
        """
        if self._mode == "off":
            self._started.set_result(None)
        else:
            self.task = self._loop.create_task(self._run(), context=contextvars.copy_context())
        return self._started

    @property
    def failure(self) -> BaseException | None:
        """What the startup has failed with; `None` if it has succeeded, or has not ended."""
        return self._started.result() if self._started.done() else None

    async def stop(self, deadline: float) -> None:
        """Send `lifespan.shutdown`, and wait for the end of the application until `deadline`; then cancel it.

        An application that has not started, or could not, is only cancelled. May be called again.
        """
        task = self.task
        if not task or task.done() or not self._started.done() or self.failure:
            self.cancel()
            return
        self._stopping.set()
        try:
            async with asyncio.timeout_at(deadline):
                await self._ended.wait()
        except TimeoutError:
            log.error("the application's lifespan shutdown took too long and was cancelled")
        self.cancel()

    def cancel(self) -> None:
        """Cancel the application, during its startup too; does nothing if it has ended."""
        self._is_cancelled = True
        if self.task:
            self.task.cancel()

    # ---- the application's side --------------------------------------------------------------------------

    async def _run(self) -> None:
        """Call the application, until it returns or raises."""
        scope = {"type": "lifespan", "asgi": dict(VERSIONS), "state": self.state}
        error: BaseException | None = None
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as raised:
            error = raised
            if isinstance(error, KeyboardInterrupt) or os.getpid() != self._pid:
                # A child that the application has forked must not continue here.
                raise
            if isinstance(error, SystemExit) and self._started.done():
                # Let it end the event loop, as it does in a handler.
                raise
        finally:
            self._ended.set()
        if not self._started.done():
            self._end_startup(error)
        elif error and self._stage is not Stage.FAILED and not isinstance(error, asyncio.CancelledError):
            log.error("the application failed in its lifespan", exc_info=error)

    def _end_startup(self, error: BaseException | None) -> None:
        """Decide what it means that the application has ended without reporting its startup."""
        self._stage = Stage.FAILED
        is_support_missing = not self._has_sent and (error is None or isinstance(error, Exception))
        if self._mode == "auto" and is_support_missing:
            level = logging.INFO if self._worker_id == 0 else logging.DEBUG
            how = "it returns at once" if error is None else f"it raises {shown(repr(error))}"
            log.log(level, "the application does not support lifespan (%s), and is served without it", how)
            self._started.set_result(None)
        else:
            self._started.set_result(
                error or StartupFailed("the application returned before it had sent lifespan.startup.complete")
            )

    async def _receive(self) -> Message:
        """Return the next event: the startup at once, the shutdown when the worker stops, and then nothing."""
        if self._events == 0:
            self._events = 1
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._events == 1:
            self._events = 2
            return {"type": "lifespan.shutdown"}
        # There is no third event. An application that waits for one in a loop has done all it has to do.
        self._ended.set()
        await self._loop.create_future()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        """Take a report of the application; one at the wrong time raises RuntimeError in the application."""
        kind = message["type"]
        self._has_sent = True
        reason = shown_lines(str(message.get("message") or "").strip() or "it gives no reason")
        match kind, self._stage:
            case "lifespan.startup.complete", Stage.STARTING:
                self._stage = Stage.STARTED
                self.context = contextvars.copy_context()
                self._started.set_result(None)
            case "lifespan.startup.failed", Stage.STARTING:
                self._stage = Stage.FAILED
                self._started.set_result(StartupFailed(f"the application cannot start: {reason}"))
            case "lifespan.shutdown.complete", Stage.STARTED:
                self._stage = Stage.STOPPED
            # It may also come before the shutdown: what the application began at its startup has failed.
            case "lifespan.shutdown.failed", Stage.STARTED:
                self._stage = Stage.FAILED
                if not self._is_cancelled:
                    log.error("the application failed in its lifespan: %s", reason)
            case _:
                raise RuntimeError(f"the application sent {kind!r}, which cannot follow in its lifespan")
