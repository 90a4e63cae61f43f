"""The server, in one process, that the tests try to break: each path is one way to behave.

It is embedded in this program, so that memory and descriptors are those of one process, and prints its port once it
accepts connections. Its only argument is JSON: `settings` (keywords of `Server`), `kind` of the message handler (sync,
async or threaded), `descriptors` (how many the process may have), `events` (further handlers: handshake, request), and
`directory` (what the request handler serves).
"""

import asyncio
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from forking import fork_away

from hubbub import Frame, Opcode, Request, Response, Server, StaticFiles

options = json.loads(sys.argv[1])
if descriptors := options.get("descriptors"):
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

# No pings: the raw peers would not answer them.
defaults = {"port": 0, "control": None, "ping_interval": None}
server = Server(**{**defaults, **options.get("settings", {})})

PAGE = b"x" * 1_000_000
LONG_PAGE = PAGE * 20
MUCH = 4_000_000
# Seconds between two numbers for a bystander.
BEAT = 0.005

# Serves `/files/...` out of a directory that has a `files`.
files = StaticFiles(options["directory"]) if "directory" in options else None
paths: dict[int, str] = {}
fds: defaultdict[str, list[int]] = defaultdict(list)
counts: Counter[int] = Counter()
threads: list[threading.Thread] = []
pools: list[ProcessPoolExecutor] = []
loops: list[asyncio.AbstractEventLoop] = []
released = asyncio.Event()
enough = threading.Event()


# ---- handlers --------------------------------------------------------------------------------------------


@server.on("start")
async def announce(server: Server) -> None:
    loops.append(asyncio.get_running_loop())
    server.tick(BEAT, tell_bystanders)
    print(server.port, flush=True)


def tell_bystanders() -> None:
    for fd in fds["/bystander"]:
        server.push(fd, str(counts[fd]))
        counts[fd] += 1


def sum_up(fd: int) -> None:
    server.push(fd, f"that were {counts.pop(fd, 0)}")


@server.on("open")
def enter(server: Server, request: Request) -> None:
    paths[request.fd] = request.path
    fds[request.path].append(request.fd)
    if request.path == "/push-in-open":
        server.push(request.fd, "from open")
    if request.path == "/push-much-in-open":
        # A client that mistook one of these bytes for a frame's length would wait for a long frame.
        for _ in range(2):
            server.push(request.fd, b"\x7f" * MUCH)
    if request.path == "/raise-in-open":
        raise RuntimeError("as it was asked to, in open")


@server.on("close")
def leave(server: Server, fd: int, code: int, reason: str) -> None:
    path = paths.pop(fd)
    fds[path].remove(fd)
    for watcher in fds["/watch"]:
        server.push(watcher, json.dumps([path, code, reason, server.push(fd, "too late")]))
    if path == "/raise-in-close":
        raise RuntimeError("as it was asked to, in close")


def count(server: Server, frame: Frame) -> None:
    counts[frame.fd] += 1
    if frame.data == "how many?":
        server.push(frame.fd, str(counts[frame.fd]))


def answer(server: Server, frame: Frame) -> None:
    match paths[frame.fd]:
        case "/echo":
            server.push(frame.fd, frame.data)
        case "/count":
            count(server, frame)
        case "/bystander":
            # A timer runs in the thread that sends the numbers, so the answer arrives after them.
            server.after(0, sum_up, frame.fd)
        case "/raise":
            raise RuntimeError("as it was asked to, in message")
        case "/cancel":
            raise asyncio.CancelledError
        case "/control":
            server.push(frame.fd, json.dumps(carry_out(*json.loads(frame.data))))


async def answer_async(server: Server, frame: Frame) -> None:
    if paths[frame.fd] == "/held":
        await released.wait()
        count(server, frame)
    else:
        # Suspend once, so that an exception is raised in a task.
        await asyncio.sleep(0)
        answer(server, frame)


def raise_error(server: Server, request: Request) -> None:
    raise RuntimeError(f"as it was asked to, at {request.path}")


def page(server: Server, request: Request) -> bytes | Response:
    if request.path == "/raise":
        raise_error(server, request)
    if request.method == "POST":
        return request.body
    if files and request.path.startswith("/files/"):
        return files(server, request)
    return LONG_PAGE if request.path == "/long" else PAGE


def decide(server: Server, request: Request) -> None:
    if request.path == "/raise-in-handshake":
        raise_error(server, request)


# ---- what the control connection can ask for -------------------------------------------------------------


def carry_out(name: str, *arguments: Any) -> object:
    """Return the result, or the name of the exception."""
    try:
        return COMMANDS[name](*arguments)
    except Exception as error:
        return type(error).__name__


