"""One worker: the reactor in an event loop, and the work for its handlers that is not on the path of a message.

The reactor itself calls `open`, `message`, `close` and `drain` handlers. It calls this module when one of them
continues (as a task, in a thread) or fails, and for handshakes and HTTP requests, whose handlers' results are answers.
"""

import asyncio
import functools
import logging
import math
import os
import random
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from . import program
from ._core import Reactor
from .asgi.application import Application
from .asgi.front import Front, common_scope
from .asgi.lifespan import Lifespan, StartupFailed
from .caller import CANCEL_GRACE, Caller
from .closings import Closings
from .cluster import Answers
from .draining import Draining
from .endpoints import Route, handle_websockets
from .errors import BadInput, CannotServe, NotJson, NotRunning, short_number, wrong_type
from .event_loop import Selector
from .events import CloseCode, Data
from .forwarding import forwarded
from .handlers import Handler
from .headers import pairs_of
from .history import HistoryPage
from .jsons import STANDARD, Json
from .listening import Listeners
from .listing import Page
from .logs import shown
from .memory import memory_for_worker
from .presence import Attendance, Member, decoded
from .program import Why
from .questions import PATIENCE, Questions
from .requests import Request
from .responses import Accept, Refuse, Response
from .sendings import Sendings
from .settings import Settings
from .static import FileResponse
from .streams import Stream
from .tasks import shared_task_class
from .timers import Timer
from .topic_options import TopicOptions
from .visitors import Visitors
from .watchdog import Watchdog

__all__ = ["FailedStart", "Worker"]

log = logging.getLogger("hubbub")

FORBIDDEN = Response("the handshake was refused\n", status=403, content_type="text/plain; charset=utf-8")
NOT_FOUND = Response("not found\n", status=404, content_type="text/plain; charset=utf-8")
NOT_OFFERED = Response(
    "the client did not offer the subprotocol that the server chose\n",
    status=400,
    content_type="text/plain; charset=utf-8",
)
BAD_REQUEST = Response(
    "the body of the request cannot be decoded\n", status=400, content_type="text/plain; charset=utf-8"
)
FAILED = Response("the server failed to answer\n", status=500, content_type="text/plain; charset=utf-8")
UPGRADE_REQUIRED = Response(
    "this is a WebSocket server\n",
    status=426,
    headers={"Upgrade": "websocket"},
    content_type="text/plain; charset=utf-8",
)
SWITCHING_PROTOCOLS = 101

HEALTH_METHODS = ("GET", "HEAD")
NO_HEALTH_METHOD = Response(
    "only GET and HEAD are allowed\n",
    status=405,
    headers={"Allow": ", ".join(HEALTH_METHODS)},
    content_type="text/plain; charset=utf-8",
)
HEALTHY = Response("ok", content_type="text/plain; charset=utf-8")
# This server serves its own clients, but what is for those of other hosts may be lost.
DEGRADED = Response("degraded", content_type="text/plain; charset=utf-8")
STOPPING = Response(
    "the server is stopping\n",
    status=503,
    # The same time as in the reactor's own refusals.
    headers={"Retry-After": "5"},
    content_type="text/plain; charset=utf-8",
)

# The same answer as the reactor's own refusals.
TOO_MANY_HANDLERS = Response(
    "too many handlers are still running for clients that have left\n",
    status=503,
    headers={"Retry-After": "5"},
    content_type="text/plain; charset=utf-8",
)

# The log line for each resource whose shortage makes the reactor refuse new clients; each takes a number.
SHORTAGES: Mapping[str, str] = {
    "handlers": "%d handlers are still running although their clients have left: "
    "new handshakes and requests are refused until some of them end",
    "ids": "all connection ids have been given out: handshakes are refused%.0s",
    "leased ids": "no connection ids may be given out, because their lease can be neither written nor, if there is a "
    "broker, renewed: handshakes are refused%.0s",
}

CLOSING: Mapping[Why, tuple[CloseCode, str]] = {
    "stop": (CloseCode.GOING_AWAY, "the server is stopping"),
    "replace": (CloseCode.SERVICE_RESTART, "the server is reloading"),
    "terminate": (CloseCode.GOING_AWAY, "this worker is stopping"),
}
# For clients of a server that is drained: they may come back at once, to another server.
DRAINING = (CloseCode.SERVICE_RESTART, "the server is stopping: connect again")

# A worker that is being replaced closes this many connections per interval, or more if it has very many. Clients
# reconnect at the rate at which they are disconnected.
CLOSED_AT_ONCE = 10
CLOSING_INTERVAL = 0.01
# Seconds that a worker being replaced waits for connections in the middle of their TLS handshake or first request.
NEWCOMERS_GRACE = 5.0
# Seconds between two log lines that accepting pauses, or that connections were closed for their memory use.
PAUSE_LOG_INTERVAL = 10.0
# Seconds between two log lines that a connection has reached `max_topics`.
TOPICS_LOG_INTERVAL = 10.0

# A worker is renewed after `max_requests`, more or less by up to this part of them, so that not all leave together.
SPREAD = 0.1

