"""Starlette on uvicorn, which is set up as in `uvicorn_server.py`; no middleware.

FastAPI's WebSockets are Starlette's.
"""

import uvloop
from command_line import command_line
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn_server import serve

subscribers: set[WebSocket] = set()


async def echo(socket: WebSocket) -> None:
    """Send every message back."""
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


async def subscribe(socket: WebSocket) -> None:
    """Get every message that `publish` receives."""
    await socket.accept()
    subscribers.add(socket)
    try:
        await socket.receive_text()
    except WebSocketDisconnect:
        subscribers.discard(socket)


async def publish(socket: WebSocket) -> None:
    """Send every message to all subscribers."""
    await socket.accept()
    try:
        while True:
            text = await socket.receive_text()
            for subscriber in subscribers:
                await subscriber.send_text(text)
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    arguments = command_line("echo", "fanout", "fanout-deflate")
    root = echo if arguments.workload == "echo" else publish
    application = Starlette(routes=[WebSocketRoute("/", root), WebSocketRoute("/fanout", subscribe)])
    uvloop.run(serve(application, arguments.port, arguments.workload == "fanout-deflate"))
