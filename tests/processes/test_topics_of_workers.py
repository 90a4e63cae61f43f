"""Topics with memory outlive the workers whose connections have used them."""

import json
import os
import signal
import textwrap
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from launched import Launch, Launched, ask, gone
from websockets.asyncio.client import ClientConnection

ROOM = """
import inspect, json

server = new_server(workers=3)
server.topic_options("room", history=100, presence=True)

@server.on("message")
async def on_message(server, frame):
    value = eval(frame.data)
    server.push(frame.fd, json.dumps(await value if inspect.isawaitable(value) else value))

@server.on("join")
def on_join(server, topic, fd, info):
    tell("join", fd, info, server.worker_id)

@server.on("leave")
def on_leave(server, topic, fd, info):
    tell("leave", fd, info, server.worker_id)

async def look(topic):
    found = await server.history(topic)
    return [[message.data for message in found.messages], found.position]

async def join(fd, since):
    joined = await server.join(fd, "room", since=since)
    return [joined.recovered, joined.count, joined.position]
"""


async def answer(client: ClientConnection, expression: str) -> Any:
    """Return the value of an expression in the worker that has the connection."""
    return json.loads(await ask(client, expression))


async def enter(client: ClientConnection, launched: Launched, name: str) -> tuple[str, str]:
    """Subscribe a client; return its id and its worker."""
    await answer(client, f"server.subscribe(frame.fd, 'room', info={name!r})")
    _, fd, told, worker = (await launched.told.wait_for(f" {name} ")).split()
    assert told == name
    return fd, worker


async def told(launched: Launched, count: int) -> list[list[str]]:
    """Wait until so many members have left."""
    return [(await launched.told.wait_for("leave ")).split() for _ in range(count)]


async def test_the_members_of_a_killed_worker_leave_once(launch: Launch) -> None:
    launched = await launch(ROOM)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(launched.connect()) for _ in range(12)]
        members = [await enter(client, launched, f"name{number}") for number, client in enumerate(clients)]
        victim = members[0][1]
        lost = {fd for fd, worker in members if worker == victim}
        assert 0 < len(lost) < len(members)
        survivor = next(client for client, (_, worker) in zip(clients, members, strict=True) if worker != victim)
        os.kill(launched.workers()[int(victim)], signal.SIGKILL)
        left = await told(launched, len(lost))
        assert Counter(fd for _, fd, _, _ in left) == Counter(lost)
        names = {fd: f"name{number}" for number, (fd, _) in enumerate(members)}
        assert all(names[fd] == info for _, fd, info, _ in left)
        present = await answer(survivor, "server.presence('room')")
        assert set(present) == {fd for fd, worker in members if worker != victim}
        assert set(await answer(survivor, "server.members('room')")) == {int(fd) for fd in present}
        # Those who come now are members of the worker in its place.
        async with launched.connect_to(int(victim)) as client:
            fd, worker = await enter(client, launched, "late")
            assert worker == victim
            assert (await answer(survivor, "server.presence('room')"))[fd] == "late"
    await launched.stop()
    everything = Counter(tuple(line.split()[:2]) for line in launched.told.all if line.startswith(("join ", "leave ")))
    assert set(everything.values()) == {1}
    assert len([event for event, _ in everything if event == "leave"]) == len(members) + 1


async def test_a_member_whose_handler_hangs_in_a_killed_worker_leaves_too(launch: Launch) -> None:
    hangs = ROOM.replace("def on_join(", "async def on_join(").replace(
        '    tell("join"', '    if info == "hangs": tell("hangs") or await asyncio.sleep(3600)\n    tell("join"'
    )
    launched = await launch(hangs)
    async with launched.connect_to(0) as watching, launched.connect_to(1) as client:
        await enter(watching, launched, "watching")
        fd = await answer(client, "frame.fd")
        await answer(client, "server.subscribe(frame.fd, 'room', info='hangs')")
        await launched.told.wait_for("hangs")
        assert str(fd) in await answer(watching, "server.presence('room')")
        os.kill(launched.workers()[1], signal.SIGKILL)
        ((_, left, info, _),) = await told(launched, 1)
        assert (left, info) == (str(fd), "hangs")
        assert str(fd) not in await answer(watching, "server.presence('room')")
    await launched.stop()


async def test_all_members_leave_once_at_a_reload_and_a_stop(launch: Launch) -> None:
    launched = await launch(ROOM)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(launched.connect()) for _ in range(9)]
        members = [await enter(client, launched, f"name{number}") for number, client in enumerate(clients)]
        launched.process.send_signal(signal.SIGHUP)
        left = await told(launched, len(members))
        # In the workers that had them.
        assert sorted((fd, worker) for _, fd, _, worker in left) == sorted(members)
        await launched.log.wait_for("INFO reloaded")
        again = [await stack.enter_async_context(launched.connect()) for _ in range(3)]
        for number, client in enumerate(again):
            await enter(client, launched, f"again{number}")
        assert len(await answer(again[0], "server.presence('room')")) == 3
        await launched.stop()
    leaves = Counter(line.split()[1] for line in launched.told.all if line.startswith("leave "))
    assert (len(leaves), set(leaves.values())) == (12, {1})


