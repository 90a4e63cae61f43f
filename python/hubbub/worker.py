"""One worker: the reactor in an event loop, and what its handlers need that is not on the path of a message.

The reactor calls `open`, `message`, `close` and `drain` handlers by itself. It comes here when one goes on
(a task, a thread) or fails, and for handshakes and HTTP requests, whose handlers' results are answers.
"""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import socket
import sys
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

from ._core import Reactor
from .events import Accept, CloseCode, ConnectionInfo, Refuse, Request, Response, forwarded
from .handlers import Handler
from .settings import Settings
from .threads import Pool
from .timers import Timer

__all__ = ["Worker"]

log = logging.getLogger("hubbub")

FORBIDDEN = Response("the handshake was refused\n", status=403, content_type="text/plain; charset=utf-8")
NOT_FOUND = Response("there is nothing here\n", status=404, content_type="text/plain; charset=utf-8")
FAILED = Response("the server failed to answer\n", status=500, content_type="text/plain; charset=utf-8")
UPGRADE_REQUIRED = Response(
    "this is a WebSocket server\n",
    status=426,
    headers={"Upgrade": "websocket"},
    content_type="text/plain; charset=utf-8",
)
HEALTHY = Response("ok", content_type="text/plain; charset=utf-8")
STOPPING = Response("the server is stopping\n", status=503, content_type="text/plain; charset=utf-8")

# How often a stop looks whether the last connection is gone, and how long it lets cancelled tasks clean up.
STOP_POLL = 0.01
CANCEL_GRACE = 1.0
# Seconds between two lines in the log that accepting pauses.
PAUSE_LOG_INTERVAL = 10.0


