"""granian with an ASGI application: as with RSGI, one worker, uvloop, no log, and its defaults otherwise."""

import os

from asgi_applications import WORKLOADS, application
from command_line import command_line, tell_when_listening
from granian import Granian
from granian.constants import Interfaces, Loops
from granian_server import free_port

# Granian imports this module again in its worker.
app = application(os.environ.get("WORKLOAD", "hello"))

if __name__ == "__main__":
    arguments = command_line(*WORKLOADS)
    port = arguments.port or free_port()
    os.environ["WORKLOAD"] = arguments.workload
    tell_when_listening(port)
    Granian(
        "granian_asgi_server:app",
        "127.0.0.1",
        port,
        interface=Interfaces.ASGINL,
        loop=Loops.uvloop,
        backlog=4096,
        log_enabled=False,
    ).serve()
