"""Topics with presence: who is there, and the events `join` and `leave`."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import KINDS, Note, add
from running import Running, Serve
from topic_clients import connect_all, keeping

from hubbub import Frame, Request, Server

TOPIC = "room"


def watching(kind: str = "sync") -> Any:
    """Return an application that notes the ids of its connections, and who joins and leaves, and in which worker."""

    def application(server: Server, note: Note) -> None:
        server.topic_options(f"{TOPIC}*", presence=True)

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(request.fd)

        def noting(event: str) -> Any:
            def handler(server: Server, topic: str, fd: int, info: Any) -> None:
                note(event, topic, fd, info, server.worker_id)

            return handler

        for event in ("join", "leave"):
            add(server, event, kind, noting(event))

    return application


async def worker_of(running: Running, fd: int) -> int:
    return (await running.owner(fd)).worker_id


async def test_presence_tells_who_is_there(serve: Serve) -> None:
    running = await serve(keeping(f"{TOPIC}*", presence=True))
    assert await running.server.presence(TOPIC) == {}
    infos: list[Any] = [{"name": "Ada"}, None, "text", ["é", 1.5, None], 0, False]
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, len(infos))
        for client, info in zip(clients, infos, strict=True):
            assert await running.server.subscribe(client.fd, TOPIC, info=info) is True
        expected = {client.fd: info for client, info in zip(clients, infos, strict=True)}
        # The answer comes after all of these calls.
        assert await running.server.presence(TOPIC) == expected
        for worker in running.workers:
            present = await worker.presence(TOPIC)
            assert present == expected
            assert list(present) == sorted(expected)
            assert await worker.presence(TOPIC, limit=2) == {fd: expected[fd] for fd in sorted(expected)[:2]}
            assert await worker.presence(f"{TOPIC} too") == {}


async def test_ones_own_earlier_calls_count(serve: Serve) -> None:
    running = await serve(keeping(f"{TOPIC}*", presence=True, history=10))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 4)
        fds = [client.fd for client in clients]

        async def look(server: Server, note: Note) -> list[dict[int, Any]]:
            seen = []
            for fd in fds:
                server.subscribe(fd, TOPIC, info=fd)
                seen.append(await server.presence(TOPIC))
            for fd in fds:
                server.unsubscribe(fd, TOPIC)
                seen.append(await server.presence(TOPIC))
            for fd in fds:
                await server.join(fd, TOPIC, info={"joined": fd})
                seen.append(await server.presence(TOPIC))
            return seen

        seen = await running.server.run(look)
        assert seen[:4] == [{fd: fd for fd in sorted(fds[: count + 1])} for count in range(4)]
        assert seen[4:8] == [{fd: fd for fd in sorted(fds[count + 1 :])} for count in range(4)]
        assert seen[8:] == [{fd: {"joined": fd} for fd in sorted(fds[: count + 1])} for count in range(4)]


async def test_a_connection_that_has_ended_is_not_there(serve: Serve) -> None:
    running = await serve(watching())
    async with AsyncExitStack() as stack:
        stays, *others = await connect_all(stack, running, 4)
        for client in (stays, *others):
            await running.server.subscribe(client.fd, TOPIC, info="here")
        for _ in range(4):
            assert (await running.noted())[0] == "join"
        await others[0].client.close()
        others[1].client.transport.abort()
        await running.server.disconnect(others[2].fd)
        left = {(await running.noted())[:3] for _ in others}
        assert left == {("leave", TOPIC, client.fd) for client in others}
        assert await running.server.presence(TOPIC) == {stays.fd: "here"}


async def test_a_new_info_replaces_the_old_one_and_is_no_event(serve: Serve) -> None:
    running = await serve(watching())
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        for info in ("old", None, "new"):
            await running.server.subscribe(client.fd, TOPIC, info=info)
        assert await running.server.presence(TOPIC) == {client.fd: "new"}
        worker = await worker_of(running, client.fd)
        assert await running.noted() == ("join", TOPIC, client.fd, "old", worker)
        await running.server.unsubscribe(client.fd, TOPIC)
        # The handler of `leave` is told what was known last.
        assert await running.noted() == ("leave", TOPIC, client.fd, "new", worker)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_member_joins_and_leaves_once_in_its_own_worker(serve: Serve, kind: str) -> None:
    running = await serve(watching(kind))
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 6)
        expected = []
        for number, client in enumerate(clients):
            for _ in range(2):
                await running.server.subscribe(client.fd, TOPIC, info={"number": number})
            worker = await worker_of(running, client.fd)
            expected.append((TOPIC, client.fd, {"number": number}, worker))
            assert await running.noted() == ("join", *expected[-1])
        for client, member in zip(clients, expected, strict=True):
            for _ in range(2):
                await running.server.unsubscribe(client.fd, TOPIC)
            assert await running.noted() == ("leave", *member)
        for client in clients:
            await running.server.subscribe(client.fd, f"{TOPIC} too")
            assert (await running.noted())[:4] == ("join", f"{TOPIC} too", client.fd, None)
    await running.stop()
    left = [values for values in running.notes.all if values[0] == "leave"]
    assert len(left) == len({values[1:3] for values in left}) == 2 * len(clients)


async def test_topics_without_presence_have_no_events(serve: Serve) -> None:
    running = await serve(watching())
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.subscribe(client.fd, "other", info={"name": "Ada"})
        assert await running.server.subscribers("other") == 1
        assert await running.server.presence("other") == {}
        await running.server.unsubscribe(client.fd, "other")
        await running.server.subscribe(client.fd, TOPIC)
        assert (await running.noted())[:2] == ("join", TOPIC)


async def test_whoever_joins_can_be_announced_to_the_others(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.topic_options(TOPIC, presence=True)

        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            server.subscribe(frame.fd, TOPIC, info=frame.data)

        @server.on("join")
        async def on_join(server: Server, topic: str, fd: int, info: Any) -> None:
            people = await server.presence(topic)
            server.publish(topic, f"{info} joined, now {len(people)}")

        @server.on("leave")
        def on_leave(server: Server, topic: str, fd: int, info: Any) -> None:
            server.publish(topic, f"{info} left")

    running = await serve(application)
    async with running.connect() as ada:
        await ada.send("Ada")
        assert await ada.recv() == "Ada joined, now 1"
        async with running.connect() as ben:
            await ben.send("Ben")
            assert await ben.recv() == await ada.recv() == "Ben joined, now 2"
        assert await ada.recv() == "Ben left"


async def test_leave_waits_for_the_handler_of_join(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.topic_options(TOPIC, presence=True)

        @server.on("open")
        def on_open(server: Server, request: Request) -> None:
            note(request.fd)

        @server.on("join")
        async def on_join(server: Server, topic: str, fd: int, info: Any) -> None:
            note("join begins", info)
            if info == "slow":
                await note.goes_on.wait()
            note("join ends", info)

        @server.on("leave")
        def on_leave(server: Server, topic: str, fd: int, info: Any) -> None:
            note("leave", info)

    running = await serve(application)
    async with AsyncExitStack() as stack:
        slow, quick = await connect_all(stack, running, 2)
        await running.server.subscribe(slow.fd, TOPIC, info="slow")
        assert await running.noted() == ("join begins", "slow")
        await running.server.unsubscribe(slow.fd, TOPIC)
        # Other members do not wait.
        await running.server.subscribe(quick.fd, TOPIC, info="quick")
        await running.server.unsubscribe(quick.fd, TOPIC)
        for expected in (("join begins", "quick"), ("join ends", "quick"), ("leave", "quick")):
            assert await running.noted() == expected
        await running.go_on()
        assert await running.noted() == ("join ends", "slow")
        assert await running.noted() == ("leave", "slow")


async def test_a_handler_that_fails_is_logged_and_the_others_run(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.topic_options(TOPIC, presence=True)
        server.on("open", lambda server, request: note(request.fd))

        @server.on("join")
        def on_join(server: Server, topic: str, fd: int, info: Any) -> None:
            raise ValueError("cannot join")

        @server.on("leave")
        async def on_leave(server: Server, topic: str, fd: int, info: Any) -> None:
            note("leave", info)
            raise ValueError("cannot leave")

    running = await serve(application)
    async with AsyncExitStack() as stack:
        (client,) = await connect_all(stack, running, 1)
        await running.server.subscribe(client.fd, TOPIC, info="Ada")
        await running.server.unsubscribe(client.fd, TOPIC)
        assert await running.noted() == ("leave", "Ada")
        await running.log.tells("the join handler failed")
        await running.log.tells("cannot join")
        await running.log.tells("the leave handler failed")
        # The connection goes on.
        await running.server.push(client.fd, "hello")
        assert await client.gets("hello")


async def test_a_stop_waits_for_the_handlers_of_all_who_leave(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        server.topic_options(TOPIC, presence=True)
        server.on("open", lambda server, request: note(request.fd))
        server.on("close", lambda server, fd: note("close", fd))

        @server.on("leave")
        async def on_leave(server: Server, topic: str, fd: int, info: Any) -> None:
            await asyncio.sleep(0.05)
            note("leave", fd)

    running = await serve(application)
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, running, 6)
        fds = {client.fd for client in clients}
        for fd in fds:
            await running.server.subscribe(fd, TOPIC)
        assert await running.server.subscribers(TOPIC) == 6
        await running.stop()
    for event in ("close", "leave"):
        told = [values[1] for values in running.notes.all if values[0] == event]
        assert (len(told), set(told)) == (6, fds)


@pytest.mark.parametrize(
    ("call", "arguments", "error", "says"),
    [
        ("presence", {"topic": ""}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 0"),
        ("presence", {"topic": 5}, TypeError, "topic must be a str, not int"),
        ("presence", {"topic": TOPIC, "limit": 0}, ValueError, "limit must be 1 or above, not 0"),
        ("presence", {"topic": TOPIC, "limit": True}, TypeError, "limit must be an int, not bool"),
        ("subscribe", {"fd": 1, "topic": TOPIC, "info": {1, 2}}, TypeError, "info must be encodable as JSON"),
        ("subscribe", {"fd": 1, "topic": TOPIC, "info": float("nan")}, TypeError, "info must be encodable as JSON"),
        ("subscribe", {"fd": 1, "topic": TOPIC, "info": "\ud800"}, TypeError, "info must be encodable as JSON"),
        ("subscribe", {"fd": 1, "topic": TOPIC, "info": "x" * 1023}, ValueError, "info must have at most 1,024 bytes"),
        ("subscribe", {"fd": 1, "topic": "other", "info": "x" * 1023}, ValueError, "at most 1,024 bytes"),
    ],
)
async def test_mistakes_are_told(
    serve_here: Serve, call: str, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    running = await serve_here(keeping(f"{TOPIC}*", presence=True))

    async def make(server: Server, note: Note) -> None:
        result = getattr(server, call)(**arguments)
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(error, match=says):
        await running.server.run(make)
