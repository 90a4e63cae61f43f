"""Run the demo chat as several servers that are one, with a Redis of their own: `make demo HOSTS=2`.

Each server has a port of its own on this machine, from 9501 (HUBBUB_PORT) on, and thinks that the others are on other
hosts.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hubbub import Settings
from hubbub._core import die_with_parent

MAX_HOSTS = 20
# Seconds for a program to start, and to stop.
PATIENCE = 20.0
PROGRAMS = ("redis-server", "valkey-server")
HOW_TO_INSTALL = """\
The demo on several hosts needs Redis or Valkey on this machine, or the URL of one in HUBBUB_BROKER. To install it:
  Debian, Ubuntu   sudo apt install redis-server
  Fedora           sudo dnf install valkey
  macOS            brew install redis"""


class Failure(Exception):
    """An error that is reported in one line."""


def main() -> None:
    """Run the servers until Ctrl-C, or until one of them ends."""
    count = _count(sys.argv[1:])
    is_over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: is_over.set())
    try:
        with ExitStack() as stack:
            settings = Settings.load({})
            ports = range(settings.port, settings.port + count)
            _refuse_taken(ports)
            broker = settings.broker or stack.enter_context(_redis())
            servers = [stack.enter_context(_running(_server(port), HUBBUB_BROKER=broker)) for port in ports]
            _wait_until_served(servers, ports, is_over)
            if not is_over.is_set():
                print(f"The chat is at {_listed(ports)}. Ctrl-C stops all.", flush=True)
            while not is_over.wait(0.1):
                _check(servers)
    except Failure as error:
        sys.exit(str(error))


def _count(arguments: Sequence[str]) -> int:
    text = arguments[0] if arguments else ""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_HOSTS):
        sys.exit(f"HOSTS must be a number from 1 to {MAX_HOSTS}, not {text!r}")
    return int(text)


def _listed(ports: Sequence[int]) -> str:
    *others, last = (f"http://127.0.0.1:{port}/" for port in ports)
    return f"{', '.join(others)} and {last}" if others else last


def _refuse_taken(ports: Sequence[int]) -> None:
    for port in ports:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            raise Failure(f"port {port} is in use; set HUBBUB_PORT to another first port")


def _server(port: int) -> list[str]:
    return [sys.executable, "-m", "hubbub", "demo", "--port", str(port)]


@contextmanager
def _redis() -> Iterator[str]:
    """Run Redis, which keeps nothing on disk and listens only in a directory of its own; yield its URL."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise Failure(HOW_TO_INSTALL)
    with tempfile.TemporaryDirectory(prefix="hubbub-demo-") as directory:
        place = Path(directory, "redis.sock")
        command = [program, "--port", "0", "--unixsocket", str(place), "--unixsocketperm", "700", "--dir", directory]
        with _running([*command, "--save", "", "--appendonly", "no", "--loglevel", "warning"]) as redis:
            deadline = time.monotonic() + PATIENCE
            while not place.exists():
                if redis.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"{program} does not start")
                time.sleep(0.02)
            yield f"redis+unix://{place}"


@contextmanager
def _running(command: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, which a Ctrl-C in the terminal does not reach; stop it at the end of the block."""
    # One worker is enough for a look, unless the user says otherwise.
    environ = {"HUBBUB_WORKERS": "1", **os.environ, **variables}
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    if any(server.poll() is not None for server in servers):
        raise Failure("one of the servers has ended: stopping the others")


def _wait_until_served(
    servers: Sequence[subprocess.Popen[bytes]], ports: Sequence[int], is_over: threading.Event
) -> None:
    for port in ports:
        deadline = time.monotonic() + PATIENCE
        while not is_over.is_set():
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE):
                break
            _check(servers)
            if time.monotonic() > deadline:
                raise Failure(f"nothing answers at port {port}")
            time.sleep(0.05)


if __name__ == "__main__":
    main()
