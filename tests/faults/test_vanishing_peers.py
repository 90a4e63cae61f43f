"""Peers that vanish in the middle of something: their `close` event comes, and nothing is kept for them."""

from collections.abc import Callable
from socket import SHUT_WR

import pytest
from raw_peer import BINARY, COMPRESSION, CONTINUATION, TEXT, Peer, deflated, frame, handshake
from server_process import StartServer

UNFINISHED = {
    "between frames": b"",
    "in a header": frame(BINARY, b"x" * 1000)[:3],
    "in a payload": frame(BINARY, b"x" * 1000)[:500],
    "in a long payload": frame(BINARY, b"x" * 900_000)[:-1],
    "in a control frame": frame(9, b"ping")[:-2],
    "in a message": frame(TEXT, b"one", fin=False) + frame(CONTINUATION, b"two", fin=False),
    "in a compressed message": frame(TEXT, deflated(b"one" * 1000), rsv=4, fin=False),
}


def leave_with_reset(peer: Peer) -> None:
    peer.vanish()


def leave_with_end(peer: Peer) -> None:
    peer.socket.close()


def leave_half(peer: Peer) -> None:
    peer.socket.shutdown(SHUT_WR)


Leave = Callable[[Peer], None]
LEAVE: list[Leave] = [leave_with_reset, leave_with_end, leave_half]


@pytest.mark.parametrize("leave", LEAVE)
def test_a_peer_that_vanishes_is_closed_with_1006(start_server: StartServer, leave: Leave) -> None:
    server = start_server(settings={"compression": True})
    with server.peer("/watch") as watch:
        for data in UNFINISHED.values():
            with server.peer(headers={"Sec-WebSocket-Extensions": COMPRESSION}) as peer:
                peer.send(frame(TEXT, b"hello") + data)
                assert peer.read_text() == "hello"
                leave(peer)
                assert watch.read_json() == ["/echo", 1006, "", False]
    assert server.ask("stats")["connections"] == 2


@pytest.mark.parametrize("leave", LEAVE)
def test_a_peer_that_vanishes_in_its_handshake_leaves_nothing(start_server: StartServer, leave: Leave) -> None:
    server = start_server()
    before = server.ask("stats")
    head = handshake()
    for length in (0, 1, 10, len(head) - 1):
        with Peer(server.port) as peer:
            peer.send(head[:length])
            leave(peer)
    # Connections are handled in the order in which they were accepted, so the earlier ones have been handled by now.
    with server.peer() as peer:
        peer.send_text("hello")
        assert peer.read_text() == "hello"
        assert server.ask("stats")["accepted"] == before["accepted"] + 1


def test_a_peer_that_vanishes_while_its_handler_runs(start_server: StartServer) -> None:
    server = start_server(kind="async")
    with server.peer("/watch") as watch:
        peer = server.peer("/held")
        peer.send(frame(TEXT, b"hello") * 10)
        fd = server.ask("fd", "/held")
        peer.vanish()
        assert server.ask("release") is None
        assert watch.read_json() == ["/held", 1006, "", False]
        assert server.ask("exists", fd) is False


def test_a_peer_that_vanishes_with_a_full_outbox(start_server: StartServer) -> None:
    server = start_server(settings={"slow_consumer": "drop"})
    with server.peer("/watch") as watch:
        peer = server.peer(receive_buffer=4096)
        queued, refused = server.ask("flood", "/echo", 64 * 1024, 1000)
        assert queued
        assert refused
        peer.vanish()
        assert watch.read_json() == ["/echo", 1006, "", False]
        assert server.ask("stats")["queued_bytes"] < 64 * 1024


def test_a_peer_that_has_closed_its_end_still_reads_the_answer(start_server: StartServer) -> None:
    server = start_server()
    with server.peer() as peer:
        peer.send_text("hello")
        peer.socket.shutdown(SHUT_WR)
        assert peer.read_text() == "hello"
