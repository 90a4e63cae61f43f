"""`AsyncPublisher`: what `Publisher` does, without ever blocking the event loop."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from outside_server import PATIENCE, Client, OutsideServer, run_program

from hubbub import AsyncPublisher


@pytest.fixture
async def hub(server: OutsideServer) -> AsyncIterator[AsyncPublisher]:
    async with AsyncPublisher(server.control) as hub:
        yield hub


@pytest.fixture
def clients(server: OutsideServer) -> Iterator[tuple[Client, Client]]:
    """One client of each worker, both subscribed to `news`."""
    with server.client("news") as one, server.client("news") as other:
        yield one, other


async def test_a_dict_or_list_arrives_as_json_text(hub: AsyncPublisher, clients: tuple[Client, Client]) -> None:
    assert await hub.push(clients[0].fd, {"text": "é"})
    await hub.publish("news", [1])
    await hub.broadcast({})
    assert clients[0].texts(3) == ['{"text":"é"}', "[1]", "{}"]
    with pytest.raises(TypeError, match="data must be encodable as JSON"):
        await hub.broadcast([object()])


async def test_everything_arrives_in_the_order_of_the_calls(
    hub: AsyncPublisher, clients: tuple[Client, Client]
) -> None:
    one, other = clients
    await hub.publish("news", "published")
    assert await hub.push(one.fd, b"pushed", opcode=1) is True
    await hub.broadcast("broadcast", exclude=[other.fd])
    assert await hub.disconnect(one.fd, 4000, "bye") is True
    assert one.texts(3) == ["published", "pushed", "broadcast"]
    assert one.close_code() == (4000, "bye")
    assert await hub.push(other.fd, "the end")
    assert other.texts(2) == ["published", "the end"]


async def test_questions_are_answered(hub: AsyncPublisher, clients: tuple[Client, Client]) -> None:
    one, other = clients
    assert {one.fd, other.fd} <= set(await hub.connections())
    assert await hub.subscribers("news") == 2
    info = await hub.info(one.fd)
    assert info is not None
    assert info.fd == one.fd
    assert await hub.info(1) is None
    assert len((await hub.stats())["workers"]) == 2


async def test_many_tasks_may_ask_at_a_time(hub: AsyncPublisher, clients: tuple[Client, Client]) -> None:
    texts = [str(number) for number in range(1000)]
    assert await asyncio.gather(*(hub.push(clients[0].fd, text) for text in texts)) == [True] * 1000
    assert clients[0].texts(1000) == texts


async def test_a_mistake_is_told_and_does_no_harm(hub: AsyncPublisher) -> None:
    with pytest.raises(ValueError, match="topic must have 1 to 255 bytes"):
        await hub.publish("", "x")
    with pytest.raises(TypeError, match="fd must be an int"):
        await hub.push("1", "x")  # type: ignore[arg-type]
    assert await hub.push(1, "still there") is False


async def test_a_server_that_takes_nothing_blocks_no_other_task(own_server: OutsideServer) -> None:
    payload = bytes(100_000)
    with own_server.client("news") as client:
        async with AsyncPublisher(own_server.control, timeout=PATIENCE) as hub:
            own_server.freeze()
            publishing = [asyncio.create_task(hub.publish("news", payload)) for _ in range(50)]
            publishing.append(asyncio.create_task(hub.publish("news", "the end")))
            asking = asyncio.create_task(hub.connections())
            await asyncio.wait_for(asyncio.sleep(0.01), PATIENCE)
            assert not publishing[-1].done()
            assert not asking.done()
            own_server.thaw()
            await asyncio.gather(*publishing)
            assert await asking == [client.fd]
            assert client.texts(51) == [payload] * 50 + ["the end"]


async def test_cancelling_one_call_leaves_the_others_alone(own_server: OutsideServer) -> None:
    async with AsyncPublisher(own_server.control, timeout=PATIENCE) as hub:
        own_server.freeze()
        cancelled = [asyncio.create_task(call) for call in (hub.stats(), hub.push(1, "x"), hub.connections())]
        waiting = asyncio.create_task(hub.push(1, "y"))
        await asyncio.sleep(0)
        for task in cancelled:
            task.cancel()
        results = await asyncio.gather(*cancelled, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        own_server.thaw()
        assert await waiting is False
        assert await hub.connections() == []


async def test_an_answer_that_does_not_come_is_a_timeout(own_server: OutsideServer) -> None:
    hub = AsyncPublisher(own_server.control, timeout=0.2)
    while True:
        # It may take longer to connect on a busy machine.
        with contextlib.suppress(TimeoutError):
            await hub.connections()
            break
    own_server.freeze()
    with pytest.raises(TimeoutError, match="did not answer in time"):
        await hub.stats()
    with pytest.raises(TimeoutError, match="did not respond in time"):
        await AsyncPublisher(own_server.control, timeout=0.2).stats()
    own_server.thaw()
    await hub.close()


async def test_it_outlives_the_server(own_server: OutsideServer) -> None:
    hub = AsyncPublisher(own_server.control)
    assert await hub.connections() == []
    own_server.stop()
    with pytest.raises(ConnectionError, match=r"control\.sock: "):
        await hub.publish("news", "nobody is there")
    own_server.start()
    assert await hub.connections() == []
    await hub.close()
    assert await hub.connections() == []
    await hub.close()


async def test_connecting_blocks_no_other_task(own_server: OutsideServer) -> None:
    own_server.freeze()
    asking = asyncio.create_task(AsyncPublisher(own_server.control, timeout=PATIENCE).connections())
    begin = time.monotonic()
    while time.monotonic() < begin + 0.05:
        await asyncio.sleep(0)
        assert not asking.done()
    own_server.thaw()
    assert await asking == []


def test_one_publisher_may_serve_one_event_loop_after_the_other(server: OutsideServer) -> None:
    hub = AsyncPublisher(server.control)
    for _ in range(2):
        assert asyncio.run(hub.push(1, "nobody")) is False


def test_what_was_published_is_sent_before_the_program_ends(server: OutsideServer) -> None:
    with server.client("news") as client:
        run_program(
            """
            import asyncio, sys
            from hubbub import AsyncPublisher

            async def main():
                hub = AsyncPublisher(sys.argv[1])
                for number in range(1000):
                    await hub.publish("news", str(number))

            asyncio.run(main())
            """,
            server.control,
        )
        assert client.texts(1000) == [str(number) for number in range(1000)]


async def test_any_number_of_questions_at_a_time_are_answered(
    server: OutsideServer, clients: tuple[Client, Client]
) -> None:
    one, _ = clients
    # The questions are answered one after the other, so on a busy machine all of them need more than the usual timeout.
    async with AsyncPublisher(server.control, timeout=PATIENCE) as hub:
        # That is far more than may wait for a program that does not read; this program reads.
        stats = await asyncio.gather(*(hub.stats() for _ in range(20_000)))
        assert {counted["connections"] for counted in stats} == {2}
        assert await asyncio.gather(*(hub.push(one.fd, str(number)) for number in range(10_000))) == [True] * 10_000
    assert one.texts(10_000) == [str(number) for number in range(10_000)]
