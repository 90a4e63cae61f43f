"""A chat with accounts, rooms and history, for any number of workers, which share a database file.

Run it, and open the address that it prints.
"""

import asyncio
from pathlib import Path

import accounts
import messages
from login import login, logout

from hubbub import Endpoint, Frame, Page, Refuse, Request, Server

MAX_ROOM, MAX_KEY, MAX_TEXT = 40, 40, 2000  # characters
PAUSE = 0.1  # seconds from a message to the next one of the same connection

server = Server("127.0.0.1", 9501)
server.on("request", Page(Path(__file__).with_name("login.html")))
chat = Endpoint("/chat/{room}", max_message_size=16 * 1024)
chat.on("request", Page(Path(__file__).with_name("chat.html")))
for endpoint in (login, logout, chat):
    server.include(endpoint)


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@chat.on("handshake")
def on_handshake(server: Server, request: Request) -> Refuse | None:
    request.state.user = accounts.user_of(request.cookies.get("session", ""))
    request.state.room = room = request.path_params["room"]
    if request.state.user is None:
        return Refuse(4401, "log in first")
    return Refuse(4404, "a room’s name is too long") if len(room) > MAX_ROOM else None


@chat.on("open")
async def on_open(server: Server, request: Request) -> None:
    # Subscribe first: then what is said meanwhile arrives twice at worst. The page knows messages by their ids.
    server.subscribe(request.fd, f"room {request.state.room}")
    history = await asyncio.to_thread(messages.recent, request.state.room)
    server.push(request.fd, {"you": request.state.user, "history": history})


@chat.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    match frame.json():
        case {"key": str(key), "text": str(text)} if 0 < len(key) <= MAX_KEY and 0 < len(text) <= MAX_TEXT:
            said = await asyncio.to_thread(messages.add, frame.state.room, frame.state.user, key, text)
            server.publish(f"room {frame.state.room}", said)
            await asyncio.sleep(PAUSE)
        case _:
            server.disconnect(frame.fd, 4400, "that is no message")


server.start()
