"""The server: what an application sees."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from types import BuiltinMethodType, FrameType, TracebackType
from typing import Any, NoReturn, Protocol, Self, TypeVar, overload

from . import environment, logs, program
from .embedded import Embedded
from .errors import CannotServe, NotRunning, SettingsError, as_seconds, wrong_type
from .events import ConnectionInfo, Data
from .handlers import Handler, arguments_of
from .listening import check_certificate
from .master import PROGRAM_FAILED, Master
from .program import Assignment
from .settings import Settings
from .terminal import Terminal, discard_lost_output
from .timers import Timer
from .worker import HUB_GRACE, PATIENCE, Worker
from .worker_process import WorkerProcess

__all__ = ["Connections", "Server"]

log = logging.getLogger("hubbub")

LOG_LEVEL = next(setting.default for setting in Settings.describe() if setting.name == "log_level")

F = TypeVar("F", bound=Callable[..., Any])

# A forked child has the sockets but must not use them; its copy of a server is not running.
_running: "weakref.WeakSet[Server]" = weakref.WeakSet()


class Role(Protocol):
    """What this process is while a server runs in it: all of it, its master, or one of its workers."""

    @property
    def port(self) -> int: ...
    @property
    def worker(self) -> Worker | None: ...
    def shutdown(self) -> None: ...
    def reload(self) -> None: ...


class Connections(Collection[int]):
    """The ids of all open WebSockets, in all workers: `fd in …`, `len(…)`, and iteration, which takes a snapshot."""

    def __init__(self, server: "Server") -> None:
        """Look at what `server` has open, whenever asked."""
        self._server = server

    def __contains__(self, fd: object) -> bool:
        return isinstance(fd, int) and self._server.exists(fd)

    def __iter__(self) -> Iterator[int]:
        return iter(self._server._worker_of("connections").reactor.open_ids())

    def __len__(self) -> int:
        return self._server._worker_of("connections").reactor.connections()

    def __repr__(self) -> str:
        return f"<Connections of {self._server!r}>"


class Server:
    """A WebSocket server: handlers of its events, and methods to send from any handler, task, timer or thread."""

    settings: Settings
    """The settings that count: options of a command line before variables before keywords."""
    connections: Connections
    """The ids of all open WebSockets, in all workers. Asking it while the server is not running: `NotRunning`."""

    def __init__(
        self, host: str | Sequence[str] = "127.0.0.1", port: int = 9501, *, workers: int | None = None, **settings: Any
    ) -> None:
        """Make a server; it does nothing before `start`, `serve` or `async with`.

        Args:
            host: The name or address to listen on, or a list of them. `0.0.0.0` is all interfaces by IPv4, `::` by
                IPv6 alone.
            port: 0 takes any free port; `port` then tells which.
            workers: Worker processes; `None`: one a core.
            **settings: See `Settings`. An environment variable `HUBBUB_…` beats a keyword.

        Raises:
            SettingsError: A setting is unknown, of the wrong type or out of range.
        """
        self._keywords = {"host": host, "port": port, "workers": workers, **settings}
        self.settings = Settings.load(self._keywords)
        self._handlers: dict[str, Handler] = {}
        self._number = program.count_server()
        self._starts = 0
        self._role: Role | None = None
        self._embedded: Embedded | None = None
        self._closing: asyncio.Task[None] | None = None
        self.connections = Connections(self)

    def __repr__(self) -> str:
        state = "running" if self._role else "not running"
        return f"<Server {','.join(self.settings.hosts)} port {self.port}, {state}>"

    # ---- handlers ----------------------------------------------------------------------------------------

    @overload
    def on(self, event: str, handler: None = None, *, threaded: bool = False) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, handler: F, *, threaded: bool = False) -> F: ...

    def on(self, event: str, handler: F | None = None, *, threaded: bool = False) -> F | Callable[[F], F]:
        """Register the handler of an event; without `handler`, return a decorator that does.

        A handler may be `def` or `async def`, and is given the first n of the event's arguments, n being the
        positional parameters that it declares. From Python 3.12 on an `async def` begins at once, in an `asyncio.Task`;
        a task factory of the loop is not asked. Those of one connection never overlap: `open`, its messages in order,
        `close`. An exception in `open` or `message` closes the connection with 1011, one in `handshake` or `request`
        is answered with 500; all are logged. One in `worker_start` is a failed start: see there.

        - `handshake` (server, request): a client asks for a WebSocket. `None` or `True` accepts it, `Accept` too, and
          says how; `False` is 403, `Response` that answer, `Refuse` a close code.
        - `open` (server, request): the handshake is done, and `request.fd` is the connection's id. It is the same
          `Request` as in `handshake`.
        - `message` (server, frame): a whole message; see `Frame`.
        - `close` (server, fd, code, reason): once for each `open`, unless its worker was killed. `code` is that of
          RFC 6455 §7.1.5: 1005 if the peer gave none, 1006 if the connection broke. Where the server closed it and the
          peer never answered, it is 1006, with the server's code in `reason`.
        - `drain` (server, fd): the outbox was more than half full, and is empty again, or the connection has ended
          while its `open` or `message` handler runs. It does not wait for that handler.
        - `request` (server, request): plain HTTP. `Response`, `str` (as text/html), `bytes`, or `None` for 404. Without
          a handler: 426.
        - `worker_start`, `worker_stop` (server, worker_id): first and last in each worker, in its event loop. A worker
          whose `worker_start` raises takes no connection, and its `worker_stop` does not run: the first start of the
          server ends with status 3, a reload leaves the old workers, and a worker that is to replace a dead one is
          started again later. `serve` and `async with` raise the exception.
        - `start`, `shutdown` (server): once, in the master or the embedding process: when all workers accept, and when
          all have ended.
        - `pipe_message` (server, worker_id, data): a worker has called `send_message`.

        Args:
            event: The event's name.
            handler: The callable.
            threaded: Run a `def` handler in the worker's pool of `threads`, for code that blocks. The order
                within a connection stays.

        Returns:
            `handler` itself, or the decorator.

        Raises:
            ValueError: There is no such event, or it has a handler already.
            TypeError: The callable could not be called so, or is `async def` and `threaded`.
            RuntimeError: The server is running.
        """
        arguments_of(event)
        if self._role:
            raise RuntimeError(f"the handler of {event!r} comes too late: the server is running")
        if handler is None:
            return lambda handler: self.on(event, handler, threaded=threaded)
        checked = Handler.of(event, handler, threaded=threaded)
        if event in self._handlers:
            raise ValueError(f"{event!r} has a handler already: {self._handlers[event].callable!r}")
        self._handlers[event] = checked
        return handler

    # ---- sending -----------------------------------------------------------------------------------------

    def push(self, fd: int, data: Data, opcode: int | None = None, finish: bool = True) -> bool:
        """Queue one message for the connection `fd`, wherever it lives.

        Returns at once. Messages from one caller to one connection arrive in the order of the calls.

        Args:
            fd: The connection's id, from `Request.fd` or `Frame.fd`.
            data: `str` goes as a text frame, bytes-like as a binary frame (RFC 6455 §5.6).
            opcode: Overrides that choice: `Opcode.CONTINUATION`, `TEXT` or `BINARY`.
            finish: `False` sends a fragment; the next one to come is a continuation (RFC 6455 §5.4). Whatever else
                is sent to that connection waits until the message has ended.

        Returns:
            `True` if the message was queued; for another worker's connection, or from another thread: it was open with
                room, and the message is on its way. `False` if there is no such open connection, or its outbox of
                `send_queue_size` bytes is full.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like, or `fd` no `int`.
            ValueError: `opcode` is none of these three, a text message is not UTF-8, or it is longer than
                `send_queue_size`.
            NotRunning: The server is not running.
        """
        return self._worker_of("push").reactor.push(fd, data, opcode, finish)

    def ping(self, fd: int, data: Data = b"") -> bool:
        """Queue a ping (RFC 6455 §5.5.2); the pong is not reported.

        Args:
            fd: The connection's id.
            data: At most 125 bytes; `str` goes as UTF-8.

        Returns:
            `True` if it was queued; `False` if there is no such open connection, or its outbox is full.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like, or `fd` no `int`.
            ValueError: `data` has more than 125 bytes.
            NotRunning: The server is not running.
        """
        return self._worker_of("ping").reactor.ping(fd, data)

    def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Begin the closing handshake (RFC 6455 §7.1.2): a Close frame is queued after what was pushed before.

        The connection stays until the peer has taken all of that, as long as it takes at least 16 KiB in each
        `close_timeout` seconds; then the peer has `close_timeout` seconds to answer the Close frame. The `close`
        handler runs once it answers, or the time is over.

        Within a message that was begun with `finish=False`, the Close frame waits for its end, `close_timeout` seconds
        at most; until then only fragments of that message are taken. Past that it is sent, and the message stays
        unfinished.

        Args:
            fd: The connection's id.
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: At most 123 bytes of UTF-8.

        Returns:
            `True` if it has begun, or, for another worker's connection or from another thread, is on its way; `False`
                if there is no such open connection.

        Raises:
            TypeError: `fd` or `code` is no `int`, or `reason` no `str`.
            ValueError: A code that may not be sent, or a reason that is too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("disconnect").reactor.disconnect(fd, code, reason)

    def broadcast(self, data: Data, *, exclude: Iterable[int] = ()) -> None:
        """Queue one message for every open WebSocket of the server, less the ids in `exclude`.

        The frame is made once, and shared by all outboxes. A connection whose outbox is full is treated by
        `slow_consumer`.

        Args:
            data: `str` goes as a text message, bytes-like as a binary message.
            exclude: Ids of those who are not to get it.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like, or an id no `int`.
            ValueError: The message is longer than `send_queue_size`.
            NotRunning: The server is not running.
        """
        self._worker_of("broadcast").reactor.broadcast(data, exclude=exclude)

    def subscribe(self, fd: int, topic: str) -> bool:
        """Subscribe a connection to a topic, until `unsubscribe` or its end; again changes nothing.

        Args:
            fd: The connection's id.
            topic: A name of 1 to 255 bytes of UTF-8.

        Returns:
            `True` if it is subscribed; for another worker's connection, or from another thread: it was open with room
                for one more topic, and the subscription is on its way. `False` if there is no such open connection, or
                it has `max_topics` topics; from elsewhere, whichever these are.

        Raises:
            TypeError: `fd` is no `int`, or `topic` no `str`.
            ValueError: The topic is empty or too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("subscribe").reactor.subscribe(fd, topic)

    def unsubscribe(self, fd: int, topic: str) -> bool:
        """End a subscription; one that there is not is no error.

        Args:
            fd: The connection's id.
            topic: A name of 1 to 255 bytes of UTF-8.

        Returns:
            `True` if it is not subscribed any more; `False` if there is no such open connection.

        Raises:
            TypeError: `fd` is no `int`, or `topic` no `str`.
            ValueError: The topic is empty or too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("unsubscribe").reactor.unsubscribe(fd, topic)

    def publish(self, topic: str, data: Data, *, exclude: Iterable[int] = ()) -> None:
        """Queue one message for every subscriber of a topic, in all workers; see `broadcast`.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8. Nobody needs to be subscribed.
            data: `str` goes as a text message, bytes-like as a binary message.
            exclude: Ids of subscribers that are not to get it.

        Raises:
            TypeError: `topic` is no `str`, `data` neither `str` nor bytes-like, or an id no `int`.
            ValueError: The topic is empty or too long, or the message longer than `send_queue_size`.
            NotRunning: The server is not running.
        """
        self._worker_of("publish").reactor.publish(topic, data, exclude=exclude)

    async def wait_closed(self, fd: int) -> None:
        """Wait until the connection `fd`, in any worker, is closed; return at once if there is none.

        That is the moment from which `exists(fd)` is false and `push` has no effect: the peer has begun to close, or
        has gone, or this server has (`disconnect`, a failed handler, a stop). The `close` handler runs later, so a
        handler of that connection may wait here; and where the server has begun, its Close frame may still be on its
        way. Connections of a worker that has died are closed.

        A handler that waits here delays a graceful stop, until `shutdown_timeout` is over and it is cancelled.

        Args:
            fd: The connection's id.

        Raises:
            TypeError: `fd` is no `int`.
            RuntimeError: This worker waits for 65,536 connections already.
            NotRunning: The server is not running, or stops running here meanwhile.
        """
        worker = self._worker_of("wait_closed")
        if asyncio.get_running_loop() is worker.loop:
            await worker.wait_closed(fd)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(worker.wait_closed(fd), worker.loop))

    # ---- looking -----------------------------------------------------------------------------------------

    def exists(self, fd: int) -> bool:
        """Tell whether `fd` is an open WebSocket: not before its handshake, nor once either side has begun to close.

        Raises:
            NotRunning: The server is not running.
        """
        return self._worker_of("exists").reactor.exists(fd)

    def info(self, fd: int) -> ConnectionInfo | None:
        """Return what is known of a connection, `None` if there is none; inside `close` it still answers.

        Raises:
            NotRunning: The server is not running.
        """
        values = self._worker_of("info").reactor.info(fd)
        return values and ConnectionInfo(*values)

    async def subscribers(self, topic: str) -> int:
        """Count the connections of all workers that are subscribed to a topic, one's own calls until now included.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.

        Raises:
            TypeError: `topic` is no `str`.
            ValueError: The topic is empty or too long.
            TimeoutError: A worker with subscribers has not answered within 5 s; the message names it.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("subscribers")
        if asyncio.get_running_loop() is worker.loop:
            return await worker.subscribers(topic)
        asking = asyncio.run_coroutine_threadsafe(worker.subscribers(topic), worker.loop)
        try:
            async with asyncio.timeout(PATIENCE + 2 * HUB_GRACE):
                return await asyncio.wrap_future(asking)
        except TimeoutError:
            if asking.done() and not asking.cancelled():
                raise
            raise TimeoutError(f"the event loop of this worker has not answered within {PATIENCE:g} s") from None

    def stats(self) -> dict[str, Any]:
        """Return totals since the start, and under `workers` a list of the same for each worker.

        Keys: `connections` (open now), `accepted`, `refused`, `closed` (handshakes and WebSockets), `messages_in`,
        `messages_out`, `bytes_in`, `bytes_out` (payload), `queued_bytes` (in outboxes now), `outliving`
        (connections whose clients have left while a handler still runs, now), `held_bytes` (memory for queued output
        and unfinished input now), `slow_consumers_closed`, `memory_closed` (beyond `max_memory`), `messages_dropped`
        (by `slow_consumer="drop"`), `subscriptions_refused` (beyond `max_topics`), `commands_dropped` (calls from
        other threads and workers beyond what may wait), `restarts` (of workers), `started_at` (Unix seconds); those
        of a worker also have `worker_id`.

        Raises:
            NotRunning: The server is not running.
        """
        return self._worker_of("stats").reactor.stats()

    @property
    def worker_id(self) -> int | None:
        """The number of this worker; `None` in the master, and where none runs."""
        worker = self._role and self._role.worker
        return worker.worker_id if worker else None

    @property
    def port(self) -> int:
        """The port that the server listens on; the one of `settings` until it does."""
        return self._role.port if self._role else self.settings.port

    # ---- time --------------------------------------------------------------------------------------------

    def tick(self, seconds: float, fn: Callable[..., Any], *args: Any) -> Timer:
        """Call `fn(*args)` every so many seconds, in this worker; `fn` may be `async def`.

        A call that is due while the one before still runs is left out. What `fn` raises is logged.

        Returns:
            What cancels it.

        Raises:
            TypeError: `seconds` is no number, or `fn` not callable.
            ValueError: `seconds` is not above 0, or too large for a `float`.
            NotRunning: The server is not running.
        """
        seconds = as_seconds("seconds", seconds)
        if not seconds > 0:
            raise ValueError(f"seconds must be above 0, not {seconds}")
        if not callable(fn):
            raise wrong_type("fn", "callable", fn)
        return self._worker_of("tick").add_timer(seconds, True, partial(fn, *args))

    def after(self, seconds: float, fn: Callable[..., Any], *args: Any) -> Timer:
        """Call `fn(*args)` once, after so many seconds, in this worker; `fn` may be `async def`.

        What `fn` raises is logged.

        Returns:
            What cancels it.

        Raises:
            TypeError: `seconds` is no number, or `fn` not callable.
            ValueError: `seconds` is below 0, or too large for a `float`.
            NotRunning: The server is not running.
        """
        seconds = as_seconds("seconds", seconds)
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or above, not {seconds}")
        if not callable(fn):
            raise wrong_type("fn", "callable", fn)
        return self._worker_of("after").add_timer(seconds, False, partial(fn, *args))

    def send_message(self, data: str | bytes, worker_id: int) -> None:
        """Have `pipe_message` run in a worker, which may be this one, with this worker's number and `data`.

        Messages from one caller to one worker arrive in the order of the calls; those for a worker that has just died
        are lost.

        Args:
            data: Arrives as it is, `str` or `bytes`.
            worker_id: From 0 on, below `settings.worker_count`.

        Raises:
            TypeError: `data` is neither `str` nor `bytes`, or `worker_id` no `int`.
            ValueError: There is no such worker.
            NotRunning: The server is not running.
        """
        self._worker_of("send_message").send_message(data, worker_id)

    # ---- running -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve until SIGTERM, SIGINT or `shutdown()`, and stop gracefully; a second signal ends the process at once.

        This process is the master. The workers run the same program again, in fresh interpreters, up to this call,
        which in them does not return. SIGHUP is `reload()`, or a graceful stop if it was sent because the terminal
        that the program was started in was closed. A program that cannot be run again (typed in, or read from
        standard input) can be served with `workers=1`, all in this one process.

        What cannot be served at all (the port is in use, the host is unknown) is told in one line on standard error,
        with exit status 1. Where the program fails in a worker before it comes to this call, or in `worker_start`, the
        traceback is shown, and the status is 3.

        Raises:
            RuntimeError: An event loop runs in this thread, the server runs already, this process is a worker that
                serves, or the program is being typed in.
        """
        if program.mark(self):
            return
        # First of all, and for workers too: a call that fails counts for none of the processes.
        self._refuse_if_running()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("start() runs an event loop of its own: within one, use `await server.serve()`")
        self._starts += 1
        assignment = program.assignment
        if assignment and (self._number, self._starts) != (assignment.server, assignment.start):
            if program.is_called_by_worker():
                raise RuntimeError("a worker cannot start a server: within its event loop, use `await server.serve()`")
            # The worker of another server, or of a later start, has nothing to do here.
            return
        if not log.hasHandlers():
            logs.to_standard_error()
        if assignment:
            self._start_worker(assignment)
        else:
            self._start_master()

    def _start_master(self) -> None:
        """Be the master, or everything at once."""
        refusal = program.why_not_again()
        if refusal and self.settings.workers != 1:
            refusal += "; with workers=1 all runs in this process"
            if program.is_typed_in():
                # Who is typing wants to go on.
                raise RuntimeError(refusal)
            sys.exit(f"hubbub: {refusal}")
        logs.set_level(self.settings.log_level, default=LOG_LEVEL)
        _warn_of_unknown_variables()
        status = 0
        try:
            check_certificate(self.settings.ssl_certfile, self.settings.ssl_keyfile)
            if refusal:
                asyncio.run(self._run_embedded())
            else:
                self._role = master = Master(self, self.settings, self._handlers, (self._number, self._starts))
                _running.add(self)
                status = asyncio.run(master.run())
        except SettingsError as error:
            sys.exit(f"hubbub: {error}")
        except CannotServe as error:
            sys.exit(f"hubbub: {error.strerror}")
        finally:
            self._leave()
        if status:
            sys.exit(status)

    async def _run_embedded(self) -> None:
        loop = asyncio.get_running_loop()
        embedded = Embedded(self, self.settings, self._handlers, self.settings.control)

        def stop(number: signal.Signals) -> None:
            log.info("%s: stopping", number.name)
            loop.call_soon_threadsafe(embedded.shutdown)

        def on_hangup(number: int, frame: FrameType | None) -> None:
            if terminal.is_closed():
                discard_lost_output()
                log.info("the terminal was closed: stopping")
                loop.call_soon_threadsafe(embedded.shutdown)
            else:
                log.error("SIGHUP: cannot reload a server that runs in one process")

        terminal = Terminal()
        handlers = program.stops(stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = on_hangup
        with program.handling_signals(handlers):
            await self._open(embedded)
            try:
                await self._begin(embedded)
            except BaseException:
                if not embedded.failure or program.is_typed_in():
                    raise
                log.error("the handler of worker_start failed", exc_info=embedded.failure)
                raise SystemExit(PROGRAM_FAILED) from None
            try:
                await embedded.until_left()
            except BaseException:
                # A handler has raised SystemExit, which has ended the event loop.
                embedded.let_go()
                raise
            await embedded.close()

    def _start_worker(self, assignment: Assignment) -> NoReturn:
        """Be a worker, with the master's settings."""
        ours, self.settings = self.settings, Settings(**assignment.settings)
        logs.set_level(self.settings.log_level, default=LOG_LEVEL)
        # One of them tells for all.
        if assignment.worker_id == 0 and assignment.is_reload and ours != self.settings:
            names = [
                each.name for each in fields(ours) if getattr(ours, each.name) != getattr(self.settings, each.name)
            ]
            log.warning("changed in the code, in effect when the server is next started: %s", ", ".join(names))
        process = WorkerProcess(self, self.settings, self._handlers, assignment, self._entered, self._leave)
        self._role = process
        process.run()

    async def serve(self) -> None:
        """Serve in the running event loop until `shutdown()` or cancellation, and stop gracefully.

        `async with server:` does so until the end of its block, and the server listens when it begins. There is one
        worker, in this process, whatever `workers` says; signals are left to the program, and there is no control
        socket unless `control` names one. Afterwards it may be served again, in another loop too.

        Raises:
            SettingsError: A file that a setting names is not there.
            OSError: The port is in use, or the host is unknown.
            Exception: What `worker_start` has raised.
            RuntimeError: The server is running already.
        """
        embedded = await self._open_embedded()
        try:
            await embedded.until_left()
        finally:
            await self._close(embedded)

    async def __aenter__(self) -> Self:
        self._embedded = await self._open_embedded()
        self._closing = asyncio.get_running_loop().create_task(self._close_when_left(self._embedded))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # `shutdown()` may have begun it already.
        if self._embedded and self._closing:
            self._embedded.shutdown()
            try:
                await self._closing
            except BaseException:
                # It may have been cancelled before it had begun to close.
                self._embedded.let_go()
                self._leave()
                raise

    def shutdown(self) -> None:
        """Stop the whole server gracefully; from the master, any worker and any thread, any number of times.

        No new connections are taken, running handlers end, every connection gets close 1001 and its `close` handler
        runs, then `worker_stop`. What still runs after `shutdown_timeout` is cancelled.

        Raises:
            NotRunning: The server is not running.
        """
        self._role_of("shutdown").shutdown()

    def reload(self) -> None:
        """Replace the workers by new ones that load the program anew, one at a time; from anywhere, at any time.

        Each new worker takes connections before the old one stops to. The connections of the old one are closed with
        1012, about 1,000 a second. If the new program fails, the old workers stay. One that is asked for during another
        follows it.

        Raises:
            RuntimeError: The server runs in one process.
            NotRunning: The server is not running.
        """
        self._role_of("reload").reload()

    async def _open_embedded(self) -> Embedded:
        check_certificate(self.settings.ssl_certfile, self.settings.ssl_keyfile)
        if (self.settings.workers or 1) > 1:
            log.warning("workers=%d: an embedded server has one", self.settings.workers)
        logs.set_level(self.settings.log_level, default=LOG_LEVEL)
        _warn_of_unknown_variables()
        control = None if self.settings.control == "auto" else self.settings.control
        embedded = Embedded(self, self.settings, self._handlers, control)
        await self._open(embedded)
        await self._begin(embedded)
        return embedded

    async def _open(self, embedded: Embedded) -> None:
        """Listen, and have a worker, which accepts nothing yet."""
        self._refuse_if_running()
        self._role = embedded
        try:
            await embedded.open()
            self._entered()
        except BaseException:
            embedded.let_go()
            self._leave()
            raise

    async def _begin(self, embedded: Embedded) -> None:
        """Begin to serve; if `shutdown()` is called meanwhile, this ends early. Raises what `worker_start` raises."""
        try:
            await embedded.begin()
        except BaseException:
            embedded.let_go()
            self._leave()
            raise

    async def _close_when_left(self, embedded: Embedded) -> None:
        await embedded.until_left()
        await self._close(embedded)

    async def _close(self, embedded: Embedded) -> None:
        try:
            await embedded.close()
        finally:
            self._leave()

    def _entered(self) -> None:
        """There is a worker now."""
        _running.add(self)
        if type(self).push is Server.push and "push" not in self.__dict__:
            # The one call that is on every message's path goes straight to the reactor.
            self.__dict__["push"] = self._worker_of("push").reactor.push

    def _leave(self) -> None:
        """Be as before the start."""
        if isinstance(self.__dict__.get("push"), BuiltinMethodType):
            del self.__dict__["push"]
        self._role = None

    def _refuse_if_running(self) -> None:
        if self._role:
            raise RuntimeError("the server is running already")

    def _role_of(self, call: str) -> Role:
        if self._role is None:
            raise NotRunning(f"{call} needs a running server: call it from a handler, or within `async with server`")
        return self._role

    def _worker_of(self, call: str) -> Worker:
        role = self._role_of(call)
        if role.worker is None:
            raise NotRunning(f"{call} needs a worker: it cannot be called in the master, nor before `worker_start`")
        return role.worker

    def _lay_over(self, options: Mapping[str, str], defaults: Mapping[str, object] = {}) -> None:
        """Have the options of a command line beat variables and keywords.

        Args:
            options: Text by the name of the setting.
            defaults: Values for settings that nobody has given, by name.

        Raises:
            SettingsError: As the constructor.
        """
        self.settings = Settings.load(self._keywords, options=options, defaults=defaults)


def _warn_of_unknown_variables() -> None:
    for complaint in environment.complaints():
        log.warning("%s", complaint)


def _after_fork() -> None:
    for server in list(_running):
        if server._role and (worker := server._role.worker):
            # Not where another thread than the event loop's has forked: nobody knows what that one was about to do.
            with contextlib.suppress(RuntimeError):
                worker.reactor.abandon()
            # Should it come back to the event loop, in a task: that is its parent's.
            worker.loop.call_soon(worker.end_child)
        server._leave()


os.register_at_fork(after_in_child=_after_fork)
