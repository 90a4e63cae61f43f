"""Questions to workers, or to a master, that do not answer: they end, and say who was silent."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable

import pytest
from hub_client import HubClient
from hub_server import HubServer, StartHub, stopped

from hubbub import AsyncPublisher, Publisher

# Seconds that a question to another process may take.
PATIENCE = 5
# Seconds for a publisher's answer.
SHORT = 2.0
# Seconds that a loaded machine may take to report a timeout.
DELAY = 0.8
# The outbox size of each connection, in bytes: enough for the flood.
FLOOD = 64 * 1024 * 1024
NAMED = r"^worker 1 of the server at .*control did not answer in time$"
COUNT = "report(fd, server.subscribers('news'))"


async def count(client: HubClient) -> str:
    """Make the client's worker count the subscribers of "news"; return the number, or the error."""
    await client.ask(COUNT)
    return await client.receive()


def subscribed(server: HubServer, *worker_ids: int) -> str:
    """Return how many clients are connected to these workers."""
    return str(sum(client.worker_id in worker_ids for client in server.connected))


async def flood(server: HubServer) -> None:
    """Publish more to worker 1, which is stopped, than the hub can queue for it."""
    with server.publisher() as hub:
        for _ in range(600):
            await asyncio.to_thread(hub.publish, "flood", bytes(64 * 1024))
    server.logs("worker 1 is not reading: commands for it are dropped")


async def test_a_question_to_a_stopped_worker_ends_and_names_it(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, victim, third):
        assert await count(first) == subscribed(server, 0, 1, 2)
        with stopped(victim.pid):
            began = time.monotonic()
            answers = await asyncio.gather(count(first), count(third))
            assert PATIENCE - 1 < time.monotonic() - began < PATIENCE + DELAY
            assert set(answers) == {"TimeoutError: worker 1 did not answer within 5 s"}
        # Its late answers must not be mistaken for answers to these questions.
        assert await count(first) == subscribed(server, 0, 1, 2)
        assert await count(victim) == subscribed(server, 0, 1, 2)


async def test_lists_name_a_silent_worker_too(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, victim, third):
        looks = ("report(fd, server.topics())", "report(fd, server.members('news', limit=1))")
        with stopped(victim.pid):
            await asyncio.gather(*(client.ask(look) for client, look in zip((first, third), looks, strict=True)))
            for client in (first, third):
                assert await client.receive() == "TimeoutError: worker 1 did not answer within 5 s"
        await first.ask("report(fd, server.topics())")
        assert json.loads(await first.receive()) == {"news": len(server.connected)}


async def test_a_worker_that_is_killed_does_not_hold_up_a_list(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, victim, third):
        with stopped(victim.pid):
            await first.ask("report(fd, server.members('news'))")
            os.kill(victim.pid, signal.SIGKILL)
            expected = sorted(client.fd for client in server.connected if client.worker_id != 1)
            assert json.loads(await first.receive()) == expected
        assert third.fd in expected


async def test_all_silent_workers_are_named(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, second, third):
        with stopped(second.pid), stopped(third.pid):
            assert await count(first) == "TimeoutError: workers 1, 2 did not answer within 5 s"


async def test_a_worker_that_dies_counts_as_answered(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, victim, _):
        with stopped(victim.pid):
            await first.ask(COUNT)
            os.kill(victim.pid, signal.SIGKILL)
            assert await first.receive() == subscribed(server, 0, 2)


async def test_the_subscribers_of_a_worker_for_which_commands_are_dropped_are_not_left_out(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=FLOOD)
    async with server.client_of(1, topics="flood,news") as victim, server.client_of(0) as first:
        with stopped(victim.pid):
            await flood(server)
            assert await count(first) == "TimeoutError: worker 1 did not answer within 5 s"
        server.logs("worker 1 has caught up")


