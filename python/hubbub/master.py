"""The master: starts the workers, replaces those that end, reloads and stops them.

Every event (a signal, the end of a process, a report from the hub) reaches the event loop as one call, and is handled
before the next one. No such call waits for anything: whatever happens next arrives as another call.
"""

import asyncio
import contextlib
import dataclasses
import enum
import errno
import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import program, systemd
from ._core import broker_address
from .caller import Caller
from .control import Control, open_control
from .errors import CannotServe
from .handlers import Handler
from .hub import open_hub
from .listening import open_listeners, raise_file_limit
from .metrics import Exposition
from .program import Assignment, Why
from .settings import Settings
from .terminal import Terminal, discard_lost_output
from .topic_options import TopicOptions
from .watchdog import NoMarks, Watchdog

__all__ = ["PROGRAM_FAILED", "Master"]

log = logging.getLogger("hubbub")

# Seconds to wait for a number among other hosts at the start.
JOIN_PATIENCE = 10.0
# Extra seconds after `shutdown_timeout` for a leaving worker: for cancelled handlers, `worker_stop`, atexit functions.
GRACE = 5.0
# Seconds to wait for a signal to the master if a worker was signalled first.
SIGNAL_GRACE = 0.2
# Seconds before a worker is restarted: the first restart is immediate, then each delay is twice the previous one. A
# worker that has served for EARNED seconds resets the delay.
FIRST_DELAY = 0.1
MAX_DELAY = 30.0
MAX_DOUBLINGS = 16
# While no worker serves at all, clients are waiting, so the delay is shorter.
MAX_UNSERVED_DELAY = 1.0
EARNED = 10.0

# Exit statuses if the first start fails: because the system refuses something, or in the program itself.
SYSTEM_REFUSED = 1
PROGRAM_FAILED = 3


class Stage(enum.Enum):
    """The stage in the life of a worker's process."""

    STARTING = enum.auto()
    SERVING = enum.auto()
    LEAVING = enum.auto()


@dataclass(eq=False, slots=True)
class Process:
    """One process of a worker."""

    seat: "Seat"
    slot: int
    popen: subprocess.Popen[bytes]
    stage: Stage = Stage.STARTING
    serves_since: float | None = None
    """When it began to serve, by the event loop's clock; `None` if it has never served."""
    is_stuck: bool = False
    """Whether its event loop stands still."""
    overdue: asyncio.TimerHandle | None = None
    """Reports that it takes long to start."""
    kill: asyncio.TimerHandle | None = None
    """Kills the process if it takes too long to leave."""

    def describe(self) -> str:
        return f"worker {self.seat.worker_id} (pid {self.popen.pid})"


@dataclass(eq=False, slots=True)
class Seat:
    """The place of one worker, held by successive processes; at most one is starting, and at most one is serving."""

    worker_id: int
    starting: Process | None = None
    serving: Process | None = None
    failures: int = 0
    """How many of its processes in a row have failed or ended early."""
    next_attempt: asyncio.TimerHandle | None = None


@dataclass(eq=False, slots=True)
class Reload:
    """A reload in progress: the seats get new processes one after the other."""

    waiting: deque[Seat]
    seat: Seat
    old: Process | None = None
    """The process whose end the reload waits for, once its successor serves."""


