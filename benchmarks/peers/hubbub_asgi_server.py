"""Hubbub with the same ASGI applications as its peers, and its defaults but for lifespan, which they lack."""

from asgi_applications import WORKLOADS, application
from command_line import command_line

from hubbub import Server

if __name__ == "__main__":
    arguments = command_line(*WORKLOADS)
    app = application(arguments.workload)
    server = Server("127.0.0.1", arguments.port, workers=1, app=app, lifespan="off")
    server.on("start", lambda server: print(server.port, flush=True))
    server.start()
