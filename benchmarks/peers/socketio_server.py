"""python-socketio's AsyncServer with its AsyncRedisManager, as one of several servers on a Redis.

It runs on uvicorn, which is set up as in `uvicorn_server.py`. Pings are rare, and there is no log. hiredis parses the
answers of Redis. A client that names a topic in its query enters that room; the data of each `publish` event is emitted
to the room `room`.
"""

import argparse
from typing import Any
from urllib.parse import parse_qs

import socketio  # type: ignore[import-untyped]
import uvloop
from command_line import command_line
from uvicorn_server import serve


def application(broker: str) -> Any:
    """Make the ASGI application."""
    manager = socketio.AsyncRedisManager(broker)
    server = socketio.AsyncServer(async_mode="asgi", client_manager=manager, ping_interval=1000)

    async def enter(sid: str, environ: dict[str, Any]) -> None:
        for topic in parse_qs(environ["QUERY_STRING"]).get("topic", ()):
            await server.enter_room(sid, topic)

    async def publish(sid: str, text: str) -> None:
        await server.emit("message", text, room="room")

    server.on("connect", enter)
    server.on("publish", publish)
    return socketio.ASGIApp(server)


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--broker", required=True, help="the address of Redis")
    arguments = command_line("fanout", parents=[options])
    uvloop.run(serve(application(arguments.broker), arguments.port, False))
