"""`max_connections` holds for the whole server, whichever workers the connections are passed to."""

import asyncio
import os
import signal

from hub_client import HubClient, Refused, end
from hub_server import StartHub
from raw_peer import Peer, handshake
from server_process import wait_until

MOST = 20


async def test_never_more_connections_than_allowed_in_all_workers(start_hub: StartHub) -> None:
    server = start_hub(max_connections=MOST)
    clients: list[HubClient] = []
    refusals: list[int] = []

    async def try_to_connect() -> None:
        try:
            clients.append(await server.connect())
        except Refused as refusal:
            refusals.append(refusal.status)

    for _ in range(5):
        async with asyncio.TaskGroup() as attempts:
            for _ in range(4 * MOST):
                attempts.create_task(try_to_connect())
        assert len(clients) <= MOST
        # If two clients ask for the last place at the same time, possibly neither gets it; a single client does.
        while len(clients) < MOST:
            clients.append(await server.connect())
        assert await clients[0].ask("len(server.connections)") == MOST
        assert_refused(server.port)
        await end(clients)
        clients.clear()
        with server.publisher() as hub:
            wait_until(lambda: hub.connections() == [], "all places are free")
    assert set(refusals) == {503}


def assert_refused(port: int) -> None:
    with Peer(port) as peer:
        peer.send(handshake())
        answer = peer.read_answer()
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_the_places_of_a_killed_worker_are_free(start_hub: StartHub) -> None:
    server = start_hub(max_connections=MOST)
    clients = [await server.connect() for _ in range(MOST)]
    victims = [client for client in clients if client.worker_id == 2]
    os.kill(victims[0].pid, signal.SIGKILL)
    for victim in victims:
        await victim.ends()
    clients += [await server.connect() for _ in victims]
    assert_refused(server.port)
    await end(clients)
