"""A program in which a type checker must find nothing."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hubbub import (
    Accept,
    Endpoint,
    Frame,
    History,
    Joined,
    Message,
    Page,
    Position,
    Publisher,
    Refuse,
    Request,
    Response,
    Server,
    StaticFiles,
    Stats,
    WorkerStats,
    current_server,
    fd_of,
)

server = Server(
    "127.0.0.1",
    0,
    workers=1,
    max_message_size=1000,
    origins=["https://example.com"],
    ping_interval=None,
    slow_consumer="drop",
)


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    current_server().push(fd_of(scope), "hello")


with_app = Server(app=app, root_path="/api", lifespan="on", max_body_size=None, max_requests=1000)


@server.on("open")
def on_open(server: Server, request: Request) -> None:
    server.push(request.fd, request.path)


@server.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    found: dict[str, int] = await server.topics(prefix="room:", limit=10)
    fds: list[int] = await server.members("news")
    everywhere: list[int] = await server.cluster.connections()
    silent: tuple[int, ...] = (await server.cluster.connections()).silent
    counts: dict[str, int] = await server.cluster.topics(prefix="room:")
    count: int = await server.cluster.subscribers("news")
    total: int = (await server.cluster.stats())["connections"]
    names: list[str] = [host.name for host in server.hosts()]
    server.push(frame.fd, f"{found} {fds} {everywhere} {silent} {counts} {count} {total} {names}")


@server.on("close")
def on_close(server: Server, fd: int, code: int, reason: str) -> None: ...


server.topic_options("room:*", history=100, seconds=3600, presence=True, envelope=True)
server.topic_options("price:*", slow_consumer="latest", ttl=5)


@server.on("join")
async def on_join(server: Server, topic: str, fd: int, info: dict[str, str]) -> None:
    people: dict[int, Any] = await server.presence(topic, limit=10)
    server.publish(topic, {"came": info["name"], "people": list(people)}, exclude=[fd], key="people")


@server.on("leave", threaded=True)
def on_leave(server: Server, topic: str) -> None: ...


async def enter(fd: int, since: Any) -> None:
    server.subscribe(fd, "room:1", info={"name": "Ada"})
    joined: Joined = await server.join(fd, "room:1", last=10, since=since, info=["Ada"])
    position: Position = joined.position
    epoch, offset = position
    server.push(fd, {"recovered": joined.recovered, "count": joined.count, "epoch": epoch.upper(), "next": offset + 1})
    found: History = await server.history("room:1", limit=10, since=position, newest_first=True)
    first: Message = found.messages[0]
    print(first.offset + 1, first.data, first.time + 0.5, first.json(), found.position.offset)
    await server.history("room:1", since=["abc", 1])
    await server.forget("room:1")


@server.on("drain")
async def on_drain(server: Server, fd: int) -> None: ...


@server.on("handshake")
def on_handshake(server: Server, request: Request) -> Accept | Refuse | Response | bool | None:
    return None


@server.on("request", threaded=True)
def on_request(server: Server) -> str:
    return ""


@server.on("pipe_message")
def on_pipe_message(server: Server, worker_id: int | None, data: str) -> None: ...


@server.on("worker_start")
def on_worker_start() -> None: ...


@server.on("start")
def on_start(*arguments: Any) -> None: ...


def on_shutdown(server: Server) -> None:
    stats: Stats = server.stats()
    first: WorkerStats = stats["workers"][0]
    server.push(1, stats)
    print(stats["connections"] + first["worker_id"], first["started_at"])


chat = Endpoint("/chat/{room}", origins="*", subprotocols=["chat"], max_message_size=4096)


@chat.on("message")
async def on_chat_message(server: Server, frame: Frame) -> None:
    await server.send(frame.fd, frame.data)


@chat.on("handshake")
def on_chat_handshake(server: Server, request: Request) -> bool:
    return "room" in request.path_params


@chat.on("close")
def on_chat_close(server: Server, fd: int) -> None: ...


same_close: None = chat.on("drain", on_chat_close)(server, 1)
chat.on("request", Page(__file__))
server.on("request", StaticFiles("."))
server.include(chat)

# What is registered stays what it was.
same: None = server.on("shutdown", on_shutdown)(server)
on_close(server, 1, 1000, "")


def from_outside() -> None:
    with Publisher() as hub:
        sizes: dict[str, int] = hub.topics()
        ids: list[int] = hub.members("news", limit=5)
        hub.publish("price:tea", {"value": 3.2}, key="tea")
        messages: tuple[Message, ...] = hub.history("room:1", limit=5, since=None, newest_first=True).messages
        print(hub.presence("room:1", limit=5).keys(), messages)
        hub.send_message(f"{sizes} {ids}", worker_id=0)
        print(hub.stats()["workers"][0]["messages_in"])
