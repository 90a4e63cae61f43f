"""A live plot of the load of this machine: measured by one worker, published to the topic that the pages want.

Run it, and open the address that it prints.
"""

import os
import time
from pathlib import Path

from hubbub import Page, Request, Server

TOPIC = "load"
INTERVAL = 1.0  # seconds

server = Server("127.0.0.1", 9501)
server.on("request", Page(Path(__file__).with_name("page.html")))


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    server.subscribe(request.fd, TOPIC)


@server.on("worker_start")
def on_worker_start(server: Server, worker_id: int) -> None:
    # One worker measures for all.
    if worker_id == 0:
        server.tick(INTERVAL, measure)


async def measure() -> None:
    one, five, fifteen = os.getloadavg()
    watching = await server.subscribers(TOPIC)
    values = {"time": time.time(), "load": [one, five, fifteen], "cores": os.cpu_count(), "watching": watching}
    server.publish(TOPIC, values)


server.start()
