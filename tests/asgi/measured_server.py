"""A server in processes of its own whose memory is watched, and the program that it runs.

`python measured_server.py SETTINGS` serves `app` with one worker and these settings, in JSON, and prints its port.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubbub import Server

__all__ = ["MIB", "PIECE", "Processes", "is_part", "repeated", "watched_server"]

MIB = 1024 * 1024
PATTERN = bytes(range(251))
"""Its length is no power of two, so a part that is lost or doubled does not go unnoticed."""
PIECE = PATTERN * 4096
SMALL = PATTERN * 256
PIECE_AND_MORE = PIECE + PATTERN
SAMPLES_PER_SECOND = 50


def repeated(length: int, piece: bytes = PIECE) -> Iterator[bytes]:
    """Return the pieces of a body of that many bytes."""
    for _ in range(length // len(piece)):
        yield piece
    if rest := length % len(piece):
        yield piece[:rest]


def is_part(body: bytes, at: int) -> bool:
    """Tell whether this is what such a body contains from a certain byte on; at most as long as a piece."""
    at %= len(PATTERN)
    return body == PIECE_AND_MORE[at : at + len(body)]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Take a body on `/take`, give one on `/give/LENGTH` and `/chunks/LENGTH`, and answer everything else at once."""
    _, path, *parameters = scope["path"].split("/")
    match path:
        case "take":
            await answer(send, b"%d" % await taken(receive))
        case "give" | "chunks":
            length = int(parameters[0])
            headers = [(b"content-length", b"%d" % length)] if path == "give" else []
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for piece in repeated(length, SMALL):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case _:
            await answer(send, b"quick")


async def taken(receive: Any) -> int:
    """Receive a body; return its length, or -1 if it is not what was sent."""
    length, matches = 0, True
    while True:
        message = await receive()
        body = message.get("body", b"")
        matches = matches and is_part(body, length)
        length += len(body)
        if not message.get("more_body"):
            return length if matches else -1


async def answer(send: Any, body: bytes) -> None:
    """Send a whole answer."""
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Processes:
    """The processes of a server."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def memory(self) -> int:
        """Return the bytes of memory of all of them: the sum of their proportional set sizes."""
        return sum(proportional_set_size(pid) for pid in family(self._pid))

    def descriptors(self) -> int:
        """Return how many descriptors they have open."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in family(self._pid))

    @contextlib.contextmanager
    def most_memory(self) -> Iterator[list[int]]:
        """Watch their memory until the end of the block; the last number of the list is the highest."""
        found = [self.memory()]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(1 / SAMPLES_PER_SECOND):
                found.append(max(found[-1], self.memory()))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield found
        finally:
            over.set()
            watching.join()


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [pid, *itertools.chain.from_iterable(map(family, children))]


def proportional_set_size(pid: int) -> int:
    """Return the PSS of a process in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


@contextlib.contextmanager
def watched_server(**settings: Any) -> Iterator[tuple[int, Processes]]:
    """Serve until the end of the block; yields the port and the server's processes."""
    command = [sys.executable, __file__, json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline()), Processes(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def main() -> None:
    """Serve."""
    settings = {"control": None, "lifespan": "off", "log_level": "error", "workers": 1, **json.loads(sys.argv[1])}
    server = Server("127.0.0.1", 0, app=app, **settings)
    server.on("start", lambda server: print(server.port, flush=True))
    server.start()


if __name__ == "__main__":
    main()
