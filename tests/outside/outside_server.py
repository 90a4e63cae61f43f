"""A server that is tested from outside: its processes, its clients, and programs that use its control socket."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 20
SEND_QUEUE_SIZE = 32 * 1024 * 1024
APP_DIR = Path(__file__).parent


class OutsideServer:
    """`hubbub run outside_app:server` with two workers, whose control socket is `control`."""

    def __init__(self, directory: Path) -> None:
        """Start it; its log goes to a file in `directory`."""
        self.control = str(directory / "control.sock")
        self._log = directory / "log"
        # Any free port at first; a restart keeps it.
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start or restart it, and wait until it accepts connections."""
        command = [sys.executable, "-m", "hubbub", "run", "outside_app:server", "--app-dir", str(APP_DIR)]
        options = ["--port", str(self.port), "--workers", "2", "--control", self.control]
        options += ["--send-queue-size", str(SEND_QUEUE_SIZE)]
        with self._log.open("ab") as log:
            self._master = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log)
        assert self._master.stdout is not None
        with self._master.stdout as stdout:
            line = stdout.readline()
        assert line, self.log()
        self.port = int(line)

    def log(self) -> str:
        """Return its log."""
        return self._log.read_text()

    @contextmanager
    def client(self, *topics: str) -> Iterator["Client"]:
        """Connect a client that is subscribed to some topics."""
        query = "&".join(f"{topic}=1" for topic in topics)
        with connect(f"ws://127.0.0.1:{self.port}/?{query}", proxy=None) as connection:
            yield Client(connection)

    def freeze(self) -> None:
        """Stop the process that reads the control socket, which stays open."""
        os.kill(self._master.pid, signal.SIGSTOP)
        # Its threads keep running for a moment.
        os.waitid(os.P_PID, self._master.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Continue it."""
        os.kill(self._master.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it gracefully."""
        self._master.terminate()
        assert self._master.wait(PATIENCE) == 0, self.log()

    def kill(self) -> None:
        """Kill it."""
        self._master.kill()
        self._master.wait()


class Client:
    """A WebSocket client that knows its id."""

    def __init__(self, connection: ClientConnection) -> None:
        """Wait for the id."""
        self._connection = connection
        self.fd = int(self.next())

    def next(self) -> str | bytes:
        """Wait for a message."""
        return self._connection.recv(PATIENCE)

    def texts(self, count: int) -> list[str | bytes]:
        """Wait for that many messages."""
        return [self.next() for _ in range(count)]

    def nothing_came(self) -> bool:
        """Check by an echo that no message sent before this call is waiting."""
        self._connection.send("nothing?")
        return self.next() == "nothing?"

    def close_code(self) -> tuple[int, str]:
        """Wait for the end of the connection, without another message; return the server's code and reason."""
        with pytest.raises(ConnectionClosed) as closed:
            self.next()
        close = closed.value.rcvd
        assert close is not None
        return close.code, close.reason


def run_program(program: str | Path, *arguments: str) -> str:
    """Run a program, given as text or as a file; return its output. It must exit without an error."""
    what = [str(program)] if isinstance(program, Path) else ["-c", textwrap.dedent(program)]
    done = subprocess.run([sys.executable, *what, *arguments], capture_output=True, text=True, timeout=2 * PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
