"""An embedded server with a control socket."""

import os
from pathlib import Path

from websockets.asyncio.client import connect

from hubbub import AsyncPublisher, Frame, Server


async def test_other_programs_reach_it(tmp_path: Path) -> None:
    path = tmp_path / "here.sock"
    server = Server(port=0, control=path)

    @server.on("message")
    def on_message(server: Server, frame: Frame) -> None:
        server.push(frame.fd, str(server.subscribe(frame.fd, "news")))

    server.on("pipe_message", lambda server, worker_id, data: server.broadcast(f"{worker_id}: {data}"))
    async with server:
        assert path.is_socket()
        address = f"ws://127.0.0.1:{server.port}"
        async with connect(address, proxy=None) as client, AsyncPublisher(path) as publisher:
            await client.send("subscribe me")
            assert await client.recv() == "True"
            assert await publisher.subscribers("news") == 1
            await publisher.publish("news", "hello")
            assert await client.recv() == "hello"
            (fd,) = await publisher.connections()
            assert await publisher.push(fd, "pushed")
            assert await client.recv() == "pushed"
            assert await server.subscribers("news") == 1
            assert server.stats()["connections"] == len(server.connections) == 1
            server.send_message("to myself", 0)
            assert await client.recv() == "0: to myself"
            await publisher.send_message("from outside", 0)
            assert await client.recv() == "None: from outside"
            assert await publisher.topics() == await server.topics() == {"news": 1}
            assert await publisher.members("news") == await server.members("news") == [fd]
    assert not path.exists()


async def test_it_can_be_opened_again(tmp_path: Path) -> None:
    server = Server(port=0, control=tmp_path / "here.sock")

    @server.on("message")
    def on_message(server: Server, frame: Frame) -> None:
        server.push(frame.fd, str(frame.fd))

    seen = []
    for _ in range(3):
        async with server, connect(f"ws://127.0.0.1:{server.port}", proxy=None) as client:
            await client.send("which am I?")
            seen.append(await client.recv())
    assert len(set(seen)) == 3


async def test_without_one_nothing_is_made(tmp_path: Path) -> None:
    async with Server(port=0):
        pass
    assert os.listdir(tmp_path) == []
