"""The application that `outside_server.py` runs: sends each client its id, subscribes it to the topics in its query,
with their values as its info, and echoes. Over HTTP it serves the Python files of this directory, and answers questions
about the server.
"""

import hashlib
from pathlib import Path

from hubbub import Frame, Request, Response, Server, StaticFiles

server = Server()
server.topic_options("kept:*", history=10_000, presence=True)
server.topic_options("wrapped:*", history=100, envelope=True)
files = StaticFiles(Path(__file__).parent)


@server.on("start")
def on_start(server: Server) -> None:
    """Report the server's address to the test, once all workers accept."""
    print(server.port, flush=True)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    """Subscribe before sending the id, so that a client that knows its id is subscribed."""
    for topic, value in request.query.items():
        server.subscribe(request.fd, topic, info=value)
    server.push(request.fd, str(request.fd))


@server.on("message")
def on_message(server: Server, frame: Frame) -> None:
    """Echo."""
    server.push(frame.fd, frame.data)


@server.on("pipe_message")
def on_pipe_message(server: Server, worker_id: int | None, data: str | bytes) -> None:
    """Publish what arrived, and in which worker."""
    server.publish("piped", f"{server.worker_id} {worker_id} {data!r}")


@server.on("request")
def on_request(server: Server, request: Request) -> Response:
    """Answer."""
    if request.path.endswith(".py"):
        return files(server, request)
    return Response.json([request.method, len(request.body), hashlib.sha256(request.body).hexdigest()])


server.start()
