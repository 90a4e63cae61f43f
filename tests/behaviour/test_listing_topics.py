"""`topics` and `members`: which topics the whole server has, and who is subscribed to them."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from application import Note
from running import Running, Serve

from hubbub import Server


def subscribes(server: Server, note: Note) -> None:
    """Subscribe each client to the topics in its query, and then note its id."""

    @server.on("open")
    def on_open(server: Server, request: Any) -> None:
        for topic in request.query:
            server.subscribe(request.fd, topic)
        note(request.fd)

    server.on("message", lambda server, frame: server.disconnect(frame.fd))
    server.on("close", lambda server, fd: note("closed", fd))


async def connect_all(stack: AsyncExitStack, running: Running, *paths: str) -> list[int]:
    """Connect a client for each path; return the ids."""
    fds = []
    for path in paths:
        await stack.enter_async_context(running.connect(path))
        fds.append(await running.opened())
    return fds


async def test_topics_of_all_workers_are_counted(serve: Serve) -> None:
    running = await serve(subscribes)
    assert await running.server.topics() == {}
    async with AsyncExitStack() as stack:
        await connect_all(stack, running, "/?news=1&room:1=1", "/?news=1&room:2=1", "/?news=1&é=1", "/")
        for worker in running.workers:
            found = await worker.topics()
            assert found == {"news": 3, "room:1": 1, "room:2": 1, "é": 1}
            assert list(found) == ["news", "room:1", "room:2", "é"]
            assert await worker.topics(prefix="room:") == {"room:1": 1, "room:2": 1}
            assert await worker.topics(prefix="room:1") == {"room:1": 1}
            assert await worker.topics(prefix="room:12") == {}
            assert await worker.topics(limit=2) == {"news": 3, "room:1": 1}
            assert await worker.topics(prefix="room:", limit=1) == {"room:1": 1}
            assert await worker.topics(limit=10**30) == found


async def test_members_of_all_workers_are_listed_in_order(serve: Serve) -> None:
    running = await serve(subscribes)
    assert await running.server.members("news") == []
    async with AsyncExitStack() as stack:
        fds = await connect_all(stack, running, *["/?news=1"] * 5, "/?sports=1")
        for worker in running.workers:
            assert await worker.members("news") == sorted(fds[:5])
            assert await worker.members("news", limit=2) == sorted(fds[:5])[:2]
            assert await worker.members("news", limit=10**30) == sorted(fds[:5])
            assert await worker.members("sports") == [fds[5]]
            assert await worker.members("nobody") == []


async def test_ones_own_earlier_calls_count(serve: Serve) -> None:
    running = await serve(subscribes)
    async with AsyncExitStack() as stack:
        fds = await connect_all(stack, running, "/", "/", "/")

        async def look(server: Server, note: Note) -> list[Any]:
            seen: list[Any] = []
            for fd in fds:
                server.subscribe(fd, "a")
            seen += [await server.topics(), await server.members("a")]
            server.unsubscribe(fds[0], "a")
            seen += [await server.topics(), await server.members("a")]
            return seen

        assert await running.server.run(look) == [{"a": 3}, sorted(fds), {"a": 2}, sorted(fds[1:])]


async def test_a_connection_that_has_ended_is_not_among_them(serve: Serve) -> None:
    running = await serve(subscribes, max_topics=1000)
    async with running.connect("/?stays=1"):
        stays = await running.opened()
        many = "&".join(f"t{number}=1" for number in range(500))
        async with running.connect(f"/?stays=1&{many}") as goes:
            await running.opened()
            assert len(await running.server.topics()) == 501
            await goes.send("go")
            await goes.wait_closed()
        while (await running.noted())[0] != "closed":
            pass
        assert await running.server.topics() == {"stays": 1}
        assert await running.server.members("stays") == [stays]


async def test_a_list_may_be_longer_than_a_page(serve: Serve) -> None:
    running = await serve(subscribes, max_topics=5000)
    # A page has at most 4096.
    names = [f"topic {number:04}" for number in range(5000)]

    async def subscribe_all(server: Server, note: Note) -> None:
        for fd in fds:
            for name in names:
                server.subscribe(fd, name)

    async with AsyncExitStack() as stack:
        fds = await connect_all(stack, running, "/", "/")
        for fd in fds:
            await (await running.owner(fd)).run(subscribe_all)
        found = await running.server.topics(limit=100_000)
        assert list(found) == names
        assert set(found.values()) == {2}
        assert list(await running.server.topics(limit=4999)) == names[:4999]


@pytest.mark.parametrize(
    ("call", "keywords", "error", "says"),
    [
        ("topics", {"limit": 0}, ValueError, "limit must be 1 or above, not 0"),
        ("topics", {"limit": -1}, ValueError, "limit must be 1 or above, not -1"),
        ("topics", {"limit": -(10**5000)}, ValueError, "thousands of digits"),
        ("topics", {"limit": True}, TypeError, "limit must be an int, not bool"),
        ("topics", {"limit": 1.0}, TypeError, "limit must be an int, not float"),
        ("topics", {"limit": None}, TypeError, "limit must be an int, not NoneType"),
        ("topics", {"prefix": b"x"}, TypeError, "prefix must be a str, not bytes"),
        ("topics", {"prefix": None}, TypeError, "prefix must be a str, not NoneType"),
        ("topics", {"prefix": "x" * 256}, ValueError, "prefix must have at most 255 bytes of UTF-8, not 256"),
        ("topics", {"prefix": "\ud800"}, ValueError, "surrogates"),
        ("members", {"topic": "", "limit": 1}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 0"),
        ("members", {"topic": "é" * 128}, ValueError, "topic must have 1 to 255 bytes of UTF-8, not 256"),
        ("members", {"topic": 1}, TypeError, "topic must be a str, not int"),
        ("members", {"topic": "x", "limit": 0}, ValueError, "limit must be 1 or above, not 0"),
        ("members", {"topic": "x", "limit": False}, TypeError, "limit must be an int, not bool"),
    ],
)
async def test_what_cannot_be_listed_is_an_error(
    serve_here: Serve, call: str, keywords: dict[str, Any], error: type[Exception], says: str
) -> None:
    running = await serve_here(subscribes)
    with pytest.raises(error, match=says):
        await getattr(running.server, call)(**keywords)


async def test_a_prefix_may_be_as_long_as_a_topic(serve_here: Serve) -> None:
    running = await serve_here(subscribes)
    name = "é" * 127 + "x"
    async with running.connect():
        await running.server.subscribe(await running.opened(), name)
        assert await running.server.topics(prefix=name) == {name: 1}


async def test_another_event_loop_may_ask(serve: Serve) -> None:
    running = await serve(subscribes)
    async with AsyncExitStack() as stack:
        fds = await connect_all(stack, running, "/?news=1", "/?news=1")

        async def look(server: Server, note: Note) -> tuple[dict[str, int], list[int]]:
            async def ask() -> tuple[dict[str, int], list[int]]:
                return await server.topics(), await server.members("news")

            return await asyncio.to_thread(lambda: asyncio.run(ask()))

        assert await running.server.run(look) == ({"news": 2}, sorted(fds))
