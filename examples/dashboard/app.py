"""Live charts of this machine and this server: one worker measures for all pages.

Run it, and open the address that it prints.
"""

import os
import time
from pathlib import Path

from hubbub import Page, Request, Server

TOPIC = "figures"
INTERVAL, REMEMBERED = 1.0, 120  # seconds, figures

# A page that reads too slowly misses figures, and then goes on with the newest one.
server = Server("127.0.0.1", 9501, slow_consumer="drop", send_queue_size=64 * 1024)
server.topic_options(TOPIC, history=REMEMBERED, seconds=2 * REMEMBERED * INTERVAL, slow_consumer="latest")
server.on("request", Page(Path(__file__).with_name("page.html")))


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("open")
async def on_open(server: Server, request: Request) -> None:
    await server.join(request.fd, TOPIC, last=REMEMBERED)


@server.on("worker_start")
def on_worker_start(server: Server, worker_id: int) -> None:
    if worker_id == 0:
        server.tick(INTERVAL, measure)


def measure() -> None:
    stats = server.stats()
    counted = {name: stats[name] for name in ("connections", "messages_out", "bytes_out", "messages_dropped")}
    figure = {"time": time.time(), "load": os.getloadavg()[0], "cores": os.cpu_count(), **counted}
    server.publish(TOPIC, figure, key=TOPIC)


server.start()
