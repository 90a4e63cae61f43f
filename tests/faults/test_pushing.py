"""Pushes to ids of closed connections, unused ids and numbers that are no ids; pushes from everywhere."""

import asyncio
import threading

import pytest
from raw_peer import PATIENCE
from server_process import StartServer

from hubbub import Server

KINDS = ["sync", "async", "threaded"]


# Any int is accepted, but names no open connection; `True` is an int too.
NEVER_WERE = [0, 1, True, -1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 2**70, -(2**70)]
NO_NUMBERS = ["1", 1.0, None, [1], {}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_to_what_is_no_open_connection(start_server: StartServer, kind: str) -> None:
    server = start_server(kind=kind)
    assert {fd: server.ask("push", fd) for fd in NEVER_WERE} == dict.fromkeys(NEVER_WERE, False)
    assert [server.ask("push", fd) for fd in NO_NUMBERS] == ["TypeError"] * len(NO_NUMBERS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_to_a_connection_that_is_gone(start_server: StartServer, kind: str) -> None:
    server = start_server(kind=kind)
    with server.peer("/watch") as watch:
        with server.peer() as peer:
            fd = server.ask("fd", "/echo")
            assert server.ask("push", fd) is True
            assert peer.read_text() == "hello"
        watch.read_json()
        # Its row in the registry is free, and soon belongs to another connection.
        peers = [server.peer("/count") for _ in range(10)]
        assert server.ask("push", fd) is False
        assert not any(peer.can_be_read() for peer in peers)
        for peer in peers:
            peer.socket.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_from_anywhere_arrives(start_server: StartServer, kind: str) -> None:
    server = start_server(kind=kind)
    with server.peer() as peer:
        for place in ("thread", "task", "timer", "async timer"):
            assert server.ask("push from", place, "/echo") is None
            assert peer.read_text() == f"from {place}"


def test_pushes_inside_open_and_close(start_server: StartServer) -> None:
    server = start_server()
    with server.peer("/watch") as watch:
        with server.peer("/push-in-open") as peer:
            assert peer.read_text() == "from open"
        # Inside `close` pushes to others work, but this connection is already gone.
        assert watch.read_json() == ["/push-in-open", 1006, "", False]


async def test_a_timer_made_in_a_thread_wakes_an_idle_server() -> None:
    async with Server(port=0, workers=1, control=None) as server, asyncio.timeout(PATIENCE):
        fired = asyncio.Event()
        # When the thread calls this, the event loop is asleep, and nothing else would wake it in time.
        threading.Timer(0.1, server.after, (0, fired.set)).start()
        await fired.wait()
