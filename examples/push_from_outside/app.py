"""A page that shows what other programs push to it; `push.py` is one of them.

Run it, open the address that it prints, and then run `python push.py "tea is ready"`.
"""

from pathlib import Path

from hubbub import Page, Request, Server

server = Server("127.0.0.1", 9501)
server.on("request", Page(Path(__file__).with_name("page.html")))


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    server.subscribe(request.fd, "news")
    server.push(request.fd, f"You are connection {request.fd}.")


server.start()
