"""Live charts of this machine and this server: one worker measures for all pages.

Run it, and open the address that it prints.
"""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from hubbub import Page, Request, Server

TOPIC = "figures"
INTERVAL, REMEMBERED = 1.0, 120  # seconds, figures

# A page that reads too slowly misses figures, and then goes on with newer ones.
server = Server("127.0.0.1", 9501, slow_consumer="drop", send_queue_size=64 * 1024)
server.on("request", Page(Path(__file__).with_name("page.html")))
figures: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)  # only in worker 0, which measures


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    server.subscribe(request.fd, TOPIC)
    server.send_message(str(request.fd), 0)


@server.on("pipe_message")
def on_pipe_message(server: Server, worker_id: int | None, data: str) -> None:
    # Some worker, perhaps this one, has a new page.
    server.push(int(data), {"history": list(figures)})


@server.on("worker_start")
def on_worker_start(server: Server, worker_id: int) -> None:
    if worker_id == 0:
        server.tick(INTERVAL, measure)


def measure() -> None:
    stats = server.stats()
    counted = {name: stats[name] for name in ("connections", "messages_out", "bytes_out", "messages_dropped")}
    figures.append({"time": time.time(), "load": os.getloadavg()[0], "cores": os.cpu_count(), **counted})
    server.publish(TOPIC, figures[-1])


server.start()