class Master:
    """The supervisor of all worker processes, and the hub between them."""

    def __init__(
        self,
        server: object,
        settings: Settings,
        topics: Sequence[TopicOptions],
        handlers: Mapping[str, Handler],
        start: tuple[int, int],
    ) -> None:
        """Create the master.

        Args:
            server: Passed to handlers as `server`.
            settings: The server's settings.
            topics: The options of topics.
            handlers: The handlers, by event.
            start: The number of this server in the program, and of this `start()` call on it, both counted from 1.
        """
        self.port = settings.port
        self.worker = None
        self._server = server
        self._settings = settings
        self._topics = topics
        self._handlers = handlers
        self._start = start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seats = [Seat(worker_id) for worker_id in range(settings.worker_count)]
        self._processes: dict[int, Process] = {}  # by slot
        self._reload: Reload | None = None
        self._reload_again = False
        # `shutdown()` may be called before there is an event loop.
        self._is_to_stop = False
        self._is_stopping = False
        # This host's number among others, 0 while it has none; and why it gets none, for now or until somebody acts.
        self._host = 0
        self._unreachable = ""
        self._unusable = ""
        # When the connection to other hosts was lost.
        self._lost_at: float | None = None
        # Set while the server is being drained: stops it.
        self._drained: asyncio.TimerHandle | None = None
        self._status = 0
        self._exposition: Exposition | None = None
        self._watchdog: Watchdog | None = None

    async def run(self) -> int:
        """Serve until a signal or `shutdown()`, then stop gracefully; return the exit status.

        Raises:
            CannotServe: The system refuses something that the server needs.
        """
        settings = self._settings
        self._listeners = await open_listeners(
            settings.hosts, settings.port, settings.backlog, uds=settings.uds, fd=settings.fd
        )
        try:
            return await self._run()
        finally:
            self._listeners.close()

    async def _run(self) -> int:
        settings = self._settings
        self.port = self._listeners.port
        control = open_control(
            settings.control, self.port, is_temporary=settings.port == 0 and not self._listeners.are_shared
        )
        raise_file_limit(settings.max_connections)
        self._hub = open_hub(settings, self._topics, control, self.port)
        self._caller = Caller(self._handlers, settings.threads)
        self._has_heard_of_broker = asyncio.Event()
        self._all_serve = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._loop = self._caller.loop
        self._loop.add_reader(self._hub.fileno(), self._hear)
        if settings.stuck_after is not None:
            self._watchdog = Watchdog(
                "master", settings.stuck_after, self._handlers.items(), NoMarks(), has_master=False
            )
        handlers = program.stops(self._stop_by_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # Under nohup SIGHUP is ignored, and that is left alone.
            terminal = Terminal()
            handlers[signal.SIGHUP] = lambda number, frame: self._on_hangup(terminal)
        try:
            if settings.metrics_port:
                self._exposition = Exposition(settings.metrics_port, self._hub.metrics)
            with program.titled("master", self._listeners.title), program.handling_signals(handlers):
                await self._supervise()
        finally:
            self._close(control)
        return self._status

    def shutdown(self) -> None:
        """Stop gracefully; may be called from any thread."""
        self._is_to_stop = True
        self._call(self._stop, "shutdown() was called")

    def reload(self) -> None:
        """Replace all workers, one after the other; may be called from any thread."""
        self._call(self._begin_reload)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in the event loop, from any thread; does nothing if the loop does not exist or has ended."""
        with contextlib.suppress(RuntimeError):
            if self._loop:
                self._loop.call_soon_threadsafe(function, *arguments)

    # ---- from the start to the end -----------------------------------------------------------------------

    async def _join_hosts(self, broker: str) -> None:
        """Wait until this host has a number among the others.

        Raises:
            CannotServe: It gets none, and the setting `broker_required` says that it needs one.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOIN_PATIENCE):
                await self._either(self._has_heard_of_broker, self._all_ended)
        # From here on, what goes wrong is logged at once.
        self._has_heard_of_broker.set()
        if self._host or self._is_stopping:
            return
        why = self._unusable or self._unreachable or f"it gave this host no number within {JOIN_PATIENCE:g} s"
        what = f"cannot join other hosts through the broker at {broker_address(broker)}: {why}"
        if self._settings.broker_required:
            raise CannotServe(errno.EHOSTUNREACH, what)
        log.warning("%s; serving alone until it can", what)

    def _numbered(self, host: int) -> None:
        """Handle that this host has a number among the others."""
        assert self._settings.broker
        self._host, self._lost_at, self._unreachable, self._unusable = host, None, "", ""
        self._has_heard_of_broker.set()
        log.info("this is host %d of those with the broker at %s", host, broker_address(self._settings.broker))

    def _cannot_reach_broker(self, why: str) -> None:
        """Handle that the broker cannot be reached for now."""
        if self._has_heard_of_broker.is_set():
            log.warning("no connection to other hosts: %s", why)
        self._unreachable = why
        self._note_loss()

    def _note_loss(self) -> None:
        if self._host and self._lost_at is None:
            self._lost_at = time.monotonic()

    def _reaches_broker(self) -> None:
        """Handle that the broker can be reached, at first or again."""
        if self._lost_at is not None:
            log.info("connected to other hosts again, after %.1f s", time.monotonic() - self._lost_at)
        self._lost_at, self._unreachable, self._unusable = None, "", ""

    def _cannot_join(self, why: str) -> None:
        """Handle that this host cannot be one of several, for now."""
        if self._has_heard_of_broker.is_set() and why != self._unusable:
            log.warning("the broker cannot be used: %s", why)
        self._unusable = why
        self._note_loss()
        self._has_heard_of_broker.set()

    async def _supervise(self) -> None:
        if (broker := self._settings.broker) is not None:
            if self._is_to_stop:
                self._stop()
            await self._join_hosts(broker)
        if self._is_stopping:
            log.info("stopped")
            return
        # Start one worker first: an error in the program then shows once, not in every worker.
        self._spawn(self._seats[0])
        if self._is_to_stop:
            self.shutdown()
        try:
            await self._either(self._all_serve, self._all_ended)
            if self._all_serve.is_set():
                self._accept()
            await self._all_ended.wait()
        finally:
            # If a handler raised SystemExit, the workers still stop gracefully.
            self._stop()
            await self._all_ended.wait()
        if not self._status:
            deadline = asyncio.get_running_loop().time() + self._settings.shutdown_timeout
            self._caller.is_stopping = True
            if not await self._caller.until_idle(deadline):
                self._caller.cancel()
            await self._caller.call_until(deadline, "shutdown", self._server)
            log.info("stopped")

    def _accept(self) -> None:
        for listener in self._listeners.sockets:
            self._hub.listen(listener.detach(), self._listeners.are_shared)
        tls = " (TLS)" if self._settings.ssl_certfile else ""
        log.info("listening on %s%s, %s", self._listeners.where, tls, self._workers())
        self._tell_ready()
        self._caller.begin("start", lambda: None, self._server)
        if self._reload_again:
            self._reload_again = False
            self._begin_reload()

    def _tell_ready(self) -> None:
        systemd.notify("READY=1", f"STATUS=listening on {self._listeners.title}, {self._workers()}")

    def _workers(self) -> str:
        count = len(self._seats)
        return "1 worker" if count == 1 else f"{count} workers"

    async def _either(self, *events: asyncio.Event) -> None:
        tasks = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _close(self, control: Control | None) -> None:
        assert self._loop
        for process in self._processes.values():
            process.popen.kill()
        if self._exposition:
            self._exposition.close()
        if self._watchdog:
            self._watchdog.close()
        if control:
            control.remove()
        self._loop.remove_reader(self._hub.fileno())
        self._hub.close()
        self._caller.close()

    # ---- processes ---------------------------------------------------------------------------------------

    def _spawn(self, seat: Seat) -> None:
        """Start a process for a seat that has no starting one."""
        seat.next_attempt = None
        try:
            seat.starting = process = self._launch(seat)
        except OSError as error:
            self._failed(seat, f"worker {seat.worker_id} cannot be started: {error}", SYSTEM_REFUSED)
            return
        self._processes[process.slot] = process
        log.log(logging.INFO if self._all_serve.is_set() else logging.DEBUG, "%s is starting", process.describe())
        if self._settings.stuck_after is not None:
            assert self._loop
            process.overdue = self._loop.call_later(self._settings.stuck_after, self._is_overdue, process)
        name = f"hubbub-worker-{seat.worker_id}"
        threading.Thread(target=self._wait, args=(process,), name=name, daemon=True).start()

    def _launch(self, seat: Seat) -> Process:
        """Run the program again, for a seat.

        Raises:
            OSError: The system refuses to start a process, or all slots are taken.
        """
        slot, link = self._hub.add_worker(seat.worker_id)
        assignment = Assignment(
            worker_id=seat.worker_id,
            workers=len(self._seats),
            slot=slot,
            link=link,
            registry=self._hub.registry,
            master=os.getpid(),
            port=self.port,
            title=self._listeners.title,
            server=self._start[0],
            start=self._start[1],
            is_reload=self._all_serve.is_set(),
            settings=dataclasses.asdict(self._settings),
            topics=[dataclasses.asdict(options) for options in self._topics],
        )
        try:
            return Process(seat, slot, program.run_again(assignment))
        except OSError:
            self._hub.ended(slot)
            raise
        finally:
            os.close(link)

    def _is_overdue(self, process: Process) -> None:
        # Only reported: a program may well need this long, to load a model for example.
        if process.stage is Stage.STARTING:
            seconds = self._settings.stuck_after
            log.warning("%s has been starting for %g s, and is not ready yet", process.describe(), seconds)

    def _wait(self, process: Process) -> None:
        """Wait for the end of a process, in a thread of its own."""
        status = process.popen.wait()
        self._call(self._ended, process, status)

    def _hear(self) -> None:
        """Handle the events reported by the hub."""
        for kind, number, text in self._hub.events():
            match kind:
                case "ready" | "leaving":
                    # The process may have ended meanwhile.
                    if process := self._processes.get(number):
                        (self._ready if kind == "ready" else self._leaves)(process)
                case "stuck" | "moves":
                    if process := self._processes.get(number):
                        self._stands_still(process, is_news=bool(text)) if kind == "stuck" else self._moves(process)
                case "reload":
                    self._begin_reload()
                case "shutdown":
                    self._stop("shutdown() was called")
                case "numbered":
                    self._numbered(number)
                case "unreachable":
                    self._cannot_reach_broker(text)
                case "reachable":
                    self._reaches_broker()
                case "unusable":
                    self._cannot_join(text)
                case "drain":
                    self._drain(float(text))
                case "log":
                    log.log(number, "%s", text)

    def _ready(self, process: Process) -> None:
        """Handle the report that a worker accepts connections."""
        if process.stage is not Stage.STARTING:
            return
        assert self._loop
        seat = process.seat
        old = seat.serving
        process.stage, process.serves_since = Stage.SERVING, self._loop.time()
        seat.starting, seat.serving = None, process
        if old:
            self._tell_to_leave(old, "replace")
        if self._drained:
            self._hub.drain(process.slot, max(self._drained.when() - self._loop.time(), 0))
        if self._reload and self._reload.seat is seat:
            self._reload.old = old
            if old is None:
                self._reload_next()
        elif not self._all_serve.is_set():
            self._fill_seats()

    def _fill_seats(self) -> None:
        """Continue the first start."""
        for seat in self._seats:
            if not seat.serving and not seat.starting and not seat.next_attempt:
                self._spawn(seat)
        if all(seat.serving for seat in self._seats):
            self._all_serve.set()

    def _leaves(self, process: Process) -> None:
        """Handle a worker that leaves by itself: it got SIGTERM, or its link broke because it died or misbehaved."""
        if process.stage is Stage.STARTING:
            # Its `worker_start` may have failed: the process is about to end, and gets time to do so.
            self._kill_later(process, GRACE)
        elif process.stage is Stage.SERVING:
            self._set_leaving(process)
            self._replace(process)

    def _stands_still(self, process: Process, *, is_news: bool) -> None:
        """Handle a stuck worker; if `is_news` is false, the worker has already logged it itself."""
        process.is_stuck = True
        if not self._any_serves():
            self._hurry()
        if is_news:
            log.error(
                "%s is stuck: it has done nothing for over %g s; its process is stopped, or a call is holding the "
                "interpreter",
                process.describe(),
                self._settings.stuck_after,
            )
        if self._settings.stuck_restart and process.stage in (Stage.STARTING, Stage.SERVING):
            log.error("killing %s because it is stuck", process.describe())
            process.popen.kill()

    def _moves(self, process: Process) -> None:
        process.is_stuck = False
        log.warning("%s is running again", process.describe())

    def _ended(self, process: Process, status: int) -> None:
        """Handle the end of a worker's process."""
        assert self._loop
        # Read the hub's events first: the worker may have become ready just before it ended.
        self._hear()
        del self._processes[process.slot]
        self._hub.ended(process.slot)
        for timer in (process.kill, process.overdue):
            if timer:
                timer.cancel()
        seat, stage = process.seat, process.stage
        process.stage = Stage.LEAVING
        died = f"{process.describe()} {_describe_end(status)}"
        if stage is Stage.STARTING:
            seat.starting = None
            # Which of the two it was cannot be known from here.
            why = "" if status else ": it never reached start(), or was terminated while worker_start ran"
            what = f"{died} before it was ready{why}"
            # A signal sent to the whole process group is meant for the server, and the master's may arrive later.
            delay = SIGNAL_GRACE if -status in (signal.SIGTERM, signal.SIGINT) else 0
            self._loop.call_later(delay, self._failed, seat, what)
        elif stage is Stage.SERVING or (status and process.serves_since is not None):
            log.error("%s", died)
        if stage is Stage.SERVING and not self._is_stopping:
            self._replace(process)
        if self._reload and self._reload.old is process:
            self._reload_next()
        if self._is_stopping and not self._processes:
            self._all_ended.set()

    def _failed(self, seat: Seat, what: str, status: int = PROGRAM_FAILED) -> None:
        """Handle a worker that ended before it was ready, or could not be started at all."""
        if self._is_stopping:
            return
        log.error("%s", what)
        if not self._all_serve.is_set():
            self._status = status
            self._stop()
            return
        # The seat may have a newer process by now, which says nothing yet about the reload.
        if self._reload and self._reload.seat is seat and not seat.starting and not self._reload.old:
            log.error("the reload failed: workers that were not yet replaced keep serving")
            self._end_reload()
        if not seat.serving:
            self._start_later(seat)

    def _replace(self, process: Process) -> None:
        """Find a successor for a serving process that has ended, or soon will."""
        assert self._loop
        assert process.serves_since is not None
        seat = process.seat
        seat.serving = None
        if self._is_stopping:
            return
        self._hub.restarted(seat.worker_id)
        if self._loop.time() - process.serves_since >= EARNED:
            seat.failures = 0
        self._start_later(seat)

    def _start_later(self, seat: Seat) -> None:
        """Start a process for a seat that has none to come; each failure in a row makes the delay longer."""
        assert self._loop
        longest = MAX_DELAY
        if not self._any_serves():
            longest = MAX_UNSERVED_DELAY
            self._hurry()
        if seat.starting or seat.next_attempt:
            return
        delay = min(FIRST_DELAY * 2 ** min(seat.failures - 1, MAX_DOUBLINGS), longest) if seat.failures else 0
        seat.failures += 1
        if delay:
            log.warning("restarting worker %d in %g s", seat.worker_id, delay)
        seat.next_attempt = self._loop.call_later(delay, self._spawn, seat)

    def _any_serves(self) -> bool:
        return any(seat.serving and not seat.serving.is_stuck for seat in self._seats)

    def _hurry(self) -> None:
        """Bring forward starts that were scheduled while another worker was still serving."""
        assert self._loop
        for seat in self._seats:
            attempt = seat.next_attempt
            if attempt and attempt.when() - self._loop.time() > MAX_UNSERVED_DELAY:
                attempt.cancel()
                seat.next_attempt = self._loop.call_later(MAX_UNSERVED_DELAY, self._spawn, seat)

    def _tell_to_leave(self, process: Process, why: Why) -> None:
        """Make a process end gracefully, or at once if it does not serve yet."""
        if process.stage is Stage.STARTING:
            process.popen.terminate()
        self._hub.leave(process.slot, why)
        self._set_leaving(process)

    def _set_leaving(self, process: Process) -> None:
        process.stage = Stage.LEAVING
        self._kill_later(process, self._settings.shutdown_timeout + GRACE)

    def _kill_later(self, process: Process, seconds: float) -> None:
        assert self._loop
        if process.kill:
            process.kill.cancel()
        process.kill = self._loop.call_later(seconds, self._kill, process)

    def _kill(self, process: Process) -> None:
        log.error("killing %s because it does not stop", process.describe())
        process.popen.kill()

    # ---- reload ------------------------------------------------------------------------------------------

    def _begin_reload(self) -> None:
        if self._is_stopping or self._drained:
            return
        if self._reload and (starting := self._reload.seat.starting):
            # It may have loaded the old code, or be stuck in it.
            self._tell_to_leave(starting, "stop")
            self._reload.seat.starting = None
            self._reload = None
        if self._reload or not self._all_serve.is_set():
            self._reload_again = True
            return
        log.info("reloading")
        systemd.reloading()
        self._reload_again = False
        first, *others = self._seats
        self._reload = Reload(deque(others), first)
        self._renew(first)

    def _renew(self, seat: Seat) -> None:
        """Start a process with the current code for a seat."""
        if seat.next_attempt:
            seat.next_attempt.cancel()
            seat.next_attempt = None
        if seat.starting:
            # It may have loaded the code before it changed.
            self._tell_to_leave(seat.starting, "stop")
            seat.starting = None
        self._spawn(seat)

    def _reload_next(self) -> None:
        """Continue with the next seat, or end the reload."""
        if self._is_stopping or not self._reload:
            return
        if not self._reload.waiting:
            log.info("reloaded")
            self._end_reload()
            return
        self._reload.old = None
        self._reload.seat = self._reload.waiting.popleft()
        self._renew(self._reload.seat)

    def _end_reload(self) -> None:
        self._reload = None
        self._tell_ready()
        if self._reload_again:
            self._begin_reload()
            return
        # The process of a seat that had no serving one may have been told to leave because it had loaded older code.
        for seat in self._seats:
            if not seat.serving:
                self._start_later(seat)

    # ---- stop --------------------------------------------------------------------------------------------

    def _on_hangup(self, terminal: Terminal) -> None:
        """Reload, or stop if the terminal was closed: nobody could stop the server from there any longer."""
        if terminal.is_closed():
            discard_lost_output()
            self._call(self._stop, "the terminal was closed")
        else:
            self.reload()

    def _stop_by_signal(self, number: signal.Signals) -> None:
        self._call(self._stop, number.name)

    def _drain(self, seconds: float) -> None:
        """Have all workers refuse handshakes and send their clients away within this time; then stop."""
        if self._is_stopping:
            return
        assert self._loop
        log.info("draining: all clients are sent away within %g s; then the server stops", seconds)
        systemd.notify(f"STATUS=draining, for {seconds:g} s")
        if self._drained:
            self._drained.cancel()
        self._drained = self._loop.call_later(seconds, self._stop, "drained")
        for process in self._processes.values():
            if process.stage is Stage.SERVING:
                self._hub.drain(process.slot, seconds)

    def _stop(self, reason: str = "") -> None:
        """Stop all processes; `reason`, if given, is logged."""
        if self._is_stopping:
            return
        if reason:
            log.info("%s: stopping", reason)
        self._is_stopping = True
        if self._drained:
            self._drained.cancel()
        systemd.notify("STOPPING=1")
        self._listeners.remove_file()
        self._hub.stop_accepting()
        for seat in self._seats:
            if seat.next_attempt:
                seat.next_attempt.cancel()
        for process in list(self._processes.values()):
            self._tell_to_leave(process, "stop")
        if not self._processes:
            self._all_ended.set()


def _describe_end(status: int) -> str:
    if status >= 0:
        return f"ended (exit status {status})"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"