class Worker:
    """A reactor and its handlers, in the running event loop."""

    def __init__(self, server: object, settings: Settings, handlers: Mapping[str, Handler], worker_id: int) -> None:
        """Make the worker of the running event loop.

        Args:
            server: What handlers are given as `server`.
            settings: The server's settings.
            handlers: By event.
            worker_id: The number of this worker.
        """
        self.worker_id = worker_id
        self.loop = asyncio.get_running_loop()
        # Turns run in the context that the server was started in, not in that of whoever had one scheduled.
        self._context = contextvars.copy_context()
        self.started_at = time.time()
        self.decides_handshakes = "handshake" in handlers
        self.start_task = _task_starter(self.loop)
        self._server = server
        self._settings = settings
        self._handlers = handlers
        self._pool = Pool(settings.threads)
        self._running: set[asyncio.Future[Any] | Future[Any]] = set()
        # The event loop keeps those that still wait.
        self._timers: weakref.WeakSet[Timer] = weakref.WeakSet()
        self._timer: asyncio.TimerHandle | None = None
        # A stop has begun; and its second half, in which whoever is cancelled is not to be complained of.
        self._is_leaving = False
        self._is_stopping = False
        # The stop waits no longer for handlers: what they did not let happen has happened.
        self._left_behind = False
        self._is_closed = False
        self._next_pause_logged = 0.0
        self.reactor = Reactor(server, self, settings, worker_id)
        for event in ("open", "message", "close", "drain"):
            if handler := handlers.get(event):
                self.reactor.on(event, handler.callable, handler.count, handler.kind)

    # ---- life --------------------------------------------------------------------------------------------

    async def start(self, listeners: list[socket.socket]) -> None:
        """Run `worker_start`, then accept connections; the sockets are the reactor's from here on."""
        await self.call("worker_start", self._server, self.worker_id)
        self.loop.add_reader(self.reactor.fileno(), self.reactor.turn)
        for listener in listeners:
            self.reactor.listen(listener.detach())
        self.schedule_turn()

    async def stop(self) -> None:
        """Stop gracefully: no new connections, running handlers end, all connections are closed with 1001.

        Past `shutdown_timeout` what still runs is cancelled, and what is still open is cut off.
        """
        deadline = self.loop.time() + self._settings.shutdown_timeout
        self._is_leaving = True
        self.reactor.stop_accepting()
        for timer in self._timers:
            timer.cancel()
        handlers_have_ended = await self._until(lambda: not self._running, deadline)
        self._is_stopping = True
        if not handlers_have_ended:
            self._cancel_running()
            # Whoever used up the time: the other connections get their closing handshake all the same.
            deadline = self.loop.time() + CANCEL_GRACE
        self.reactor.close_all(CloseCode.GOING_AWAY, "the server is stopping")
        if not await self._until(self._is_quiet, deadline):
            self._cancel_running()
            self.reactor.abort_all()
            await self._until(self._is_quiet, self.loop.time() + CANCEL_GRACE)
        if self._running:
            log.warning("%d handlers do not end, and are left behind", len(self._running))
            self._left_behind = True
            self.reactor.release_all()
            self.reactor.turn()
        await self.call_until(deadline, "worker_stop", self._server, self.worker_id)
        self.close()

    async def call_until(self, deadline: float, event: str, *arguments: object) -> None:
        """Call a handler that stands at the end, and wait for it until `deadline`, or for `CANCEL_GRACE`."""
        try:
            async with asyncio.timeout_at(max(deadline, self.loop.time() + CANCEL_GRACE)):
                await self.call(event, *arguments)
        except TimeoutError:
            log.error("the handler of %s took too long, and is cancelled", event)
            self._cancel_running()

    def close(self) -> None:
        """Let go of the event loop, at once; what is queued is written as far as it goes."""
        self._is_stopping = self._left_behind = True
        self.reactor.stop_accepting()
        self.reactor.turn()
        self.reactor.abort_all()
        self.reactor.turn()
        self.loop.remove_reader(self.reactor.fileno())
        if self._timer:
            self._timer.cancel()
        for timer in self._timers:
            timer.cancel()

    def dispose(self) -> None:
        """Let go of everything; no handler may be called after that."""
        self._is_closed = True
        self._pool.close()
        for future in self._running:
            if future.done() and not future.cancelled():
                future.exception()  # Known already: it has ended the worker.
        # The reactor holds this worker too. Without the circle, its descriptors are closed at once.
        del self.reactor

    def _cancel_running(self) -> None:
        for future in list(self._running):
            future.cancel()

    def _is_quiet(self) -> bool:
        """Whether no connection is left and no handler runs."""
        return not len(self.reactor) and not self._running

    async def _until(self, condition: Callable[[], bool], deadline: float) -> bool:
        while not condition():
            if self.loop.time() >= deadline:
                return False
            await asyncio.sleep(STOP_POLL)
        return True

    # ---- what the reactor asks for -----------------------------------------------------------------------

    def schedule_turn(self) -> None:
        """Have a turn run soon."""
        self.loop.call_soon(self.reactor.scheduled_turn, context=self._context)

    def set_timer(self, seconds: float) -> None:
        """Have a turn run in so many seconds, and no timer from before."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.reactor.turn, context=self._context)

    def make_request(
        self, method: str, path: str, query: str, headers: list[tuple[str, str]], client: tuple[str, int]
    ) -> Request:
        """Make the `Request` of a parsed head."""
        client, scheme = forwarded(headers, client, "http", self._settings.trusted_proxies)
        return Request(method, path, query, headers, client, scheme)

    def on_handshake(self, token: int, request: Request) -> None:
        """Ask the `handshake` handler."""
        self._ask("handshake", request, functools.partial(self._decide, token, request), token)

    def on_request(self, token: int, request: Request) -> None:
        """Ask the `request` handler."""
        if self._is_leaving:
            self._respond(token, STOPPING)
        elif request.path == self._settings.health_path:
            self._respond(token, HEALTHY)
        elif "request" not in self._handlers:
            self._respond(token, UPGRADE_REQUIRED)
        else:
            self._ask("request", request, functools.partial(self._answer, token), token)

    def handler_suspended(self, event: str, fd: int, task: asyncio.Task[Any]) -> None:
        """Wait for the end of a handler's task."""
        self._running.add(task)
        task.add_done_callback(functools.partial(self._task_ended, event, fd), context=self._context)

    def run_in_thread(self, event: str, fd: int, handler: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Run a `threaded` handler of a connection."""

        def then(result: object, error: BaseException | None) -> None:
            if error:
                self.handler_failed(event, fd, error)
            self._handler_ended(event, fd)

        self._perform(functools.partial(handler, *arguments), then, in_thread=True)

    def handler_failed(self, event: str, fd: int, error: BaseException) -> None:
        """Log what a handler raised; after `open` and `message` the connection is closed with 1011."""
        if isinstance(error, asyncio.CancelledError):
            if self._is_stopping:
                return
            log.error("the handler of %s was cancelled (fd %d)", event, fd)
        else:
            log.error("the handler of %s failed (fd %d)", event, fd, exc_info=error)
        if event in ("open", "message"):
            self.reactor.disconnect(fd, CloseCode.INTERNAL_ERROR, "the handler failed")

    def accept_paused(self, error: str) -> None:
        """Log that no connection can be accepted for now; not for each attempt, though each is told of."""
        now = self.loop.time()
        if now >= self._next_pause_logged:
            self._next_pause_logged = now + PAUSE_LOG_INTERVAL
            log.warning("accepting pauses: %s", error)

    # ---- handlers that run on ----------------------------------------------------------------------------

    def _task_ended(self, event: str, fd: int, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error:
            self.handler_failed(event, fd, error)
        self._handler_ended(event, fd)

    def _handler_ended(self, event: str, fd: int) -> None:
        if self._left_behind:
            return
        if event == "close":
            self.reactor.forget(fd)
        elif event != "drain":
            self.reactor.release(fd)

    def _perform(
        self,
        job: Callable[[], Any],
        then: Callable[[object, BaseException | None], None],
        *,
        in_thread: bool = False,
    ) -> None:
        """Call `job`, sync or async, in its own context, and `then` with its result or its exception.

        SystemExit and KeyboardInterrupt are not given to `then`: they end the worker.
        """

        def ended(future: asyncio.Future[Any] | Future[Any]) -> None:
            self._running.discard(future)
            if self._is_closed:
                return
            if future.cancelled():
                then(None, asyncio.CancelledError())
            elif error := future.exception():
                failed(error)
            elif inspect.iscoroutine(result := future.result()):
                result.close()
                failed(TypeError("a threaded handler cannot be async, and this one has returned a coroutine"))
            else:
                then(result, None)

        def failed(error: BaseException) -> None:
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise error
            then(None, error)

        def tell(future: Future[Any]) -> None:
            # Where the event loop is closed, the worker has ended without waiting any longer.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(ended, future, context=self._context)

        context = contextvars.copy_context()
        if in_thread:
            thread = self._pool.submit(functools.partial(context.run, job))
            self._running.add(thread)
            thread.add_done_callback(tell)
            return
        try:
            result = context.run(job)
            if inspect.iscoroutine(result):
                result = self.start_task(result)
        except BaseException as error:
            failed(error)
            return
        if not isinstance(result, asyncio.Future):
            then(result, None)
        elif result.done():
            ended(result)
        else:
            self._running.add(result)
            result.add_done_callback(ended, context=self._context)

    # ---- handlers whose result is an answer --------------------------------------------------------------

    def _ask(self, event: str, request: Request, answer: Callable[[object], None], token: int) -> None:
        """Call the handler, and `answer` with its result when it is there."""

        def then(result: object, error: BaseException | None) -> None:
            try:
                if error:
                    raise error
                answer(result)
            except BaseException as failure:
                log.error("the handler of %s failed (%s)", event, request.path, exc_info=failure)
                self._respond(token, FAILED)

        handler = self._handlers[event]
        job = functools.partial(handler.callable, *(self._server, request)[: handler.count])
        self._perform(job, then, in_thread=handler.kind == "threaded")

    def _decide(self, token: int, request: Request, decision: object) -> None:
        """Carry out what a `handshake` handler has returned."""
        match decision:
            case None | True:
                self.reactor.accept(token, request, None, [])
            case False:
                self._respond(token, FORBIDDEN)
            case Accept(subprotocol=subprotocol, headers=headers):
                offered, _ = self.reactor.offered_subprotocols(token)
                if subprotocol is not None and subprotocol not in offered:
                    raise ValueError(f"subprotocol {subprotocol!r} is none that the client offers: {offered}")
                self.reactor.accept(token, request, subprotocol, list(headers.items()))
            case Refuse(code=code, reason=reason):
                self.reactor.refuse(token, code, reason)
            case Response():
                self._respond(token, decision)
            case _:
                raise TypeError(
                    "a handshake handler returns None, a bool, Accept, Refuse or Response, "
                    f"not {type(decision).__name__}"
                )

    def _answer(self, token: int, answer: object) -> None:
        """Send what a `request` handler has returned."""
        match answer:
            case Response():
                self._respond(token, answer)
            case str() | bytes():
                self._respond(token, Response(answer))
            case None:
                self._respond(token, NOT_FOUND)
            case _:
                raise TypeError(f"a request handler returns Response, str, bytes or None, not {type(answer).__name__}")

    def _respond(self, token: int, response: Response) -> None:
        self.reactor.respond(token, response.status, list(response.headers.items()), response.body)

    # ---- other handlers, timers --------------------------------------------------------------------------

    async def call(self, event: str, *arguments: object) -> None:
        """Call the handler of an event of no connection, and wait for its end; a failure is logged."""
        if handler := self._handlers.get(event):
            ended = asyncio.Event()
            job = functools.partial(handler.callable, *arguments[: handler.count])
            self._run(f"the handler of {event}", job, ended.set, in_thread=handler.kind == "threaded")
            await ended.wait()

    def _run(self, what: str, job: Callable[[], Any], then: Callable[[], None], *, in_thread: bool = False) -> None:
        """Call `job`, and `then` once it has ended; a failure is logged."""

        def ended(result: object, error: BaseException | None) -> None:
            if error and not (self._is_stopping and isinstance(error, asyncio.CancelledError)):
                log.error("%s failed", what, exc_info=error)
            then()

        self._perform(job, ended, in_thread=in_thread)

    def _run_timer(self, job: Callable[[], Any], then: Callable[[], None]) -> None:
        if not self._left_behind:
            self._run("a timer's function", job, then)

    def add_timer(self, seconds: float, repeats: bool, job: Callable[[], Any]) -> Timer:
        """Begin a timer, from any thread."""
        timer = Timer(self.loop, self._run_timer, seconds, repeats, job)
        self.loop.call_soon_threadsafe(self._timers.add, timer)
        return timer

    # ---- looking -----------------------------------------------------------------------------------------

    def info(self, fd: int) -> ConnectionInfo | None:
        """Return what is known of a connection."""
        values = self.reactor.info(fd)
        return values and ConnectionInfo(values[0], self.worker_id, *values[1:])


def _task_starter(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]:
    """Return what makes a task of a coroutine: started at once where Python can do so."""
    if sys.version_info >= (3, 12):
        return functools.partial(asyncio.Task, loop=loop, eager_start=True)
    return loop.create_task
