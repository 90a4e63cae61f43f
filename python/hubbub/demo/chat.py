"""A chat with rooms, for any number of workers: what `hubbub demo` runs, and what a chat of your own may begin with.

A room is a topic: who is in it is subscribed, and what is said in it is published, whichever worker a connection
belongs to. A worker knows only the people whose connections are its own. Messages are JSON objects: the `case`s show
those that the page sends, and `tell` and `as_json` make those that it gets.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import NamedTuple

from hubbub import Frame, Request, Response, Server, StaticFiles, client_path

# Lengths in characters, times in seconds.
NAME_LENGTH, ROOM_LENGTH, TEXT_LENGTH = 32, 40, 2000
PAUSE, COUNT_DELAY = 0.05, 0.2
# The page loads nothing but our own files, and talks to nobody but us, whatever gets into it.
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = Path(__file__).with_name("page")
page_files, client_files = StaticFiles(PAGE), StaticFiles(client_path().parent)
server = Server("127.0.0.1", 9501, max_message_size=16 * 1024)
people: dict[int, "Person"] = {}
counted_soon: set[str] = set()


class Person(NamedTuple):
    name: str
    room: str


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://{server.settings.host}:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@server.on("request")
def on_request(server: Server, request: Request) -> Response:
    if request.path == "/":
        return Response((PAGE / "index.html").read_text("utf-8"), headers={"Content-Security-Policy": POLICY})
    return (client_files if request.path == "/hubbub.js" else page_files)(server, request)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    server.push(request.fd, as_json("limits", name=NAME_LENGTH, room=ROOM_LENGTH, text=TEXT_LENGTH))


@server.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    fd, person = frame.fd, people.get(frame.fd)
    match read(frame.data):
        case {"type": "join", "room": str(room), "name": str(name), "back": bool(back)}:
            leave(server, fd)
            join(fd, Person(name.strip()[:NAME_LENGTH] or "Guest", f"room {room[:ROOM_LENGTH]}"), back)
        case {"type": "say", "id": str(message_id), "text": str(text)} if person:
            say(fd, person, message_id, text.strip())
        case {"type": "typing"} if person:
            tell(person.room, "typing", exclude=(fd,), who=fd, name=person.name)
        case {"type": "alive"}:
            server.push(fd, as_json("alive"))
        case _:
            server.disconnect(fd, 4400, "the chat's page does not send this")
    # The next message of this connection is handled after this one: who floods is slowed down, and nobody else.
    await asyncio.sleep(PAUSE)


def join(fd: int, person: Person, back: bool) -> None:
    people[fd] = person
    server.subscribe(fd, person.room)
    tell(person.room, "came", exclude=(fd,), name=person.name, back=back, time=time.time())
    server.after(0, count, person.room)


@server.on("close")
def leave(server: Server, fd: int) -> None:
    if person := people.pop(fd, None):
        server.unsubscribe(fd, person.room)
        tell(person.room, "went", who=fd, name=person.name, time=time.time())
        server.after(0, count, person.room)


def say(fd: int, person: Person, message_id: str, text: str) -> None:
    if 0 < len(text) <= TEXT_LENGTH:
        # Who says it is told too: everybody puts it where its time belongs, so all see the same order.
        tell(person.room, "said", id=message_id, who=fd, name=person.name, text=text, time=time.time())
    else:
        server.push(fd, as_json("refused", id=message_id, why=f"{len(text):,} of {TEXT_LENGTH:,} characters"))


async def count(room: str) -> None:
    # Many changes are counted once; and so late that, when two workers count, the last one to tell is right.
    if room not in counted_soon:
        counted_soon.add(room)
        await asyncio.sleep(COUNT_DELAY)
        counted_soon.discard(room)
        tell(room, "people", count=await server.subscribers(room))


def tell(room: str, kind: str, exclude: tuple[int, ...] = (), **what: object) -> None:
    server.publish(room, as_json(kind, **what), exclude=exclude)


def as_json(kind: str, **what: object) -> str:
    return json.dumps({"type": kind, **what}, ensure_ascii=False)


def read(data: str | bytes) -> object:
    try:
        content = json.loads(data)
        json.dumps(content, ensure_ascii=False).encode()  # Half a surrogate pair, as JSON can spell, cannot be sent on.
        return content
    except (ValueError, RecursionError):
        return None


server.start()
