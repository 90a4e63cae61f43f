"""This process: how its program was started, whether it can be run again, and its assignment if it is a worker.

A worker is the same program run again, in a fresh interpreter. The master writes the worker's assignment into a pipe,
and passes its descriptor in an environment variable. `import hubbub` removes that variable, so that no process started
by the program takes itself for a worker. A worker dies with its master, whatever the program does before or instead of
`start()`.
"""

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import setproctitle

from . import _core
from .logs import shown

__all__ = ["Assignment", "Way", "Why"]

log = logging.getLogger("hubbub")

VARIABLE = "HUBBUB_WORKER"

# Seconds between two checks whether the master is still alive, on systems that do not notify us.
WATCH_INTERVAL = 1.0

Why = Literal["stop", "replace", "terminate"]
"""Why a worker leaves: the server stops, another worker takes its place, or this worker alone was told to end."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The data that a master passes to its worker; the descriptors are inherited."""

    worker_id: int
    workers: int
    """The number of workers."""
    slot: int
    link: int
    registry: int
    master: int
    """The master's process id."""
    port: int
    """The port that the master listens on."""
    title: str
    """Where the master listens, for the title of the process: "port 9501"."""
    server: int
    """The number of the server in the program, counted from 1 in the order of creation."""
    start: int
    """The number of the `start()` call on that server, counted from 1."""
    is_reload: bool
    """Whether the program may differ from the master's."""
    settings: dict[str, Any]
    """The master's settings, by name."""
    topics: list[dict[str, Any]]
    """The master's options of topics, each by name, in their order."""


# ---- how it was started ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """What Python was told to run: `python WHAT`, `-m WHAT`, `-c WHAT`, or a program from standard input."""

    kind: Literal["script", "module", "command", "input"]
    what: str = ""

    @property
    def name(self) -> str:
        """The program's name, for people."""
        return {"script": Path(self.what).name, "module": self.what}.get(self.kind, "python")


def way_of(arguments: Sequence[str]) -> Way:
    """Return what Python's own arguments, as in `sys.orig_argv[1:]`, told it to run."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "-":
            return Way("input")
        if not argument.startswith("-"):
            return Way("script", argument)
        if argument.startswith("--"):
            # The only long option that takes a value; the others make Python exit at once.
            if argument == "--check-hash-based-pycs":
                next(rest, "")
            continue
        for place, option in enumerate(argument[1:], start=2):
            if option in "cmWX":
                value = argument[place:] or next(rest, "")
                if option == "c":
                    return Way("command", value)
                if option == "m":
                    return Way("module", value)
                break
    return Way("input")


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


_way = way_of(sys.orig_argv[1:])
# The directory where the program was started, unless it changed directory before `import hubbub`.
_directory = _working_directory()
_pid = os.getpid()
name = _way.name
"""The program's name in process titles; `hubbub run` sets it to its target."""


def is_typed_in() -> bool:
    """Return whether Python runs interactively."""
    return hasattr(sys, "ps1")


def why_not_again() -> str | None:
    """Return why this program cannot be run again, as a line for people; return `None` if it can."""
    if is_typed_in():
        return "workers have to run this program again, but it was typed in and is not a file"
    multiprocessing = sys.modules.get("multiprocessing.process")
    if os.getpid() != _pid or (multiprocessing and multiprocessing.parent_process()):
        return "workers have to run this program again, but this process is only a child of it"
    if not sys.executable:
        return "workers have to run this program again, but there is no Python executable to run it with"
    if _directory is None:
        return "workers have to run this program again, but the directory in which it was started is gone"
    if _way.kind == "input":
        return "workers have to run this program again, but it came from standard input, which can be read only once"
    if _way.kind == "module" and not _finds_module():
        return f"workers have to run this program again, but there is no module {_way.what} in {_directory}"
    if _way.kind == "script" and not os.path.exists(os.path.join(_directory, _way.what)):
        return f"workers have to run this program again, but there is no {_way.what} in {_directory}"
    return None


def _finds_module() -> bool:
    """Return whether the module run as the program is also found from the directory at `import hubbub`."""
    spec = sys.modules["__main__"].__spec__
    if not spec or not spec.origin or not os.path.isabs(spec.origin):
        return True
    # Python searches the directory that it is started in first; that entry must not count here.
    root = Path(spec.origin).parents[spec.name.count(".")]
    return str(root) in {_directory, os.path.realpath(_directory or ""), *sys.path[1:]}


def run_again(assignment: Assignment) -> subprocess.Popen[bytes]:
    """Run the program again, as a worker that dies with the calling thread.

    Raises:
        OSError: The process cannot be started.
    """
    # Use a pipe: the settings may be too long for a variable, and a file would need a writable directory.
    source = _pipe_with(json.dumps(asdict(assignment)).encode() + b"\n")
    # A worker can handle these two signals only after `import hubbub`, so it starts with them blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        return subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            cwd=_directory,
            env=os.environ | {VARIABLE: str(source)},
            pass_fds=(assignment.link, assignment.registry, source),
            preexec_fn=_core.die_with_parent,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(source)


