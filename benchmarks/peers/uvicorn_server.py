"""uvicorn with a plain ASGI application, tuned as its documentation recommends.

uvloop and httptools, which it recommends; its `websockets-sansio` protocol, the fastest of its three and its
default if `websockets` is installed; no pings, no compression except where it is measured (it is on by default), no
access log, no lifespan.
"""

import socket
from typing import Any

import uvicorn
import uvloop
from asgi_applications import WORKLOADS, Application, Event, Receive, Send, application
from command_line import command_line


class TellingServer(uvicorn.Server):
    """Prints its port once it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


async def serve(application: Any, port: int, compress: bool) -> None:
    """Serve an ASGI application until SIGTERM, and print the port."""
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=compress,
        lifespan="off",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )
    await TellingServer(config).serve()


def fan_out() -> Application:
    """Make an application that sends every message to all connections to `/fanout`."""
    subscribers: set[Send] = set()

    async def publish(scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/fanout":
            subscribers.add(send)
        while (event := await receive())["type"] == "websocket.receive":
            for subscriber in subscribers:
                await subscriber({"type": "websocket.send", "text": event["text"]})
        subscribers.discard(send)

    return publish


if __name__ == "__main__":
    arguments = command_line(*WORKLOADS, "fanout", "fanout-deflate")
    app = application(arguments.workload) if arguments.workload in WORKLOADS else fan_out()
    uvloop.run(serve(app, arguments.port, arguments.workload == "fanout-deflate"))
