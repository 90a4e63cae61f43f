"""A chat with rooms, for any number of workers: `hubbub demo` runs it, and you can start your own chat from it.

A room is a topic: its members are subscribed, and its messages are published. Each worker knows the people on its own
connections and their recent messages. All workers push these to somebody who joins, who may get a message twice; the
page detects that by the message's id. Messages are JSON objects: the `case`s show what the page sends.
"""

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from hubbub import Endpoint, Frame, Request, Server, StaticFiles, client_path

# Lengths in characters, times in seconds.
NAME_LENGTH, ROOM_LENGTH, TEXT_LENGTH = 32, 40, 2000
PAUSE, COUNT_DELAY, MAX_REMEMBERED = 0.05, 0.2, 50
# The page may load only our own files and connect only to us, even if somebody injects content into it.
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = Path(__file__).with_name("page")
server = Server("127.0.0.1", 9501, max_message_size=16 * 1024)
server.on("request", StaticFiles(PAGE, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}))
client = Endpoint("/hubbub.js")
client.on("request", StaticFiles(client_path().parent))
server.include(client)
recent: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_REMEMBERED)


class Person(NamedTuple):
    name: str
    room: str


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    request.state.person = None
    server.push(request.fd, message("limits", name=NAME_LENGTH, room=ROOM_LENGTH, text=TEXT_LENGTH))


@server.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    fd, person = frame.fd, frame.state.person
    match frame.json():
        case {"type": "join", "room": str(room), "name": str(name), "back": bool(back)}:
            leave(server, fd)
            join(fd, Person(name.strip()[:NAME_LENGTH] or "Guest", f"room {room[:ROOM_LENGTH]}"), back)
        case {"type": "say", "id": str(key), "text": str(text)} if person and 0 < len(text) <= TEXT_LENGTH:
            # The author gets it too: every page sorts messages by this time, so that all show the same order.
            said = message("said", id=key, who=fd, name=person.name, text=text, time=time.time())
            recent.append((person.room, said))
            server.publish(person.room, said)
        case {"type": "say", "id": str(key)} if person:
            server.push(fd, message("refused", id=key, why=f"a message must have 1 to {TEXT_LENGTH:,} characters"))
        case {"type": "typing"} if person:
            server.publish(person.room, message("typing", who=fd, name=person.name), exclude=[fd])
        case {"type": "alive"}:
            server.push(fd, message("alive"))
        case _:
            server.disconnect(fd, 4400, "invalid message")
    # This connection's next message is handled after this one, so this slows down a flooding client and no other.
    await asyncio.sleep(PAUSE)


def join(fd: int, person: Person, back: bool) -> None:
    server.state(fd).person = person
    server.subscribe(fd, person.room)
    server.publish(person.room, message("came", name=person.name, back=back, time=time.time()), exclude=[fd])
    server.after(COUNT_DELAY, count, person.room)
    for worker_id in range(server.settings.worker_count):
        server.send_message(f"{fd} {person.room}", worker_id)


@server.on("pipe_message")
def on_pipe_message(server: Server, worker_id: int | None, data: str) -> None:
    fd, room = data.split(" ", 1)
    for said_in, said in recent:
        if said_in == room:
            server.push(int(fd), said)


@server.on("close")
def leave(server: Server, fd: int) -> None:
    state = server.state(fd)
    if person := state.person:
        state.person = None
        server.unsubscribe(fd, person.room)
        server.publish(person.room, message("went", who=fd, name=person.name, time=time.time()))
        server.after(COUNT_DELAY, count, person.room)


async def count(room: str) -> None:  # Runs late enough that, if two workers count at about the same time, both agree.
    server.publish(room, message("people", count=await server.subscribers(room)))


def message(kind: str, **what: object) -> dict[str, Any]:
    return {"type": kind, **what}


if __name__ == "__main__":
    server.start()
