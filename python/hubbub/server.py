"""The server: what an application sees."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from types import BuiltinMethodType, FrameType, TracebackType
from typing import Any, Self, TypeVar, overload

from .errors import NotRunning, SettingsError
from .events import ConnectionInfo, Data
from .handlers import Handler, arguments_of
from .settings import Settings
from .timers import Timer
from .worker import Worker

__all__ = ["Connections", "Server"]

log = logging.getLogger("hubbub")

MOST_UNSENT_IN_KERNEL = 128 * 1024

F = TypeVar("F", bound=Callable[..., Any])

# A forked child has the sockets but must not use them; its copy of a server is not running.
_running: "weakref.WeakSet[Server]" = weakref.WeakSet()


class Connections(Collection[int]):
    """All open WebSockets, by id. Iterating takes a snapshot."""

    def __init__(self, server: "Server") -> None:
        """Look at what `server` has open, whenever asked."""
        self._server = server

    def __contains__(self, fd: object) -> bool:
        return isinstance(fd, int) and self._server.exists(fd)

    def __iter__(self) -> Iterator[int]:
        return iter(self._server._worker_of("connections").reactor.open_ids())

    def __len__(self) -> int:
        return self._server._worker_of("connections").reactor.totals()["connections"]

    def __repr__(self) -> str:
        return f"<Connections of {self._server!r}>"


class Server:
    """A WebSocket server: handlers of its events, and methods to send from any handler, task, timer or thread."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = 9501, *, workers: int | None = None, **settings: Any
    ) -> None:
        """Make a server; it does nothing before `start`, `serve` or `async with`.

        Args:
            host: The name or address to listen on; `0.0.0.0` and `::` are all interfaces.
            port: 0 takes any free port; `port` then tells which.
            workers: Worker processes; `None`: one a core.
            **settings: See `Settings`. An environment variable `HUBBUB_…` beats a keyword.

        Raises:
            SettingsError: A setting is unknown, of the wrong type or out of range.
        """
        keywords = {"host": host, "port": port, "workers": workers, **settings}
        self.settings = Settings.load(keywords)
        _refuse_what_is_not_there(self.settings)
        self._handlers: dict[str, Handler] = {}
        self._worker: Worker | None = None
        self._is_starting = False
        self._port = self.settings.port
        self._stop = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self.connections = Connections(self)

    def __repr__(self) -> str:
        state = "running" if self._worker else "not running"
        return f"<Server {self.settings.host} port {self.port}, {state}>"

    # ---- handlers ----------------------------------------------------------------------------------------

    @overload
    def on(self, event: str, handler: None = None, *, threaded: bool = False) -> Callable[[F], F]: ...

    @overload
    def on(self, event: str, handler: F, *, threaded: bool = False) -> F: ...

    def on(self, event: str, handler: F | None = None, *, threaded: bool = False) -> F | Callable[[F], F]:
        """Register the handler of an event; without `handler`, return a decorator that does.

        A handler may be `def` or `async def`, and is given the first n of the event's arguments, n being the
        positional parameters that it declares.

        Args:
            event: `open` (server, request), `message` (server, frame), `close` (server, fd, code, reason),
                `handshake` (server, request), `request` (server, request), `worker_start` and `worker_stop`
                (server, worker_id), `start` and `shutdown` (server), `pipe_message` (server, worker_id, data),
                or `drain` (server, fd).
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
        if self._worker:
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
            opcode: Overrides that choice: continuation, text or binary.
            finish: `False` sends a fragment; the next one to come is a continuation (RFC 6455 §5.4). Whatever else
                is sent to that connection waits until the message has ended.

        Returns:
            `True` if the message was queued (from another thread: is on its way); `False` if there is no such open
            connection, or its outbox of `send_queue_size` bytes is full.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like, or `fd` no `int`.
            ValueError: `opcode` is none of these three, a text message is not UTF-8, or it is longer than
                `send_queue_size`.
            NotRunning: The server is not running.
        """
        return self._worker_of("push").reactor.push(fd, data, opcode, finish)

    def ping(self, fd: int, data: Data = b"") -> bool:
        """Queue a ping (RFC 6455 §5.5.2); the pong is not reported.

        Returns:
            `False` if there is no such open connection, or its outbox is full.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like, or `fd` no `int`.
            ValueError: `data` has more than 125 bytes.
            NotRunning: The server is not running.
        """
        return self._worker_of("ping").reactor.ping(fd, data)

    def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Begin the closing handshake (RFC 6455 §7.1.2), behind what was pushed before.

        The peer has `close_timeout` seconds to answer. `close` runs when it has, or has not.

        Args:
            fd: The connection's id.
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: At most 123 bytes of UTF-8.

        Returns:
            `False` if there is no such open connection.

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
            `False` if there is no such open connection.

        Raises:
            TypeError: `fd` is no `int`, or `topic` no `str`.
            ValueError: The topic is empty or too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("subscribe").reactor.subscribe(fd, topic)

    def unsubscribe(self, fd: int, topic: str) -> bool:
        """End a subscription; one that there is not is no error.

        Returns:
            `False` if there is no such open connection.

        Raises:
            TypeError: `fd` is no `int`, or `topic` no `str`.
            ValueError: The topic is empty or too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("unsubscribe").reactor.unsubscribe(fd, topic)

    def publish(self, topic: str, data: Data, *, exclude: Iterable[int] = ()) -> None:
        """Queue one message for every subscriber of a topic, less the ids in `exclude`; see `broadcast`.

        Raises:
            TypeError: `topic` is no `str`, `data` neither `str` nor bytes-like, or an id no `int`.
            ValueError: The topic is empty or too long, or the message longer than `send_queue_size`.
            NotRunning: The server is not running.
        """
        self._worker_of("publish").reactor.publish(topic, data, exclude=exclude)

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
        return self._worker_of("info").info(fd)

    async def subscribers(self, topic: str) -> int:
        """Count the connections that are subscribed to a topic, one's own calls until now included.

        Raises:
            TypeError: `fd` is no `int`, or `topic` no `str`.
            ValueError: The topic is empty or too long.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("subscribers")
        if asyncio.get_running_loop() is worker.loop:
            return worker.reactor.subscribers(topic)

        async def count() -> int:
            return worker.reactor.subscribers(topic)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(count(), worker.loop))

    def stats(self) -> dict[str, Any]:
        """Return totals since the start, and under `workers` a list of the same for each worker.

        Keys: `connections` (open now), `accepted`, `refused`, `closed` (handshakes and WebSockets), `messages_in`,
        `messages_out`, `bytes_in`, `bytes_out` (payload), `queued_bytes` (in outboxes now), `slow_consumers_closed`,
        `messages_dropped` (by `slow_consumer="drop"`), `commands_dropped` (other threads' calls beyond what may wait),
        `restarts` (of workers), `started_at` (Unix seconds); those of a worker also have `worker_id`.

        Raises:
            NotRunning: The server is not running.
        """
        worker = self._worker_of("stats")
        totals = {**worker.reactor.totals(), "restarts": 0, "started_at": worker.started_at}
        return {**totals, "workers": [{"worker_id": worker.worker_id, **totals}]}

    @property
    def worker_id(self) -> int | None:
        """The number of this worker; `None` where none runs."""
        return self._worker.worker_id if self._worker else None

    @property
    def port(self) -> int:
        """The port that the server listens on; the one of `settings` until it does."""
        return self._port

    # ---- time --------------------------------------------------------------------------------------------

    def tick(self, seconds: float, fn: Callable[..., Any], *args: Any) -> Timer:
        """Call `fn(*args)` every so many seconds, in this worker; `fn` may be `async def`.

        A call that is due while the one before still runs is left out. What `fn` raises is logged.

        Raises:
            ValueError: `seconds` is not above 0.
            NotRunning: The server is not running.
        """
        if not seconds > 0:
            raise ValueError(f"a tick's seconds must be above 0, not {seconds}")
        return self._worker_of("tick").add_timer(seconds, True, partial(fn, *args))

    def after(self, seconds: float, fn: Callable[..., Any], *args: Any) -> Timer:
        """Call `fn(*args)` once, after so many seconds, in this worker; `fn` may be `async def`.

        What `fn` raises is logged.

        Raises:
            ValueError: `seconds` is below 0.
            NotRunning: The server is not running.
        """
        if not seconds >= 0:
            raise ValueError(f"the seconds to wait must not be below 0, as {seconds} is")
        return self._worker_of("after").add_timer(seconds, False, partial(fn, *args))

    # ---- running -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve until SIGTERM, SIGINT or `shutdown()`, and stop gracefully; a second signal ends the process at once.

        What cannot be served at all (the port is in use, the host is unknown) is told in one line on standard error,
        with exit status 1.
        """
        if not log.hasHandlers():
            logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("start() runs an event loop of its own: within one, use `await server.serve()`")
        if (self.settings.workers or 1) > 1:
            log.warning("workers=%d: this version runs one", self.settings.workers)
        try:
            asyncio.run(self._run_with_signals())
        except _CannotListen as error:
            sys.exit(f"hubbub: {error.strerror}")

    async def serve(self) -> None:
        """Serve in the running event loop until `shutdown()` or cancellation, and stop gracefully.

        Raises:
            OSError: The port is in use, or the host is unknown.
        """
        stop = asyncio.Event()
        await self._open_embedded(stop)
        try:
            await stop.wait()
        finally:
            await self._close()

    async def __aenter__(self) -> Self:
        stop = asyncio.Event()
        await self._open_embedded(stop)
        self._closing = asyncio.get_running_loop().create_task(self._close_after(stop))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # `shutdown()` may have begun it already.
        self._stop.set()
        if self._closing:
            try:
                await self._closing
            except BaseException:
                # It may have been cancelled before it had begun to close.
                self._let_go()
                raise

    def shutdown(self) -> None:
        """Stop gracefully; from any thread, any number of times.

        No new connections are taken, running handlers end, every connection gets close 1001 and its `close` handler
        runs, then `worker_stop`. What still runs after `shutdown_timeout` is cancelled.

        Raises:
            NotRunning: The server is not running.
        """
        worker = self._worker_of("shutdown")
        worker.loop.call_soon_threadsafe(self._stop.set)

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        signals: list[int] = []
        stop = asyncio.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            # A plain signal handler, for it has to work while a handler of the application blocks the event loop.
            signals.append(number)
            if len(signals) > 1:
                os._exit(128 + number)
            log.info("%s: stopping", signal.Signals(number).name)
            loop.call_soon_threadsafe(stop.set)

        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            await self._open(stop)
            try:
                await stop.wait()
            except BaseException:
                # A handler has raised SystemExit, which has ended the event loop.
                self._let_go()
                raise
            await self._close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _open_embedded(self, stop: asyncio.Event) -> None:
        if (self.settings.workers or 1) > 1:
            log.warning("workers=%d: an embedded server has one", self.settings.workers)
        await self._open(stop)

    async def _open(self, stop: asyncio.Event) -> None:
        """Begin to serve. `shutdown()` will set `stop`, from the first handler on, and then this ends early."""
        if self._worker or self._is_starting:
            raise RuntimeError("the server is running already")
        self._is_starting = True
        try:
            log.setLevel(self.settings.log_level.upper())
            listeners = await _listen(self.settings.host, self.settings.port, self.settings.backlog)
            _raise_file_limit(self.settings.max_connections)
            self._port = listeners[0].getsockname()[1]
            self._stop = stop
            self._worker = Worker(self, self.settings, self._handlers, 0)
        finally:
            self._is_starting = False
        _running.add(self)
        if type(self).push is Server.push and "push" not in self.__dict__:
            # The one call that is on every message's path goes straight to the reactor.
            self.__dict__["push"] = self._worker.reactor.push
        opening = asyncio.ensure_future(self._begin(self._worker, listeners))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
        except BaseException:
            self._let_go()
            raise
        finally:
            opening.cancel()
            stopping.cancel()

    async def _begin(self, worker: Worker, listeners: list[socket.socket]) -> None:
        try:
            await worker.start(listeners)
        finally:
            for listener in listeners:
                listener.close()
        log.info("listening on %s port %d", self.settings.host, self._port)
        await worker.call("start", self)

    async def _close_after(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self._close()

    async def _close(self) -> None:
        if self._worker is None:
            return
        try:
            await self._worker.stop()
            deadline = self._worker.loop.time() + self.settings.shutdown_timeout
            await self._worker.call_until(deadline, "shutdown", self)
        except BaseException:
            self._let_go()
            raise
        self._forget_worker(self._worker)
        log.info("stopped")

    def _let_go(self) -> None:
        """End without another word to anyone."""
        if self._worker:
            self._worker.close()
            self._forget_worker(self._worker)

    def _forget_worker(self, worker: Worker) -> None:
        worker.dispose()
        self._leave()

    def _leave(self) -> None:
        """Be as before the start."""
        if isinstance(self.__dict__.get("push"), BuiltinMethodType):
            del self.__dict__["push"]
        self._worker = None
        self._port = self.settings.port

    def _worker_of(self, call: str) -> Worker:
        if self._worker is None:
            raise NotRunning(f"{call} needs a running server: call it from a handler, or within `async with server`")
        return self._worker


def _after_fork() -> None:
    for server in list(_running):
        server._leave()


os.register_at_fork(after_in_child=_after_fork)


def _raise_file_limit(connections: int) -> None:
    """Raise the soft limit of open files to the hard one, and warn if that is too low for so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems (macOS) allow less than the hard limit says.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < connections:
        log.warning("only %d files may be open: too few for max_connections=%d", soft, connections)


