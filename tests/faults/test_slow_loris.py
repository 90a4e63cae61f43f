"""Clients that hold sockets by being slow: each is cut off in time, while other clients are served."""

from contextlib import ExitStack

import pytest
from raw_peer import Peer
from server_process import StartServer

MANY = 200
BLOCK = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "


@pytest.mark.parametrize("kept", [False, True], ids=["new connections", "kept connections"])
def test_200_heads_that_drip_are_cut_off_and_others_are_served(start_server: StartServer, kept: bool) -> None:
    server = start_server(settings={"handshake_timeout": 1.0, "close_timeout": 0.5})
    with ExitStack() as stack:
        dripping: list[Peer] = []
        for _ in range(MANY):
            # One after the other: each has a second for its first request, however long the others took.
            peer = stack.enter_context(Peer(server.port))
            if kept:
                peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert peer.read_answer().status == 200
            peer.send(BLOCK)
            dripping.append(peer)
        answered: list[Peer] = []
        while dripping:
            # Meanwhile, a handshake and a message of another client.
            with server.peer() as other:
                other.send_text("hello")
                assert other.read_text() == "hello"
            for peer in dripping[:]:
                if peer.can_be_read():
                    dripping.remove(peer)
                    answered.append(peer)
                else:
                    peer.send(b"x")
        for peer in answered:
            assert peer.read_answer().status == 408
            assert peer.read_end() == b""


def test_200_clients_that_say_nothing_are_cut_off_and_others_are_served(start_server: StartServer) -> None:
    server = start_server(settings={"handshake_timeout": 0.5})
    with ExitStack() as stack:
        silent = [stack.enter_context(Peer(server.port)) for _ in range(MANY)]
        while not all(peer.can_be_read() for peer in silent):
            with server.peer() as other:
                other.send_text("hello")
                assert other.read_text() == "hello"
        assert [peer.read_end() for peer in silent] == [b""] * MANY


def test_200_idle_http_connections_are_cut_off(start_server: StartServer) -> None:
    server = start_server(settings={"keep_alive_timeout": 0.5})
    with ExitStack() as stack:
        idle = [stack.enter_context(Peer(server.port)) for _ in range(MANY)]
        for peer in idle:
            peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert peer.read_answer().status == 200
        assert [peer.read_end() for peer in idle] == [b""] * MANY
