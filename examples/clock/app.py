"""Pushes the time to every open page, each second: the server speaks first, and no page has to ask.

Run it, and open the address that it prints.
"""

import time
from pathlib import Path

from hubbub import Page, Server

server = Server("127.0.0.1", 9501)
server.on("request", Page(Path(__file__).with_name("page.html")))


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("worker_start")
def on_worker_start(server: Server, worker_id: int) -> None:
    # A timer belongs to one worker, and one for all pages is enough: what it sends reaches those of all workers.
    if worker_id == 0:
        server.tick(1, tell_time)


def tell_time() -> None:
    server.broadcast(time.strftime("%H:%M:%S"))


server.start()
