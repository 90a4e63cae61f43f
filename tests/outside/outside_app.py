"""What `outside_server.py` runs: tells each connection its id, subscribes it to what it asks for, and echoes."""

from hubbub import Frame, Request, Server

server = Server()


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


server.start()