def newest(path: str) -> int:
    return fds[path][-1]


def flood(path: str, size: int, count: int) -> list[int]:
    """Push a message again and again; how many were queued, and how many refused."""
    fd, message = newest(path), b"x" * size
    queued = sum(server.push(fd, message) for _ in range(count))
    return [queued, count - queued]


def push_to_all(path: str, size: int, count: int) -> None:
    """Push a message to each connection in turn, again and again."""
    for _ in range(count):
        for fd in fds[path]:
            server.push(fd, b"x" * size)


def raise_in_timer() -> None:
    server.after(0, lambda: 1 / 0)


def push_from(place: str, path: str) -> None:
    fd = newest(path)

    def push() -> None:
        server.push(fd, f"from {place}")

    async def push_later() -> None:
        await asyncio.sleep(0)
        push()

    match place:
        case "thread":
            threads.append(threading.Thread(target=push))
            threads[-1].start()
        case "task":
            asyncio.run_coroutine_threadsafe(push_later(), loops[0])
        case "timer":
            server.after(0, push)
        case "async timer":
            server.after(0, push_later)


def push_from_threads(number: int, count: int) -> None:
    """Start threads that push numbered messages alternately to `/steady` and to the clients on `/passing`."""
    steady = list(fds["/steady"])

    def push(thread: int) -> None:
        for n in range(count):
            fd, message = steady[n % len(steady)], f"{thread} {n}"
            # The queue for calls from other threads has a limit; `push` returns false while it is full.
            while not server.push(fd, message):
                time.sleep(0.001)
            for passing in fds["/passing"][:]:
                server.push(passing, message)

    for thread in range(number):
        threads.append(threading.Thread(target=push, args=(thread,)))
        threads[-1].start()


def broadcast_from_thread() -> None:
    """Start a thread that broadcasts, except to clients that count their messages, until it is told to stop."""
    spared = [*fds["/bystander"], *fds["/control"]]

    def broadcast() -> None:
        while not enough.is_set():
            server.broadcast(b"x", exclude=spared)

    threads.append(threading.Thread(target=broadcast))
    threads[-1].start()


def publish(path: str, count: int) -> None:
    """Publish one byte again and again to the newest connection of a path."""
    server.subscribe(newest(path), path)
    for _ in range(count):
        server.publish(path, b"x")


def broadcast(path: str, size: int, count: int) -> None:
    """Send a message again and again to all clients on a path."""
    others = [fd for other, there in fds.items() if other != path for fd in there]
    for number in range(count):
        # Each excludes a different unused id, so that no two are for the same connections: they are not sent as one.
        server.broadcast(b"x" * size, exclude=[*others, number % 2])


def publish_while_blocked(count: int, excluded: int) -> None:
    """Publish from a thread, excluding many ids, and block the event loop until everything is queued."""

    def publish() -> None:
        for _ in range(count):
            server.publish("topic", b"x", exclude=range(1, excluded + 1))

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()


def fork() -> int:
    """Fork a child that has copies of all sockets, and stays alive; return its pid."""
    pools.append(ProcessPoolExecutor(1, mp_context=get_context("fork")))
    return pools[-1].submit(os.getpid).result()


def end_child() -> None:
    while pools:
        pools.pop().shutdown()


COMMANDS: dict[str, Callable[..., object]] = {
    "stats": server.stats,
    "broadcast": broadcast,
    "push": lambda fd: server.push(fd, "hello"),
    "begin message": lambda path: server.push(newest(path), "begun", finish=False),
    "end message": lambda path: server.push(newest(path), " and ended", Opcode.CONTINUATION),
    "exists": server.exists,
    "fd": newest,
    "disconnect": lambda path: server.disconnect(newest(path)),
    "raise in timer": raise_in_timer,
    "release": released.set,
    "threads at work": lambda: sum(thread.is_alive() for thread in threads),
    "flood": flood,
    "push to all": push_to_all,
    "push from": push_from,
    "push from threads": push_from_threads,
    "broadcast from thread": broadcast_from_thread,
    "enough": enough.set,
    "publish": publish,
    "publish while blocked": publish_while_blocked,
    "fork": fork,
    "fork away": fork_away,
    "end child": end_child,
}

kind = options.get("kind", "sync")
server.on("message", answer_async if kind == "async" else answer, threaded=kind == "threaded")
event: Any
for event in options.get("events", ()):
    server.on(event, {"request": page, "handshake": decide}[event])


async def main() -> None:
    """Serve until SIGTERM."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.shutdown)
    await server.serve()


asyncio.run(main())
