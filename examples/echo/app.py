"""Answers every message with "this is server", and serves the page to try it with.

Run it, and open the address that it prints.
"""

from pathlib import Path

from hubbub import Frame, Page, Request, Server

# In the Origin header a browser tells where a page came from. For a page opened as a file that is "null",
# which the default, origins="same", refuses; "*" accepts every page. A real site should keep the default.
server = Server("127.0.0.1", 9501, origins="*")
server.on("request", Page(Path(__file__).with_name("websocket_client.html"), client=False))


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    print(f"server: handshake success with fd{request.fd}")


@server.on("message")
def on_message(server: Server, frame: Frame) -> None:
    print(f"receive from {frame.fd}:{frame.data},opcode:{frame.opcode},fin:{frame.finish}")
    server.push(frame.fd, "this is server")


@server.on("close")
def on_close(server: Server, fd: int) -> None:
    print(f"client {fd} closed")


server.start()
