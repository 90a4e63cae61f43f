"""What `outside_server.py` runs: tells each connection its id, subscribes it to what it asks for, and echoes.

By HTTP it serves the Python files of this directory, and tells what else it is asked for.
"""

import hashlib
from pathlib import Path

from hubbub import Frame, Request, Response, Server, StaticFiles

server = Server()
files = StaticFiles(Path(__file__).parent)


@server.on("start")
def on_start(server: Server) -> None:
    """Tell the test where the server is, once all workers accept."""
    print(server.port, flush=True)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    """Subscribe before the id is told: whoever knows it can count on that."""
    for topic in request.query:
        server.subscribe(request.fd, topic)
    server.push(request.fd, str(request.fd))


@server.on("message")
def on_message(server: Server, frame: Frame) -> None:
    """Echo."""
    server.push(frame.fd, frame.data)


@server.on("request")
def on_request(server: Server, request: Request) -> Response:
    """Answer."""
    if request.path.endswith(".py"):
        return files(server, request)
    return Response.json([request.method, len(request.body), hashlib.sha256(request.body).hexdigest()])


server.start()