def _refuse_what_is_not_there(settings: Settings) -> None:
    """Better no server than one without the TLS that it was told to use."""
    for name in ("ssl_certfile", "ssl_keyfile", "metrics_port"):
        if (value := getattr(settings, name)) is not None:
            raise SettingsError(
                f"{name}: {value!r} is not allowed, for this version does not have it yet; allowed is None"
            )
    if settings.access_log:
        raise SettingsError("access_log: True is not allowed, for this version does not have it yet; allowed is False")
    if settings.control not in ("auto", None):
        raise SettingsError(
            f"control: {settings.control!r} is not allowed, for this version does not have it yet; "
            "allowed is 'auto' or None"
        )


class _CannotListen(OSError):
    """The port is in use, or the host is unknown."""


async def _listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets for all addresses of `host`, on the same port.

    Raises:
        OSError: None of them can be had, or one is in use; the message says which, and why.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise _CannotListen(error.errno, f"cannot listen on {host}: {error.strerror}") from error
    listeners: list[socket.socket] = []
    refusal: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            refusal = error  # A family that this machine does not have.
            continue
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it. Without, megabytes that a slow reader has not taken yet wait in the kernel, where
            # they count against no limit of ours, and a ping behind them comes too late.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT_IN_KERNEL)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = listeners[0].getsockname()[1] if listeners else port
            listener.bind((address[0], taken, *address[2:]))
            listener.listen(backlog)
            listeners.append(listener)
        except OSError as error:
            listener.close()
            refusal = error
            if error.errno != errno.EADDRNOTAVAIL:
                break
    else:
        if listeners:
            return listeners
    for listener in listeners:
        listener.close()
    assert refusal is not None
    raise _CannotListen(refusal.errno, f"cannot listen on {host} port {port}: {os.strerror(refusal.errno or 0)}")
