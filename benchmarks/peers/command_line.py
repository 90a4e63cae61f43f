"""The command line of these servers: the workload and the port. Each prints its port once it listens."""

import argparse
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Sequence


def command_line(*workloads: str, parents: Sequence[argparse.ArgumentParser] = ()) -> argparse.Namespace:
    """Read `workload` (of `workloads`, by default the first), `port` (0: any free one), and the options of `parents`.

    Also raises the soft limit of open files to the hard one, as 15,000 connections need.
    """
    parser = argparse.ArgumentParser(parents=parents)
    parser.add_argument("--workload", choices=workloads, default=workloads[0])
    parser.add_argument("--port", type=int, default=0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return parser.parse_args()


def tell_when_listening(port: int) -> None:
    """Print the port once it accepts connections, for servers that do not do so themselves."""

    def tell() -> None:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                print(port, flush=True)
                return
            time.sleep(0.02)

    threading.Thread(target=tell, daemon=True).start()
