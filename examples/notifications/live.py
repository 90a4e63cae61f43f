"""The WebSockets of the notifications: each page subscribes to its user's topic, to which `app.py` publishes.

Run it beside `app.py`.
"""

import asyncio

import sessions
import store

from hubbub import Refuse, Request, Server

# The pages come from FastAPI, which has another port, so their origin has to be named. If a proxy serves both under one
# name, leave `origins` out.
server = Server("127.0.0.1", 9501, origins=["http://127.0.0.1:8000", "http://localhost:8000"], max_message_size=1024)


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Pushing from http://127.0.0.1:{server.port}/ to the pages of app.py. Ctrl-C stops the server.", flush=True)


@server.on("handshake")
def on_handshake(server: Server, request: Request) -> Refuse | None:
    request.state.user = sessions.user_of(request.cookies.get("session", ""))
    return None if request.state.user else Refuse(4401, "log in first")


@server.on("open")
async def on_open(server: Server, request: Request) -> None:
    # Subscribe first: then what happens meanwhile arrives twice at worst. The page knows notifications by their ids.
    server.subscribe(request.fd, f"user {request.state.user}")
    server.push(request.fd, {"unread": await asyncio.to_thread(store.unread, request.state.user)})


server.start()
