"""Answers that take long to send, and requests while the server stops."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from application import Note
from raw_client import RawClient
from running import Remote, Running, Serve

from hubbub import Frame, Request, Server
from ports import refuses_connections

LONG = bytes(range(256)) * 40_000


def long_site(server: Server, note: Note) -> None:
    """Answers with 10 MB, and notes each request."""

    @server.on("request")
    def on_request(server: Server, request: Request) -> bytes:
        note(request.path)
        return LONG if request.path == "/long" else request.path.encode()


async def connection_to(running: Running, worker: Remote, stack: AsyncExitStack) -> RawClient:
    """Connect to a worker of the application, which answers with its number."""
    # Connect all clients before the first gets its answer: idle connections do not count when the next connection is
    # passed to the worker with the fewest.
    clients = [await stack.enter_async_context(running.raw()) for _ in range(2 * len(running.workers))]
    for client in clients:
        client.ask("/")
    answers = [(await client.answer()).body for client in clients]
    return clients[answers.index(str(worker.worker_id).encode())]


async def says_that_it_stops(client: RawClient) -> None:
    """Ask a worker for its health until the answer is 503."""
    status, headers = 200, dict[str, str]()
    while status == 200:
        client.ask("/health")
        status, headers, _ = await client.answer()
    assert (status, headers["retry-after"]) == (503, "5")


async def test_a_long_answer_arrives_whole_and_the_next_request_waits_for_it(serve: Serve) -> None:
    running = await serve(long_site)
    async with running.raw(receive_buffer=4096) as client, running.raw() as other:
        client.ask("/long")
        client.ask("/next")
        assert await running.noted() == ("/long",)
        # Other clients are served meanwhile, but not the requests after the long answer.
        other.ask("/other")
        assert (await other.answer()).body == b"/other"
        assert await running.noted() == ("/other",)
        assert (await client.answer()).body == LONG
        assert (await client.answer()).body == b"/next"


@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: close"])
async def test_an_answer_under_way_still_goes_out_when_the_server_stops(serve: Serve, header: str) -> None:
    running = await serve(long_site)
    async with running.raw(receive_buffer=4096) as client:
        client.ask("/long", header)
        assert await running.noted() == ("/long",)
        stopping = asyncio.create_task(running.stop())
        await refuses_connections(running.port)
        assert (await client.answer()).body == LONG
        assert await client.rest() == b""
    await stopping


async def test_an_answer_whose_handler_still_runs_goes_out_when_the_server_stops(serve: Serve, tmp_path: Path) -> None:
    # A worker that is stopping runs no more jobs of the test, so a FIFO releases the handler.
    goes_on = tmp_path / "goes on"
    os.mkfifo(goes_on)

    def application(server: Server, note: Note) -> None:
        @server.on("request")
        async def on_request(server: Server, request: Request) -> str | bytes:
            if request.path == "/long":
                note(server.worker_id)
                await asyncio.to_thread(goes_on.read_bytes)
                return LONG
            return str(server.worker_id)

    running = await serve(application)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(running.raw())
        client.ask("/long")
        (worker_id,) = await running.noted()
        worker = running.workers[worker_id]
        balancer = await connection_to(running, worker, stack)
        stopping = asyncio.create_task(running.stop())
        await says_that_it_stops(balancer)
        goes_on.write_bytes(b"")
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (LONG, "close")
        assert await client.rest() == b""
    await stopping


async def test_health_path_is_503_on_connections_that_are_still_open_while_the_server_stops(
    serve: Serve,
) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        async def on_message(server: Server, frame: Frame) -> None:
            note(frame.fd)
            await note.goes_on.wait()

        server.on("request", lambda server: str(server.worker_id))

    running = await serve(application)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(running.connect())
        await client.send("hello")
        worker = await running.owner(await running.opened())
        balancer = await connection_to(running, worker, stack)
        stopping = asyncio.create_task(running.stop())
        await says_that_it_stops(balancer)
        await worker.run(lambda server, note: note.goes_on.set())
        await client.wait_closed()
    await stopping
