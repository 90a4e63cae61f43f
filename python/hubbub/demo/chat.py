"""A chat with rooms, for any number of workers: `hubbub demo` runs it, and you can start your own chat from it.

A room has two topics. What people say goes to `room:…`, which keeps it for those who come later or come back, and knows
who is there. What matters only now (who comes, goes and types) goes to `live:…`, which keeps nothing. Messages are JSON
objects: the `case`s show what the page sends.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from hubbub import Endpoint, Frame, Request, Server, StaticFiles, client_path

# Lengths in characters, times in seconds.
NAME_LENGTH, ROOM_LENGTH, TEXT_LENGTH = 32, 40, 2000
PAUSE, REMEMBERED, A_DAY = 0.05, 100, 24 * 60 * 60
# The page may load only our own files and connect only to us, even if somebody injects content into it.
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = Path(__file__).with_name("page")
server = Server("127.0.0.1", 9501, max_message_size=16 * 1024)
server.topic_options("room:*", history=REMEMBERED, seconds=A_DAY, presence=True, envelope=True)
server.on("request", StaticFiles(PAGE, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}))
client = Endpoint("/hubbub.js")
client.on("request", StaticFiles(client_path().parent))
server.include(client)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    request.state.room = None
    server.push(request.fd, {"type": "limits", "name": NAME_LENGTH, "room": ROOM_LENGTH, "text": TEXT_LENGTH})


@server.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    fd, state = frame.fd, frame.state
    match frame.json():
        case {"type": "join", "room": str(room), "name": str(name), "back": bool(back), "since": since}:
            for topic in (f"room:{state.room}", f"live:{state.room}"):
                server.unsubscribe(fd, topic)
            state.room, state.name = room[:ROOM_LENGTH], name.strip()[:NAME_LENGTH] or "Guest"
            await join(fd, state.room, {"name": state.name, "back": back}, since)
        case {"type": kind} if kind in ("say", "typing") and state.room is None:
            server.disconnect(fd, 4400, "join a room first")
        case {"type": "say", "id": str(key), "text": str(text)} if 0 < len(text) <= TEXT_LENGTH:
            # The author gets it too: every page sorts messages by this time, so that all show the same order.
            said = message("said", state.room, id=key, who=fd, name=state.name, text=text, time=time.time())
            server.publish(f"room:{state.room}", said)
        case {"type": "say", "id": str(key)}:
            why = f"a message must have 1 to {TEXT_LENGTH:,} characters"
            server.push(fd, {"type": "refused", "id": key, "why": why})
        case {"type": "typing"}:
            server.publish(f"live:{state.room}", message("typing", state.room, who=fd, name=state.name), exclude=[fd])
        case {"type": "alive"}:
            server.push(fd, {"type": "alive"})
        case _:
            server.disconnect(fd, 4400, "invalid message")
    # This connection's next message is handled after this one, so this slows down a flooding client and no other.
    await asyncio.sleep(PAUSE)


async def join(fd: int, room: str, info: dict[str, Any], since: object) -> None:
    # Who comes or goes after the list of people was made is told live, so that comes first.
    server.subscribe(fd, f"live:{room}")
    joined = await server.join(fd, f"room:{room}", last=REMEMBERED, since=since, info=info)
    people = await server.presence(f"room:{room}")
    told = message("joined", room, who=fd, people=people, position=joined.position, recovered=joined.recovered)
    server.push(fd, told)


@server.on("join")
def on_join(server: Server, topic: str, fd: int, info: dict[str, Any]) -> None:
    room = topic.removeprefix("room:")
    server.publish(f"live:{room}", message("came", room, who=fd, time=time.time(), **info), exclude=[fd])


@server.on("leave")
def on_leave(server: Server, topic: str, fd: int, info: dict[str, Any]) -> None:
    room = topic.removeprefix("room:")
    server.publish(f"live:{room}", message("went", room, who=fd, time=time.time(), **info))


def message(kind: str, room: str, **what: object) -> dict[str, Any]:
    return {"type": kind, "room": room, **what}


if __name__ == "__main__":
    server.start()