def ask_all(server: HubServer, victim: int) -> None:
    """Ask a stopped worker everything that a publisher can ask, and the hub everything that it answers itself."""
    with server.publisher(timeout=SHORT) as hub:
        questions: list[Callable[[], object]] = [
            lambda: hub.push(victim, "late"),
            lambda: hub.disconnect(victim),
            lambda: hub.subscribers("news"),
            lambda: hub.members("news"),
            hub.topics,
        ]
        for question in questions:
            with pytest.raises(TimeoutError, match=NAMED):
                question()
        assert hub.stats()["connections"] >= 3
        assert victim in hub.connections()
        assert hub.info(victim)


async def ask_all_async(server: HubServer, victim: int) -> None:
    async with AsyncPublisher(server.control, timeout=SHORT) as hub:
        for question in (hub.push(victim, "late"), hub.disconnect(victim), hub.subscribers("news")):
            with pytest.raises(TimeoutError, match=NAMED):
                await question
        assert (await hub.stats())["connections"] >= 3
        assert victim in await hub.connections()
        assert await hub.info(victim)


async def test_a_publisher_is_told_which_worker_is_silent(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, victim, _):
        with stopped(victim.pid):
            await asyncio.to_thread(ask_all, server, victim.fd)
            await ask_all_async(server, victim.fd)
            assert await asyncio.to_thread(push, server, first.fd)
        assert await first.receive() == "in time"


def push(server: HubServer, fd: int) -> bool:
    with Publisher(server.control) as hub:
        return hub.push(fd, "in time")


async def test_a_master_that_is_stopped_is_named_too(start_hub: StartHub) -> None:
    server = start_hub()
    async with server.clients(topics="news") as (first, _, _):
        with stopped(server.pid):
            began = time.monotonic()
            assert await count(first) == "TimeoutError: the master did not answer within 5 s"
            assert PATIENCE - 0.1 < time.monotonic() - began < PATIENCE + DELAY
        assert await count(first) == subscribed(server, 0, 1, 2)


def ask_a_stopped_master(server: HubServer) -> None:
    """Ask everything that a publisher can ask; each question takes the publisher's timeout and no longer."""
    with server.publisher(timeout=SHORT) as hub:
        questions: list[Callable[[], object]] = [
            lambda: hub.push(1, "late"),
            lambda: hub.disconnect(1),
            lambda: hub.subscribers("news"),
            hub.connections,
            lambda: hub.info(1),
            hub.stats,
        ]
        with stopped(server.pid):
            for question in questions:
                began = time.monotonic()
                with pytest.raises(TimeoutError, match="did not answer"):
                    question()
                assert SHORT - 0.1 < time.monotonic() - began < SHORT + DELAY


async def ask_a_stopped_master_async(server: HubServer) -> None:
    async with AsyncPublisher(server.control, timeout=SHORT) as hub:
        with stopped(server.pid):
            began = time.monotonic()
            questions = (hub.push(1, "late"), hub.disconnect(1), hub.subscribers("news"), hub.stats())
            results = await asyncio.gather(*questions, return_exceptions=True)
            assert SHORT - 0.1 < time.monotonic() - began < SHORT + DELAY
            assert [type(result) for result in results] == [TimeoutError] * len(questions)


async def test_a_publisher_waits_for_a_stopped_master_as_long_as_it_says(start_hub: StartHub) -> None:
    server = start_hub(workers=1)
    await asyncio.to_thread(ask_a_stopped_master, server)
    await ask_a_stopped_master_async(server)


async def test_an_answer_for_which_a_stopped_worker_has_no_room_does_not_end_it(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=FLOOD)
    async with server.client_of(1, topics="flood") as victim, server.client_of(2, topics="news") as silent:
        with stopped(silent.pid):
            await victim.ask(COUNT)
            with stopped(victim.pid):
                await flood(server)
                # Meanwhile the hub reports that the question has no answer.
                await asyncio.sleep(PATIENCE)
        server.logs("worker 1 has caught up")
        assert await victim.ask("1 + 1") == 2