async def test_a_worker_that_is_told_to_end_lets_its_members_leave(launch: Launch) -> None:
    launched = await launch(ROOM)
    async with launched.connect_to(1) as client:
        fd, _ = await enter(client, launched, "Ada")
        pid = launched.workers()[1]
        os.kill(pid, signal.SIGTERM)
        assert (await told(launched, 1))[0] == ["leave", fd, "Ada", "1"]
        await gone(pid)
    await launched.stop()


async def test_a_history_outlives_every_worker(launch: Launch) -> None:
    launched = await launch(ROOM)
    expected = []
    for worker_id in range(3):
        async with launched.connect_to(worker_id) as client:
            await answer(client, f"server.publish('room', 'by {worker_id}')")
            expected.append(f"by {worker_id}")
            messages, _ = await answer(client, "look('room')")
            assert messages == expected
            os.kill(await answer(client, "os.getpid()"), signal.SIGKILL)
            await client.wait_closed()
    async with launched.connect() as client:
        messages, position = await answer(client, "look('room')")
        assert messages == expected
        assert position[1] == 3
        await client.send(f"join(frame.fd, {[position[0], 1]!r})")
        assert [await client.recv() for _ in range(2)] == expected[1:]
        assert json.loads(await client.recv()) == [True, 2, position]
    await launched.stop()


async def test_a_position_outlives_a_reload(launch: Launch) -> None:
    launched = await launch(ROOM)
    async with launched.connect() as client:
        await answer(client, "server.publish('room', 'before')")
        _, position = await answer(client, "look('room')")
        launched.process.send_signal(signal.SIGHUP)
        await launched.log.wait_for("INFO reloaded")
    async with launched.connect() as client:
        await answer(client, "server.publish('room', 'after')")
        await client.send(f"join(frame.fd, {position!r})")
        assert await client.recv() == "after"
        assert json.loads(await client.recv()) == [True, 1, [position[0], 2]]
    await launched.stop()


async def test_a_history_is_lost_with_the_master_and_a_new_epoch_tells(launch: Launch) -> None:
    positions: list[list[Any]] = []
    for _ in range(2):
        launched = await launch(ROOM)
        async with launched.connect() as client:
            if positions:
                recovered, count, position = await answer(client, f"join(frame.fd, {positions[0]!r})")
                assert (recovered, count, position[1]) == (False, 0, 0)
                await answer(client, "server.unsubscribe(frame.fd, 'room')")
            await answer(client, "[server.publish('room', str(number)) for number in range(3)]")
            messages, position = await answer(client, "look('room')")
            assert messages == ["0", "1", "2"]
            positions.append(position)
        await launched.stop()
    assert positions[0][0] != positions[1][0]


async def test_a_join_ends_with_the_worker_of_the_connection(launch: Launch) -> None:
    launched = await launch(ROOM)
    async with launched.connect_to(0) as asking, launched.connect_to(1) as client:
        fd = await answer(client, "frame.fd")
        await answer(asking, "server.publish('room', 'hello')")
        victim = launched.workers()[1]
        os.kill(victim, signal.SIGSTOP)
        await asking.send(f"join({fd}, None)")
        os.kill(victim, signal.SIGKILL)
        assert json.loads(await asking.recv()) == [False, 0, ["", 0]]
        assert await answer(asking, f"join({fd}, None)") == [False, 0, ["", 0]]
        assert str(fd) not in await answer(asking, "server.presence('room')")
    await launched.stop()


async def test_a_join_names_the_worker_that_does_not_answer(launch: Launch) -> None:
    lines = """
    async def try_to_join(fd):
        try:
            await server.join(fd, "room")
        except TimeoutError as error:
            return str(error)
    """
    launched = await launch(ROOM + textwrap.dedent(lines))
    async with launched.connect_to(0) as asking, launched.connect_to(1) as client:
        fd = await answer(client, "frame.fd")
        stopped = launched.workers()[1]
        os.kill(stopped, signal.SIGSTOP)
        assert await answer(asking, f"try_to_join({fd})") == "worker 1 did not answer within 5 s"
        os.kill(stopped, signal.SIGCONT)
        # It has joined nevertheless, once its worker runs again.
        while str(fd) not in await answer(asking, "server.presence('room')"):
            pass
    await launched.stop()


async def test_a_stop_ends_joins_that_wait(launch: Launch) -> None:
    """The worker of the connection is stopped, so the join waits, and so does the handler that called it."""
    launched = await launch(ROOM, shutdown_timeout=20)
    async with launched.connect_to(0) as asking, launched.connect_to(1) as client:
        fd = await answer(client, "frame.fd")
        worker = launched.workers()[1]
        os.kill(worker, signal.SIGSTOP)
        await asking.send(f"join({fd}, None)")
        launched.process.terminate()
        await launched.log.wait_for("SIGTERM: stopping")
        os.kill(worker, signal.SIGCONT)
        assert await launched.status() == 0