WORKER_START_FAILED = "the worker_start handler failed"
APPLICATION_FAILED = "the application failed to start"


@dataclass(frozen=True, slots=True)
class FailedStart:
    """Why a worker could not start."""

    error: BaseException
    """The exception, SystemExit included."""
    what: str
    """The line for the log, before the traceback."""

    def log(self) -> None:
        """Log it, with its traceback unless that says nothing: the application has reported it, or was cancelled."""
        if isinstance(self.error, StartupFailed):
            log.error("%s", self.error)
        else:
            log.error(self.what, exc_info=None if isinstance(self.error, asyncio.CancelledError) else self.error)


class Worker:
    """A reactor and its handlers, in the running event loop."""

    def __init__(
        self,
        server: object,
        settings: Settings,
        handlers: Mapping[str, Handler],
        worker_id: int = 0,
        *,
        topics: Sequence[TopicOptions] = (),
        routes: Sequence[Route] = (),
        json: Json = STANDARD,
        app: Application | None = None,
        workers: int = 1,
        slot: int = 0,
        link: int | None = None,
        registry: int | None = None,
        selector: Selector | None = None,
    ) -> None:
        """Create the worker of the running event loop.

        Args:
            server: Passed to handlers as `server`.
            settings: The server's settings.
            handlers: The handlers, by event.
            worker_id: The number of this worker.
            topics: The options of topics, in the order in which their patterns are tried.
            routes: The endpoints, in the order in which they are tried.
            json: Encodes what is sent, and decodes what is received.
            app: The ASGI application for everything that no endpoint matches.
            workers: The number of workers.
            slot: This process's part of the connection ids.
            link: The descriptor of the link to the hub, if there is a hub.
            registry: The descriptor of the server's shared memory, if there is a hub.
            selector: The event loop's selector, if the reactor is to take its place while it serves.

        Raises:
            CannotServe: A system call failed, or the clock is so far ahead that there are no connection ids.
        """
        self.worker_id = worker_id
        # The reactor uses it too.
        self.json = json
        self.app = app
        # The handlers of the server itself (including those of events without a connection), then of each endpoint.
        self._at = (handlers, *(route.handlers for route in routes))
        # By endpoint: where this is false, the reactor itself accepts handshakes.
        sees_all = settings.access_log or settings.max_requests is not None
        self.decides_handshakes = [sees_all or "handshake" in own for own in self._at]
        # Without endpoints, a server serves WebSockets even if it has no handlers for them: they can still receive. An
        # application decides for itself.
        serves_others = handle_websockets(handlers) or not routes or app is not None
        self._serves_websockets = [serves_others, *(route.serves_websockets for route in routes)]
        self.caller = Caller(handlers, settings.threads)
        self.loop = self.caller.loop
        self.make_task, self.task_options = self.caller.make_task, self.caller.task_options
        self.shared_task_class = shared_task_class()
        # Set by `leave`, with the reason in `_why`, when this worker has to leave.
        self.is_to_leave = asyncio.Event()
        self._why: Why = "stop"
        # How many handshakes and requests this worker still serves before it asks to be renewed.
        self._left_to_serve = math.inf
        self._server = server
        self._settings = settings
        self._handlers = handlers
        self.lifespan = Lifespan(app, mode=settings.lifespan, worker_id=worker_id) if app is not None else None
        self._visitors = Visitors(self.loop, access_log=settings.access_log)
        self._attendance = Attendance(self._begin_member_handler, lambda *told: self.reactor.tells_of_member(*told))
        # The answers that are being streamed, by the token of their request.
        self._streams: dict[int, Stream] = {}
        self._workers = workers
        self._selector = selector
        # The event loop keeps pending timers alive.
        self._timers: weakref.WeakSet[Timer] = weakref.WeakSet()
        self._timer: asyncio.TimerHandle | None = None
        self._due_turn: asyncio.Handle | None = None
        # The exception that `worker_start` raised, or None, once it has ended.
        self._worker_start: asyncio.Future[BaseException | None] | None = None
        self._is_leaving = False
        # Set when the server is drained.
        self._draining: Draining | None = None
        # Whether everything has been released.
        self.is_disposed = False
        # The stop no longer waits for handlers: everything they were holding up has been done.
        self._left_behind = False
        self._next_pause_logged = 0.0
        self._next_topics_logged = 0.0
        self._watchdog: Watchdog | None = None
        self._next_shortage_logged = dict.fromkeys(SHORTAGES, 0.0)
        self._max_memory = settings.max_memory if settings.max_memory != "auto" else memory_for_worker(workers)
        # Counts that `memory_relieved` has not logged yet.
        self._relief = [0, 0, 0, 0]
        self._next_relief_logged = 0.0
        try:
            endpoints = [(route.pattern, route.settings, route.serves_websockets) for route in routes]
            self.reactor = Reactor(
                server,
                self,
                settings,
                endpoints,
                serves_others,
                self._max_memory,
                [options.values for options in topics],
                slot,
                link,
                registry,
                has_application=app is not None,
            )
        except OSError as error:
            raise CannotServe(error.errno, error.strerror or str(error)) from error
        self._front = self._make_front(app) if app is not None else None
        answerer = "this worker" if link is None else "the master"
        self._questions = Questions(self.loop, answerer, self.reactor.forget_question)
        self._closings = Closings(self.loop, self.reactor.watch, self.reactor.unwatch)
        self._sendings = Sendings(self.loop, self.reactor.send, self.reactor.check_sending, self.reactor.stop_sending)
        self.caller.held = self.reactor.handler_held
        # Those of requests answer without asking this worker, unless it has to see every request first.
        answers = () if sees_all else ("request",)
        for endpoint, own in enumerate(self._at):
            for event in ("open", "message", "close", "drain", *answers):
                handler = own.get(event)
                if handler and not (event == "request" and handler.kind == "threaded"):
                    self.reactor.on(endpoint, event, handler.callable, handler.count, handler.kind)

    def _make_front(self, app: Application) -> Front:
        return Front(
            app,
            self.reactor,
            self.loop,
            lambda fd, data: self.send(fd, data, None),
            self.caller.running,
            trusted_proxies=self._settings.trusted_proxies,
            limit_concurrency=self._settings.limit_concurrency,
            access_log=self._settings.access_log,
        )

    # ---- life --------------------------------------------------------------------------------------------

    async def start(self, listeners: Listeners | None) -> FailedStart | None:
        """Start the application, run `worker_start`, then accept connections.

        They come from the hub, or from `listeners`, which the reactor takes over. If this coroutine is cancelled, what
        has begun keeps running until `stop`.

        Returns:
            Why the worker could not start, if it could not; then no connections are accepted.
        """
        if self._settings.stuck_after is not None:
            self._watchdog = Watchdog(
                f"worker {self.worker_id}",
                self._settings.stuck_after,
                [pair for own in self._at for pair in own.items()],
                self.reactor,
                has_master=not listeners,
            )
        if self.lifespan and (error := await asyncio.shield(self._begin_lifespan(self.lifespan))):
            self._end_watch()
            return FailedStart(error, APPLICATION_FAILED)
        self._worker_start = self.caller.outcome("worker_start", self._server, self.worker_id)
        if error := await asyncio.shield(self._worker_start):
            self._end_watch()
            if self.lifespan:
                await self.lifespan.stop(self.loop.time() + self._settings.shutdown_timeout)
            return FailedStart(error, WORKER_START_FAILED)
        if self._selector:
            self._selector.give_way(self.reactor, self.loop, self.caller.context)
        else:
            self.loop.add_reader(self.reactor.fileno(), self.reactor.turn)
        if self._front and self.lifespan:
            self._begin_application(self._front, self.lifespan, listeners)
        if listeners:
            for listener in listeners.sockets:
                self.reactor.listen(listener.detach(), listeners.are_shared)
        self.schedule_turn()
        return None

    def _begin_application(self, front: Front, lifespan: Lifespan, listeners: Listeners | None) -> None:
        settings = self._settings
        scope = common_scope(settings.root_path, lifespan.state, is_encrypted=settings.ssl_certfile is not None)
        scope["server"] = self._address(listeners)
        # Then the reactor asks this worker only about unusual requests.
        is_direct = settings.health_path is None and settings.max_requests is None
        front.begin(lifespan.context, scope, is_direct=is_direct)

    def _address(self, listeners: Listeners | None) -> tuple[str, int | None]:
        """Return the address of this server, as the scopes of an application have it."""
        settings = self._settings
        if settings.uds is not None:
            return settings.uds, None
        port = listeners.port if listeners else getattr(self._server, "port", settings.port)
        return settings.hosts[0], port

    def _begin_lifespan(self, lifespan: Lifespan) -> asyncio.Future[BaseException | None]:
        """Begin the startup of the application, which counts as running until it has ended."""
        started = lifespan.begin()
        if task := lifespan.task:
            self.caller.running.add(task)
            started.add_done_callback(lambda started: self.caller.running.discard(task))
        return started

    def renew_after(self, requests: int) -> None:
        """Ask to be replaced after about so many handshakes and requests."""
        self._left_to_serve = max(1, round(requests * random.uniform(1 - SPREAD, 1 + SPREAD)))

    def _count(self) -> None:
        """Count a handshake or a request."""
        self._left_to_serve -= 1
        if self._left_to_serve == 0:
            log.info("worker %d has served max_requests, and is renewed", self.worker_id)
            self.reactor.ask_to_leave()

    def leave(self, why: Why) -> None:
        """Set `is_to_leave` and the reason; "stop" overrides an earlier reason."""
        if not self.is_to_leave.is_set() or why == "stop":
            self._why = why
        self.is_to_leave.set()

    def drain(self, seconds: float) -> None:
        """Close the WebSockets one after the other within this time; see `Publisher.drain`.

        No client is let in any more, in any worker: the hub has seen to that.
        """
        if self._draining:
            self._draining.cancel()
        self._draining = Draining(
            self.loop, self.reactor.own_ids(), seconds, lambda fd: self.reactor.disconnect(fd, *DRAINING)
        )

    async def stop(self) -> None:
        """Stop gracefully: no new connections, running handlers end, all connections are closed.

        Pending requests are answered, unless the whole server stops. After `shutdown_timeout`, handlers that are
        still running are cancelled, and connections that are still open are cut off.
        """
        deadline = self.loop.time() + self._settings.shutdown_timeout
        if self._draining:
            self._draining.cancel()
        if self._why != "stop":
            self.reactor.return_sockets()
            # Connections whose TLS handshake has begun cannot be handed to another worker.
            patience = self.loop.time() + NEWCOMERS_GRACE
            await self.caller.until(lambda: not self.reactor.newcomers(), min(patience, deadline))
        if self._why == "replace":
            await self._close_by_and_by()
        self._is_leaving = True
        self.reactor.stop_accepting(refuse=self._why == "stop")
        for timer in self._timers:
            timer.cancel()
        all_is_answered = await self.caller.until(self._all_is_answered, deadline)
        self.caller.is_stopping = True
        if not all_is_answered:
            if self._front:
                # Applications that stream are told first, so that they can end in their own way.
                self._front.disconnect_all()
                await self.caller.until_idle(self.loop.time() + CANCEL_GRACE)
            self.caller.cancel()
            # Some handler used up the time, but the other connections still get their closing handshake.
            deadline = self.loop.time() + CANCEL_GRACE
        if self._front:
            self._front.refuse_handshakes()
        self.reactor.close_all(*(DRAINING if self._draining else CLOSING[self._why]))
        if not await self.caller.until(self._is_quiet, deadline):
            self.caller.cancel()
            if self._front:
                self._front.cancel_sockets()
            if cut := self.reactor.abort_all():
                log.warning(
                    "worker %d: %d answers were cut off because they took longer than shutdown_timeout",
                    self.worker_id,
                    cut,
                )
            await self.caller.until(self._is_quiet, self.loop.time() + CANCEL_GRACE)
        if self.caller.running:
            log.warning("%d handlers do not end and are abandoned", len(self.caller.running))
            self._left_behind = True
            self.reactor.release_all()
            self.reactor.turn()
        self._end_watch()
        if self._has_started():
            await self.caller.call_until(deadline, "worker_stop", self._server, self.worker_id)
        if self.lifespan:
            if error := self.lifespan.failure:
                FailedStart(error, APPLICATION_FAILED).log()
            await self.lifespan.stop(max(deadline, self.loop.time() + CANCEL_GRACE))
        self.close()

    def _has_started(self) -> bool:
        """Return whether `worker_start` succeeded, so that `worker_stop` has something to undo; log a failure."""
        if not self._worker_start or not self._worker_start.done():
            return False
        if failure := self._worker_start.result():
            handler = self._handlers["worker_start"].callable
            self.caller.has_failed(handler, failure, WORKER_START_FAILED)
        return failure is None

    async def _close_by_and_by(self) -> None:
        """Close the WebSockets a few at a time, still serving the others. If the server stops, leave the rest open."""
        fds = self.reactor.own_ids()
        steps = self._settings.shutdown_timeout / 2 / CLOSING_INTERVAL
        at_once = max(CLOSED_AT_ONCE, math.ceil(len(fds) / steps))
        for first in range(0, len(fds), at_once):
            if self._why == "stop":
                return
            for fd in fds[first : first + at_once]:
                self.reactor.disconnect(fd, *CLOSING["replace"])
            await asyncio.sleep(CLOSING_INTERVAL)

    def close(self) -> None:
        """Detach from the event loop at once; queued data is written as far as possible without waiting."""
        self._end_watch()
        if self._draining:
            self._draining.cancel()
        if self.lifespan:
            self.lifespan.cancel()
        self.caller.is_stopping = self._left_behind = True
        self.reactor.stop_accepting(refuse=True)
        self.reactor.turn()
        self.reactor.abort_all()
        self.reactor.turn()
        if self._selector:
            self._selector.come_back()
        else:
            self.loop.remove_reader(self.reactor.fileno())
        if self._timer:
            self._timer.cancel()
        for timer in self._timers:
            timer.cancel()

    def _end_watch(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog:
            watchdog.close()

    def end_child(self, error: BaseException | None = None) -> NoReturn:
        """End this process, a forked child that returned from a handler: the event loop belongs to its parent."""
        program.end_child(error)

    def dispose(self) -> None:
        """Release everything; no handler may be called after that."""
        # A turn that is still due would ask for things that are gone by then.
        for handle in (self._due_turn, self._timer):
            if handle:
                handle.cancel()
        self.caller.close()
        self._visitors.close()
        if self._front:
            self._front.dispose()
        self._closings.close()
        self._sendings.close()
        self._questions.close()
        self.is_disposed = True
        del self._closings, self._sendings, self._questions
        self.reactor.forget_states()
        # The reactor refers to this worker too. Breaking the cycle closes its descriptors at once.
        del self.reactor

    def _all_is_answered(self) -> bool:
        """Return whether no handler is running and, unless the server stops, no request is unanswered."""
        if self.caller.running or self._why == "stop":
            return not self.caller.running
        # Read keep-alive connections once more: requests already received would be lost when they are closed.
        self.reactor.turn()
        return not self.caller.running and not self.reactor.unanswered()

    def _is_quiet(self) -> bool:
        """Return whether no connection is left, no handler is running, and none is to be called."""
        has_sockets = self._front is not None and bool(self._front.socket_tasks)
        is_idle = not self.caller.running and not has_sockets and not self.reactor.has_notices()
        return not len(self.reactor) and is_idle

    # ---- what the reactor asks for -----------------------------------------------------------------------

    def schedule_turn(self) -> None:
        """Schedule a turn of the reactor for the next iteration of the event loop."""
        self._due_turn = self.loop.call_soon(self.reactor.scheduled_turn, context=self.caller.context)

    def call_turn_soon(self) -> None:
        """Have the event loop run the turn that is due as one of its callbacks."""
        self._due_turn = self.loop.call_soon(self.reactor.turn, context=self.caller.context)

    def turn_failed(self, error: BaseException) -> None:
        """Report an exception that a turn has raised, as the event loop does for its callbacks."""
        self.loop.call_exception_handler({"message": "Exception in a turn of the reactor", "exception": error})

    def set_timer(self, seconds: float) -> None:
        """Run a turn in `seconds` seconds; this replaces an earlier timer."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.reactor.turn, context=self.caller.context)

    def forwarded(
        self, headers: list[tuple[str, str]], client: tuple[str, int], scheme: str
    ) -> tuple[tuple[str, int], str]:
        """Return the client and the scheme of a request that trusted proxies may have told about."""
        return forwarded(headers, client, scheme, self._settings.trusted_proxies)

    def on_handshake(self, token: int, request: Request) -> None:
        """Call the `handshake` handler if there is one; otherwise accept."""
        self._count()
        self._visitors.asked(token, request)
        if "handshake" in self._at[request._parts.endpoint]:
            self._ask("handshake", token, request)
        else:
            self._accept(token, request, None, [])

    def on_request(self, token: int, request: Request) -> None:
        """Answer a plain HTTP request, usually by calling the `request` handler."""
        self._count()
        self._visitors.asked(token, request)
        if self._is_leaving and self._why == "stop":
            self._respond(token, STOPPING)
        elif request.path == self._settings.health_path:
            self._respond(token, self._health(request.method))
        elif "request" not in self._at[request._parts.endpoint]:
            self._respond(token, UPGRADE_REQUIRED if self._serves_websockets[request._parts.endpoint] else NOT_FOUND)
        elif handlers := self.reactor.handlers_in_excess():
            self.on_shortage("handlers", handlers)
            self._visitors.refused(request, f"{TOO_MANY_HANDLERS.status} {TOO_MANY_HANDLERS.body.decode().strip()}")
            self._respond(token, TOO_MANY_HANDLERS)
        else:
            self._ask("request", token, request)

    def on_app_request(self, token: int, scope: dict[str, Any], body: bytes | None, is_forwarded: bool) -> None:
        """Have the application answer a plain HTTP request."""
        self._count()
        if self._is_leaving and self._why == "stop":
            self._respond(token, STOPPING)
        elif self._settings.health_path is not None and scope["path"] == self._settings.health_path:
            self._respond(token, self._health(scope["method"]))
        elif handlers := self.reactor.handlers_in_excess():
            self.on_shortage("handlers", handlers)
            self._respond(token, TOO_MANY_HANDLERS)
        elif self._front:
            self._front.request(token, scope, body, is_forwarded=is_forwarded)

    def _health(self, method: str) -> Response:
        """Return the answer at `health_path`."""
        if method not in HEALTH_METHODS:
            return NO_HEALTH_METHOD
        if self.reactor.is_draining():
            return STOPPING
        return DEGRADED if self.reactor.is_degraded() else HEALTHY

    def on_app_handshake(self, token: int, scope: dict[str, Any], is_forwarded: bool) -> None:
        """Have the application answer a handshake."""
        self._count()
        if self._front:
            self._front.handshake(token, scope, is_forwarded=is_forwarded)

    def request_progressed(self, token: int) -> None:
        """Have the sender of an answer, or an application, look again at a request for which it waits."""
        if stream := self._streams.get(token):
            stream.tell()
        elif self._front:
            self._front.progressed(token)

    def handler_suspended(self, event: str, fd: int, handler: Callable[..., Any], task: asyncio.Task[Any]) -> None:
        """Track a handler's task until it ends."""
        self.caller.running.add(task)
        task.add_done_callback(functools.partial(self._task_ended, event, fd, handler), context=self.caller.context)

    def run_in_thread(self, event: str, fd: int, handler: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Run a `threaded` handler of a connection."""

        def then(result: object, error: BaseException | None) -> None:
            if error:
                self.handler_failed(event, fd, handler, error)
            self._handler_ended(event, fd)

        job = functools.partial(handler, *arguments)
        self.caller.perform(f"the {event} handler", job, then, in_thread=True)

    def handler_failed(self, event: str, fd: int, handler: Callable[..., Any], error: BaseException) -> None:
        """Log the exception of a handler; for `open` and `message`, close the connection with 1011, or 1007."""
        if isinstance(error, asyncio.CancelledError):
            if self.caller.is_stopping:
                return
            told = "the %s handler was cancelled (fd %d)"
        else:
            told = "the %s handler failed (fd %d)"
        self.caller.has_failed(handler, error, told, event, fd)
        if event == "message" and isinstance(error, NotJson):
            self.reactor.disconnect(fd, CloseCode.INVALID_FRAME_PAYLOAD_DATA, "the message is not JSON")
        elif event in ("open", "message"):
            self.reactor.disconnect(fd, CloseCode.INTERNAL_ERROR, "the handler failed")

    def handler_was_slow(self, event: str, handler: Callable[..., Any], seconds: float) -> None:
        """Log that a handler has held the event loop for too long."""
        self.caller.was_slow(f"the {event} handler", handler, seconds)

    def wants_refusals(self) -> bool:
        """Return whether the reactor should report the requests of the clients that it refuses."""
        return self._visitors.wants_details

    def on_refused(
        self, client: tuple[str, int], request: Request | None, status: int | None, reason: str, sent: int, others: int
    ) -> None:
        """Log that the reactor has refused a client."""
        self._visitors.turned_away(client, request, status, reason, sent, others)

    def accept_paused(self, error: str) -> None:
        """Log that no connection can be accepted for now; called for each attempt, but does not log each one."""
        now = self.loop.time()
        if now >= self._next_pause_logged:
            self._next_pause_logged = now + PAUSE_LOG_INTERVAL
            log.warning("accepting is paused: %s", error)

    def on_shortage(self, of: str, count: int) -> None:
        """Log that new clients are refused because a resource is used up; does not log each refusal."""
        now = self.loop.time()
        if now >= self._next_shortage_logged[of]:
            self._next_shortage_logged[of] = now + PAUSE_LOG_INTERVAL
            log.error("worker %d: " + SHORTAGES[of], self.worker_id, count)

    def memory_relieved(self, output: int, unfinished: int, bodies: int, freed: int) -> None:
        """Log that connections were closed because together they held more than `max_memory`; at most once in 10 s."""
        self._relief = [sum(pair) for pair in zip(self._relief, (output, unfinished, bodies, freed), strict=True)]
        now = self.loop.time()
        if now >= self._next_relief_logged:
            self._next_relief_logged = now + PAUSE_LOG_INTERVAL
            log.warning(
                "worker %d: connections held more than max_memory (%d bytes): closed %d with unread messages, %d with "
                "unfinished or unhandled messages and %d with unfinished request bodies, which freed %d bytes",
                self.worker_id,
                self._max_memory,
                *self._relief,
            )
            self._relief = [0, 0, 0, 0]

    def topics_exceeded(self, fd: int) -> None:
        """Log that a connection has `max_topics` and was not subscribed to another one; at most once in 10 s."""
        now = self.loop.time()
        if now >= self._next_topics_logged:
            self._next_topics_logged = now + TOPICS_LOG_INTERVAL
            log.warning(
                "fd %d has max_topics (%d) subscriptions: further ones are refused", fd, self._settings.max_topics
            )

    def certificate_read(self, error: str | None) -> None:
        """Log that the certificate's files have changed; every worker reads them, but only one logs it visibly."""
        is_first = self.worker_id == 0
        if error is None:
            level = logging.INFO if is_first else logging.DEBUG
            log.log(level, "worker %d: reloaded the certificate for new connections", self.worker_id)
        else:
            level = logging.WARNING if is_first else logging.DEBUG
            log.log(level, "worker %d: keeping the previous certificate: %s", self.worker_id, error)

    def connection_gone(self, fd: int) -> None:
        """Wake the callers that wait for the end of a connection, or for room in its outbox."""
        self._closings.tell(fd)
        self._sendings.tell(fd)

    def outbox_has_room(self, fd: int) -> None:
        """Wake the caller that waits for room in the outbox of a connection."""
        self._sendings.tell(fd)

    # ---- handlers that run on ----------------------------------------------------------------------------

    def _task_ended(self, event: str, fd: int, handler: Callable[..., Any], task: asyncio.Task[Any]) -> None:
        self.caller.running.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error:
            self.handler_failed(event, fd, handler, error)
        self._handler_ended(event, fd)

    def _handler_ended(self, event: str, fd: int) -> None:
        if self._left_behind:
            return
        if event == "close":
            self.reactor.forget(fd)
        elif event != "drain":
            self.reactor.release(fd)

    # ---- handlers whose result is an answer --------------------------------------------------------------

    def _ask(self, event: str, token: int, request: Request) -> None:
        """Call the handler of a handshake or a request, and act on its result."""
        handler = self._at[request._parts.endpoint][event]
        job = functools.partial(handler.callable, *(self._server, request)[: handler.count])
        then = functools.partial(self._act, event, token, request)
        self.caller.perform(f"the {event} handler", job, then, in_thread=handler.kind == "threaded")

    def request_suspended(self, token: int, request: Request, task: asyncio.Task[Any]) -> None:
        """Answer a request once the task of its handler has ended."""
        self.caller.follow(task, functools.partial(self._act, "request", token, request))

    def request_handled(self, token: int, request: Request, answer: object, error: BaseException | None) -> None:
        """Send an answer that the reactor does not know how to send, or tell the client that the handler has failed."""
        self._act("request", token, request, answer, error)

    def _act(self, event: str, token: int, request: Request, result: object, error: BaseException | None) -> None:
        """Act on what a handler has returned or raised."""
        if self.caller.is_stopping and isinstance(error, asyncio.CancelledError):
            self._respond(token, STOPPING)
            return
        try:
            if error:
                raise error
            if event == "handshake":
                self._decide(token, request, result)
            else:
                self._answer(token, request, result)
        except BaseException as failure:
            told = "the %s handler failed (%s)"
            handler = self._at[request._parts.endpoint][event]
            self.caller.has_failed(handler.callable, failure, told, event, shown(request.path))
            self._respond(token, BAD_REQUEST if isinstance(failure, BadInput) else FAILED)

    def _decide(self, token: int, request: Request, decision: object) -> None:
        """Act on the value that a `handshake` handler returned."""
        match decision:
            case None | True:
                self._accept(token, request, None, [])
            case False:
                self._refuse(token, request, FORBIDDEN)
            case Accept(subprotocol=subprotocol, headers=headers):
                offered, _ = self.reactor.offered_subprotocols(token)
                if subprotocol is not None and subprotocol not in offered:
                    self._refuse(token, request, NOT_OFFERED)
                else:
                    self._accept(token, request, subprotocol, pairs_of(headers))
            case Refuse(code=code, reason=reason):
                self.reactor.refuse(token, code, reason)
                self._visitors.refused(request, f"close code {code} {reason}")
                self._visitors.answered(token, SWITCHING_PROTOCOLS)
            case Response():
                self._refuse(token, request, decision)
            case _:
                raise TypeError(
                    "a handshake handler returns None, a bool, Accept, Refuse or Response, "
                    f"not {type(decision).__name__}"
                )

    def _accept(self, token: int, request: Request, subprotocol: str | None, headers: list[tuple[str, str]]) -> None:
        if self.reactor.accept(token, request, subprotocol, headers) is None:
            self._visitors.left(token)
        else:
            self._visitors.answered(token, SWITCHING_PROTOCOLS)

    def _refuse(self, token: int, request: Request, response: Response) -> None:
        self._visitors.refused(request, f"{response.status} by the handshake handler")
        self._respond(token, response)

    def _answer(self, token: int, request: Request, answer: object) -> None:
        """Send the value that a `request` handler returned."""
        match answer:
            case Response() if not isinstance(answer, FileResponse) and answer.body.__class__ is not bytes:
                self._stream(token, request, answer)
            case Response():
                self._respond(token, answer)
            case str() | bytes() | bytearray() | memoryview():
                self._respond(token, Response(answer))
            case None:
                self._respond(token, NOT_FOUND)
            case _:
                raise TypeError(
                    f"a request handler returns Response, str, bytes-like or None, not {type(answer).__name__}"
                )

    def _stream(self, token: int, request: Request, response: Response) -> None:
        """Send a response whose body is made while it is sent."""
        parts: Any = response.body
        stream = self._streams[token] = Stream(self.reactor, token, response.status, pairs_of(response.headers))

        def then(is_whole: object, error: BaseException | None) -> None:
            del self._streams[token]
            if error and not (self.caller.is_stopping and isinstance(error, asyncio.CancelledError)):
                handler = self._at[request._parts.endpoint]["request"]
                self.caller.has_failed(handler.callable, error, "a streamed answer failed (%s)", shown(request.path))
            if is_whole or error:
                self._visitors.answered(token, response.status, stream.sent)
            else:
                self._visitors.hung_up(token)

        send = stream.send_head if request.method == "HEAD" else stream.send
        self.caller.perform("a streamed answer", functools.partial(send, parts), then)

    def _respond(self, token: int, response: Response) -> None:
        headers = pairs_of(response.headers)
        if isinstance(response, FileResponse):
            # The reactor sends the file later, so it needs a descriptor of its own.
            descriptor = os.dup(response.descriptor)
            offset, length = response.offset, response.length
            is_there = self.reactor.respond_file(token, response.status, headers, descriptor, offset, length)
        else:
            body = response.body
            if body.__class__ is not bytes:
                raise TypeError("only the answer of a request handler can be streamed")
            is_there = self.reactor.respond(token, response.status, headers, body)
            length = len(body)
        if is_there:
            self._visitors.answered(token, response.status, length)
        else:
            self._visitors.hung_up(token)

    # ---- other handlers, timers --------------------------------------------------------------------------

    def on_pipe_message(self, worker_id: int | None, data: str | bytes) -> None:
        """Call the `pipe_message` handler, and tell the reactor when it ends: it limits how many run at once."""
        self.caller.begin("pipe_message", self._pipe_message_ended, self._server, worker_id, data)

    def _pipe_message_ended(self) -> None:
        if not self._left_behind:
            self.reactor.pipe_message_done()

    def on_member(self, event: str, topic: str, fd: int, number: int, info: str) -> None:
        """Call the `join` or `leave` handler for a member of a topic with presence; `info` is JSON."""
        if event in self._handlers:
            self._attendance.tell(event, topic, fd, number, info)
        else:
            self.reactor.tells_of_member(event, fd, number)

    def _begin_member_handler(
        self, event: str, then: Callable[[], None], topic: str, fd: int, number: int, info: str
    ) -> None:
        if not self._left_behind:
            self.reactor.tells_of_member(event, fd, number)
            self.caller.begin(event, then, self._server, topic, fd, decoded(info))

    def send_message(self, data: str | bytes, worker_id: int) -> None:
        """Run `pipe_message` in a worker; see `Server.send_message`."""
        if not isinstance(worker_id, int) or isinstance(worker_id, bool):
            raise wrong_type("worker_id", "an int", worker_id)
        if not 0 <= worker_id < self._workers:
            raise ValueError(f"there is no worker {short_number(worker_id)}; the workers are 0 to {self._workers - 1}")
        self.reactor.send_message(worker_id, data)

    def _run_timer(self, job: Callable[[], Any], then: Callable[[], None]) -> None:
        if not self._left_behind:
            self.caller.run("a timer's function", job, then)

    def add_timer(self, seconds: float, repeats: bool, job: Callable[[], Any]) -> Timer:
        """Start a timer; may be called from any thread.

        Raises:
            NotRunning: The event loop has just been closed.
        """
        try:
            timer = Timer(self.loop, self._run_timer, seconds, repeats, job)
            self.loop.call_soon_threadsafe(self._timers.add, timer)
        except RuntimeError:
            raise NotRunning("the server has just stopped") from None
        return timer

    # ---- waiting -----------------------------------------------------------------------------------------

    async def send(self, fd: int, data: Data, opcode: int | None) -> bool:
        """Queue a message once there is room for it; see `Server.send`."""
        return await self._sendings.send(fd, data, opcode)

    # ---- looking -----------------------------------------------------------------------------------------

    async def subscribers(self, topic: str, patience: float = PATIENCE) -> int:
        """Count the subscribers of a topic in all workers within `patience` seconds; see `Server.subscribers`."""
        return await self._questions.ask(lambda then: self.reactor.count_subscribers(topic, then), patience)

    async def ask_hosts(self, what: str, patience: float = PATIENCE, **arguments: Any) -> Answers:
        """Ask all hosts; see `Server.cluster`."""
        return await self._questions.ask(lambda then: self.reactor.ask_everywhere(what, then, **arguments), patience)

    async def look(self, what: str, patience: float = PATIENCE, **arguments: Any) -> Any:
        """Return what one host answers to a question for all of them."""
        match what:
            case "info":
                return self.reactor.info(arguments["fd"])
            case "connections":
                return self.reactor.open_ids()
            case "stats":
                return self.reactor.stats()
            case "subscribers":
                return await self.subscribers(arguments["topic"], patience)
            case "members":
                return await self.members(arguments["topic"], arguments["after"], arguments["limit"], patience)
            case _:
                return await self.topics(arguments["prefix"], arguments["after_name"], arguments["limit"], patience)

    async def topics(self, prefix: str, after: str, limit: int, patience: float = PATIENCE) -> Page[tuple[str, int]]:
        """Return a page of `Server.topics`: the first `limit` after the name `after`, or fewer."""
        return await self._questions.ask(lambda then: self.reactor.list_topics(prefix, after, limit, then), patience)

    async def members(self, topic: str, after: int, limit: int, patience: float = PATIENCE) -> Page[int]:
        """Return a page of `Server.members`: the first `limit` ids above `after`, or fewer."""
        return await self._questions.ask(lambda then: self.reactor.list_members(topic, after, limit, then), patience)

    async def join(
        self,
        fd: int,
        topic: str,
        last: int,
        since: tuple[str, int] | None,
        info: str | None,
        patience: float = PATIENCE,
    ) -> tuple[bool, int, str, int]:
        """Subscribe a connection and send it old messages; see `Server.join`."""
        return await self._questions.ask(lambda then: self.reactor.join(fd, topic, last, since, info, then), patience)

    async def history(
        self,
        topic: str,
        after: tuple[str, int] | None,
        before: int,
        limit: int,
        newest_first: bool,
        patience: float = PATIENCE,
    ) -> HistoryPage:
        """Return a page of `Server.history`: the first `limit` messages between two places, or fewer."""
        return await self._questions.ask(
            lambda then: self.reactor.history(topic, after, before, limit, newest_first, then), patience
        )

    async def forget(self, topic: str, patience: float = PATIENCE) -> bool:
        """Remove the history of a topic, and return true; see `Server.forget`."""
        return await self._questions.ask(lambda then: self.reactor.forget_history(topic, then), patience)

    async def presence(self, topic: str, after: int, limit: int, patience: float = PATIENCE) -> Page[Member]:
        """Return a page of `Server.presence`: the first `limit` members with ids above `after`, or fewer."""
        return await self._questions.ask(lambda then: self.reactor.presence(topic, after, limit, then), patience)

    async def wait_closed(self, fd: int) -> None:
        """Wait until a connection is no longer open; see `Server.wait_closed`."""
        await self._closings.wait(fd)
