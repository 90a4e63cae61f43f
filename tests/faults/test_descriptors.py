"""Descriptors: when they run out, when a forked child holds them too, and after 5,000 connections."""

import os
import signal
import time
from pathlib import Path

import pytest
from raw_peer import CLOSE, TEXT, Peer, close_frame, frame, handshake
from server_process import MIB, ServerProcess, StartServer, serving, wait_until

LIMIT = 64

# The largest share of CPU time of an event loop that does not spin: one that spins takes all that it can get.
QUIET = 0.2


def share_of_cpu(server: ServerProcess, seconds: float) -> float:
    """Return the server's share of CPU time over this many seconds."""
    cpu, clock = server.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (server.cpu_seconds() - cpu) / (time.monotonic() - clock)


def test_connections_wait_for_descriptors_and_are_served(start_server: StartServer) -> None:
    server = start_server(descriptors=LIMIT)
    peers = [Peer(server.port) for _ in range(2 * LIMIT)]
    for number, peer in enumerate(peers):
        peer.send(handshake() + frame(TEXT, str(number).encode()))
    wait_until(lambda: server.descriptors() == LIMIT, "descriptors run out")
    wait_until(lambda: "accepting is paused" in server.log(), "a line in the log")
    assert "Too many open files" in server.log()
    assert f"raise the limit of open files, which is {LIMIT} (`ulimit -n`, LimitNOFILE= of systemd)" in server.log()
    assert share_of_cpu(server, 1) < QUIET
    for number, peer in enumerate(peers):
        assert peer.read_answer().status == 101
        assert peer.read_text() == str(number)
        # This frees a descriptor for a connection that waits.
        peer.socket.close()
    # The log does not have a line for each attempt.
    assert server.log().count("accepting is paused") < 5


def test_a_forked_child_does_not_keep_connections_alive(start_server: StartServer) -> None:
    server = start_server()
    with server.peer("/watch") as watch, server.peer() as first, server.peer("/count") as second:
        child = server.ask("fork")
        assert isinstance(child, int)
        assert server.ask("disconnect", "/echo") is True
        assert first.read_close().code == 1000
        first.send(close_frame(1000))
        assert first.read_end() == b""
        assert watch.read_json() == ["/echo", 1000, "", False]
        # Conversely, when the peer leaves, epoll must not report it forever.
        second.socket.close()
        assert watch.read_json() == ["/count", 1006, "", False]
        assert server.ask("stats")["connections"] == 3
        assert share_of_cpu(server, 1) < QUIET
        assert server.ask("fork") != child
        server.ask("end child")


def test_a_forked_child_does_not_keep_a_refused_client_waiting(start_server: StartServer) -> None:
    server = start_server()
    with Peer(server.port) as peer:
        peer.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.read_answer().body == b"ok"
        server.ask("fork")
        peer.send(b"GET / HTTP/3\r\n\r\n")
        assert peer.read_answer().status in (400, 505)
        assert peer.read_end() == b""
    server.ask("end child")


def test_a_forked_child_does_not_keep_the_port(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server:
        child = server.ask("fork away")
    try:
        with pytest.raises(ConnectionRefusedError):
            Peer(server.port)
    finally:
        os.kill(child, signal.SIGKILL)


def open_and_close(server: ServerProcess, count: int, together: int = 250) -> None:
    """Open connections, `together` at the same time, and close them in every possible way."""
    for _ in range(count // together):
        peers = [Peer(server.port) for _ in range(together)]
        for peer in peers:
            peer.send(handshake() + frame(TEXT, b"hello"))
        for number, peer in enumerate(peers):
            assert peer.read_answer().status == 101
            assert peer.read_text() == "hello"
            match number % 3:
                case 0:
                    peer.send(close_frame(1000))
                    assert peer.read_frame().opcode == CLOSE
                    assert peer.read_end() == b""
                    peer.socket.close()
                case 1:
                    peer.socket.close()
                case 2:
                    peer.vanish()


def test_5000_connections_leave_nothing_behind(start_server: StartServer) -> None:
    server = start_server(settings={"max_connections": 1600})
    descriptors = server.descriptors()
    # Buffers, tables and the heap grow with the largest number of connections at the same time. The registry has 2,048
    # rows for so many connections, and each is used before the first is used again.
    open_and_close(server, 3000)
    wait_until(lambda: server.descriptors() == descriptors, "descriptors return")
    before = server.memory()
    open_and_close(server, 5000)
    wait_until(lambda: server.descriptors() == descriptors, "descriptors return")
    # That is 200 bytes for each connection: any Python object kept for a connection takes more.
    assert server.memory() - before < MIB
    stats = server.ask("stats")
    assert (stats["accepted"], stats["closed"], stats["connections"]) == (8002, 8000, 2)