def _pipe_with(content: bytes) -> int:
    """Return the reading end of a pipe that delivers `content`, of any length; this never waits."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    rest = content[os.write(sink, content) :]
    if rest:
        os.set_blocking(sink, True)
        threading.Thread(target=_write_all, args=(sink, rest), name="hubbub-assignment", daemon=True).start()
    else:
        os.close(sink)
    return source


def _write_all(sink: int, content: bytes) -> None:
    """Write `content`, unless the reader dies before it has read it."""
    with contextlib.suppress(BrokenPipeError), open(sink, "wb") as file:
        file.write(content)


# ---- being a worker --------------------------------------------------------------------------------------


def _take_assignment() -> Assignment | None:
    """Read the assignment that the environment points to; if there is one, make this process die with its master."""
    if (text := os.environ.pop(VARIABLE, None)) is None:
        return None
    try:
        taken = Assignment(**json.loads(_read_line(int(text))))
        for descriptor in (taken.link, taken.registry):
            os.set_inheritable(descriptor, False)
    except (ValueError, TypeError, OverflowError, OSError):
        sys.exit(
            f"hubbub: {VARIABLE} is set, but not by a master of this process; the number of workers is {VARIABLE}S"
        )
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(taken.master,), name="hubbub-watch", daemon=True).start()
    if os.getppid() != taken.master:
        os._exit(1)  # The master died before this process was bound to die with it.
    leave_signals_to_master()
    return taken


def _read_line(source: int) -> bytes:
    """Return the line that a master began to write into a pipe before this process started.

    Raises:
        OSError, ValueError: `source` is not such a pipe.
    """
    if not stat.S_ISFIFO(os.fstat(source).st_mode) or not select.select([source], [], [], 0)[0]:
        raise ValueError("no master has written here")
    with open(source, "rb") as file:
        return file.readline()


def _watch(master: int) -> None:
    """End this process once its master is no longer its parent."""
    while os.getppid() == master:
        time.sleep(WATCH_INTERVAL)
    os.kill(os.getpid(), signal.SIGKILL)


def leave_signals_to_master() -> None:
    """Make SIGINT and SIGHUP do nothing: a terminal sends them to every process, and the master acts for all."""
    if threading.current_thread() is not threading.main_thread():
        return
    # Not SIG_IGN, because programs started by a worker would inherit it.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})


assignment = _take_assignment()
"""The assignment of this process if it is a worker; `None` in other processes, including a worker's forked children."""


def _after_fork() -> None:
    global assignment
    assignment = None


os.register_at_fork(after_in_child=_after_fork)


def leave(error: BaseException | None = None) -> NoReturn:
    """End this process, a worker, as Python does at the end of a program that raised `error`.

    It does not raise SystemExit, because the caller of `start()` must not continue, whatever it catches.
    """
    status = _status_of(error)
    if threading.current_thread() is threading.main_thread():
        # This waits for threads that are not daemons, and tells executors' threads to end.
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _exit(status)


def end_child(error: BaseException | None = None) -> NoReturn:
    """End this process, a forked child that returned to code that only its parent may continue."""
    if error is None:
        log.warning("a forked child returned from its handler to its parent's event loop: ending the child")
    _exit(_status_of(error))


def _status_of(error: BaseException | None) -> int:
    """Return the exit status of a program that raised `error`, and print the reason, as Python does."""
    match error:
        case None | SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code & 0xFF
        case SystemExit(code=text):
            print(text, file=sys.stderr)
        case _:
            sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _exit(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        # The stream may be closed, or None, or have no reader.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


# ---- calls of start() ------------------------------------------------------------------------------------

_servers = 0
_marked: list[object] | None = None
# The thread in which this process serves as a worker.
_worker_thread: threading.Thread | None = None


def count_server() -> int:
    """Count a new server, and return its number, which is the same in the master and in its workers."""
    global _servers
    _servers += 1
    return _servers


@contextlib.contextmanager
def importing() -> Iterator[list[object]]:
    """While a module is imported, make `start()` only mark its server; yield the list of marked servers."""
    global _marked
    _marked = []
    try:
        yield _marked
    finally:
        _marked = None


def mark(server: object) -> bool:
    """If a module is being imported, mark the server whose `start()` was called; return whether that is the case."""
    if _marked is None:
        return False
    _marked.append(server)
    return True


def has_become_worker() -> None:
    """Note that this process serves as a worker from now on, in the calling thread."""
    global _worker_thread
    _worker_thread = threading.current_thread()


def is_called_by_worker() -> bool:
    """Return whether the calling code runs in a worker that serves, and not in the program before its `start()`.

    If the program has called `start()` in a thread, its main thread still counts as being before it.
    """
    main = threading.main_thread()
    return _worker_thread is not None and (_worker_thread is main or threading.current_thread() is not main)


# ---- signals and titles ----------------------------------------------------------------------------------

OnSignal = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def handling_signals(handlers: Mapping[signal.Signals, OnSignal]) -> Iterator[None]:
    """Install signal handlers, and restore the old ones afterwards; Python allows this only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        log.warning("start() was not called in the main thread: signals will not stop or reload the server")
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None means that the old handler was not set from Python, so Python cannot restore it.
            if handler is not None:
                signal.signal(number, handler)


def stops(stop: Callable[[signal.Signals], object]) -> dict[signal.Signals, OnSignal]:
    """Return handlers of SIGINT and SIGTERM: the first signal calls `stop`, the second ends the process at once.

    They are plain signal handlers, because they must work while a handler of the application blocks the event loop.
    """
    seen: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            os._exit(128 + number)
        stop(signal.Signals(number))

    return {signal.SIGINT: on_signal, signal.SIGTERM: on_signal}


@contextlib.contextmanager
def titled(role: str, where: str) -> Iterator[None]:
    """Give this process a title that shows its role in a server, and restore its own title afterwards.

    `where` is where the server listens: "port 9501".
    """
    try:
        before = setproctitle.getproctitle()
    except UnicodeDecodeError:
        # The arguments are not UTF-8.
        before = " ".join(sys.orig_argv)
    _set_title(f"hubbub: {role} ({shown(name)} {where})")
    try:
        yield
    finally:
        _set_title(before)


def _set_title(title: str) -> None:
    """Set the title of this process if possible: it is only for people, so a failure must not stop the program."""
    with contextlib.suppress(Exception):
        setproctitle.setproctitle(title.encode(errors="backslashreplace").decode())
