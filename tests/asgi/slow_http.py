"""Judge how slow clients are cut off, with slowhttptest: `python tests/asgi/slow_http.py`.

A thousand clients send their heads slowly, send their bodies slowly, or read their answers slowly. Meanwhile another
client must be served as usual; all of the slow ones must be cut off, and the server's memory must stay within bounds.
Each attack takes at most half a minute. Linux only.
"""

import http.client
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from measured_server import MIB, Processes, watched_server

CLIENTS = 1000
PER_SECOND = 500
LONGEST = 20
"""Seconds of one attack."""
OTHERS = 3
"""Connections that belong to the other client, and to slowhttptest's own requests."""
SETTINGS = {"handshake_timeout": 4, "keep_alive_timeout": 4, "close_timeout": 2, "max_memory": 256 * MIB}
GROWTH = 288 * MIB
"""By how much the memory may grow: `max_memory`, and the tasks of a thousand requests."""
PATIENCE = 3
"""Seconds in which the other client, and slowhttptest itself, must get each of their answers."""

ATTACKS = {
    "slow heads": ("-H", "-i", "1", "-x", "24", "-u", "/"),
    "slow bodies": ("-B", "-i", "1", "-x", "10", "-s", "8192", "-t", "POST", "-u", "/take"),
    "slow readers": ("-X", "-n", "1", "-z", "32", "-w", "512", "-y", "1024", "-k", "1", "-u", f"/give/{8 * MIB}"),
}


@dataclass
class OtherClient:
    """A client that behaves: it asks again and again, on a kept connection and on new ones."""

    port: int
    answers: int = 0
    longest: float = 0.0
    failures: list[str] = field(default_factory=list)

    def ask_until(self, over: threading.Event) -> None:
        """Ask until the event is set."""
        kept = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not over.wait(0.02):
            new = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            for connection in (kept, new):
                self._ask(connection)
            new.close()
        kept.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        began = time.monotonic()
        try:
            connection.request("GET", "/quick")
            answer = connection.getresponse()
            if (answer.status, answer.read()) != (200, b"quick"):
                self.failures.append(f"status {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
            connection.close()
        self.answers += 1
        self.longest = max(self.longest, time.monotonic() - began)


@dataclass
class Attack:
    """What was seen of an attack.

    Attributes:
        most: The most slow clients that the server had at a time.
        cut_off_after: The seconds after which the server had none, `None` if it had some until the end.
        is_available: Whether slowhttptest always got answers too.
    """

    most: int
    cut_off_after: float | None
    is_available: bool


def attack(program: str, options: tuple[str, ...], port: int, server: Processes) -> Attack:
    """Run slowhttptest, and count the server's sockets meanwhile: some slow clients do not notice their end."""
    *others, path = options
    without = server.descriptors() + OTHERS
    with tempfile.TemporaryDirectory() as directory:
        command = [program, *others, f"http://127.0.0.1:{port}{path}", "-c", str(CLIENTS), "-r", str(PER_SECOND)]
        command += ["-l", str(LONGEST), "-p", str(PATIENCE), "-g", "-o", f"{directory}/found", "-v", "1"]
        began, held_until, most, held = time.monotonic(), 0.0, 0, 0
        with open(f"{directory}/output", "w+") as output, subprocess.Popen(command, stdout=output) as process:
            while process.poll() is None:
                held = server.descriptors() - without
                most = max(most, min(held, CLIENTS))
                if held > 0:
                    held_until = time.monotonic() - began
                time.sleep(0.1)
            output.seek(0)
            is_over = held <= 0 or "No open connections left" in output.read()
        _, *rows = Path(directory, "found.csv").read_text().splitlines()
    # The last column is 0 in seconds in which slowhttptest got no answer.
    return Attack(most, held_until if is_over else None, all(not row.endswith(",0") for row in rows))


def passes(name: str, program: str, port: int, server: Processes) -> bool:
    """Run one attack, and print the verdict."""
    before, over, other = server.memory(), threading.Event(), OtherClient(port)
    asking = threading.Thread(target=other.ask_until, args=(over,))
    asking.start()
    with server.most_memory() as found:
        seen = attack(program, ATTACKS[name], port, server)
    over.set()
    asking.join()
    growth = found[-1] - before
    wrong = [f"{len(other.failures)} answers failed, the first: {other.failures[0]}"] if other.failures else []
    if other.longest > PATIENCE:
        wrong.append("the other client had to wait")
    if not seen.is_available:
        wrong.append("slowhttptest did not get all of its own answers")
    if seen.most < CLIENTS / 4:
        wrong.append("the attack did not take place")
    if seen.cut_off_after is None:
        wrong.append("slow clients were not cut off")
    if growth > GROWTH:
        wrong.append(f"at most {GROWTH // MIB} MiB more are allowed")
    print(
        f"{'FAILED' if wrong else 'ok'}: {name}: up to {seen.most} of {CLIENTS} slow clients at a time,"
        f" the last cut off after {seen.cut_off_after or math.nan:.1f} s;"
        f" {other.answers} answers to another client, the slowest in {other.longest * 1000:.0f} ms;"
        f" memory {before / MIB:.1f} MiB + {growth / MIB:.1f} MiB{''.join(f'; {each}' for each in wrong)}"
    )
    return not wrong


def found_program() -> str | None:
    """Return the path of slowhttptest; as root on Debian, install it if necessary."""
    if not shutil.which("slowhttptest") and os.geteuid() == 0 and shutil.which("apt-get"):
        for step in (["update"], ["install", "--yes", "slowhttptest"]):
            command = ["apt-get", "--quiet", *step]
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    return shutil.which("slowhttptest")


def main() -> int:
    """Run the attacks, one after the other."""
    program = found_program()
    if not program:
        print("NOT JUDGED: slow clients need slowhttptest (Debian: apt-get install slowhttptest)", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    judged = []
    for name in ATTACKS:
        with watched_server(**SETTINGS) as (port, server):
            judged.append(passes(name, program, port, server))
    return 0 if all(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
