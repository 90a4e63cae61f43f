"""Readers that do not read: memory stays bounded, the policy applies, the counters count."""

import os
import select
import time
from pathlib import Path

import pytest
from raw_peer import BINARY, CLOSE, PING, PONG, Peer, close_frame, frame, handshake
from server_process import MIB, StartServer, wait_until

SEND_QUEUE_SIZE = 4 * MIB
SIZE = 64 * 1024
COUNT = (1 << 30) // SIZE

# Memory in addition to the outbox while it fills: the message, and the chunks by which the outbox grows.
SLACK = 4 * MIB


def test_1_gb_for_a_reader_that_never_reads_is_dropped(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": SEND_QUEUE_SIZE, "slow_consumer": "drop"})
    with server.peer(receive_buffer=4096) as peer:
        before = server.memory()
        queued, refused = server.ask("flood", "/echo", SIZE, COUNT)
        assert queued + refused == COUNT
        assert server.memory() - before < SEND_QUEUE_SIZE + SLACK
        stats = server.ask("stats")
        assert stats["messages_dropped"] == refused > 0
        assert stats["slow_consumers_closed"] == 0
        # A slow client is not cut off: everything queued arrives, complete and only once, and it can go on.
        for _ in range(queued):
            assert peer.read_frame() == (BINARY, b"x" * SIZE, True)
        peer.send_text("hello")
        assert peer.read_text() == "hello"


def test_1_gb_for_a_reader_that_never_reads_closes_it(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": SEND_QUEUE_SIZE, "close_timeout": 0.5})
    with server.peer("/watch") as watch, server.peer(receive_buffer=4096) as peer:
        before = server.memory()
        queued, refused = server.ask("flood", "/echo", SIZE, COUNT)
        assert queued + refused == COUNT
        assert server.memory() - before < SEND_QUEUE_SIZE + SLACK
        stats = server.ask("stats")
        assert stats["slow_consumers_closed"] == 1
        assert stats["messages_dropped"] == 0
        assert watch.read_json() == ["/echo", 1006, "1013", False]
        poll = select.poll()
        poll.register(peer.socket, 0)
        assert poll.poll(30_000), "the connection is not reset"
        with pytest.raises(ConnectionResetError):
            peer.read_end()


def test_a_slow_reader_gets_whole_frames_and_then_1013(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": SEND_QUEUE_SIZE, "close_timeout": 30})
    with server.peer(receive_buffer=4096) as peer:
        queued, _ = server.ask("flood", "/echo", SIZE, 1000)
        received = 0
        while (got := peer.read_frame()).opcode != CLOSE:
            assert got == (BINARY, b"x" * SIZE, True)
            received += 1
        assert got.payload[:2] == (1013).to_bytes(2, "big")
        assert 0 < received < queued
        peer.send(frame(CLOSE, got.payload))
        assert peer.read_end() == b""


def test_a_frame_that_left_with_the_handshake_in_part_is_ended_before_1013(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": SEND_QUEUE_SIZE, "close_timeout": 30})
    with Peer(server.port, receive_buffer=4096) as peer:
        peer.send(handshake("/push-much-in-open"))
        wait_until(lambda: server.ask("stats")["slow_consumers_closed"] == 1, "the policy applies")
        with server.peer() as other:
            other.send_text("hello")
            assert other.read_text() == "hello"
        assert peer.read_answer().status == 101
        assert peer.read_frame() == (BINARY, b"\x7f" * 4_000_000, True)
        assert peer.read_close().code == 1013
        peer.send(close_frame(1013))
        assert peer.read_end() == b""


def test_tiny_messages_take_little_more_memory_than_the_outbox_allows(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": SEND_QUEUE_SIZE, "slow_consumer": "drop"})
    with server.peer(receive_buffer=4096):
        before = server.memory()
        server.ask("publish", "/echo", 2 * MIB)
        assert server.ask("stats")["messages_dropped"] > 0
        assert server.memory() - before < 25 * MIB


def test_pushes_from_threads_are_bounded_too(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": MIB, "slow_consumer": "drop"}, kind="threaded")
    with server.peer(receive_buffer=4096):
        before = server.memory()
        queued, refused = server.ask("flood", "/echo", SIZE, COUNT)
        assert queued + refused == COUNT
        assert refused
        assert server.memory() - before < 2 * MIB + SLACK
        stats = server.ask("stats")
        assert stats["messages_dropped"] + stats["commands_dropped"] > 0


@pytest.mark.parametrize("policy", ["close", "drop"])
def test_pings_whose_pongs_are_never_read(start_server: StartServer, policy: str) -> None:
    server = start_server(settings={"send_queue_size": MIB, "slow_consumer": policy, "close_timeout": 30})
    with server.peer(receive_buffer=4096) as peer:
        before = server.memory()
        pings = frame(PING, b"x" * 125) * 1000
        for _ in range(300):
            peer.send(pings)
        assert server.memory() - before < MIB + SLACK
        while (got := peer.read_frame()).opcode == PONG:
            assert got.payload == b"x" * 125
            if policy == "drop" and not peer.can_be_read(0.1):
                # If more pongs arrive, this was too early: the answer may be dropped, and the loop sends it again.
                peer.send_text("hello")
        assert got.payload[:2] == {"close": (1013).to_bytes(2, "big"), "drop": b"he"}[policy]
        counter = {"close": "slow_consumers_closed", "drop": "messages_dropped"}[policy]
        assert server.ask("stats")[counter] > 0


def test_the_memory_of_a_drained_outbox_is_used_again(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": 16 * MIB, "slow_consumer": "drop"})

    def fill_and_drain() -> int:
        with server.peer(receive_buffer=4096) as peer:
            queued, refused = server.ask("flood", "/echo", SIZE, 600)
            assert refused
            for _ in range(queued):
                peer.read_frame()
        wait_until(lambda: server.ask("stats")["queued_bytes"] < SIZE, "nothing is queued")
        return server.memory()

    # Memory that the heap does not return to the system at once must be reused for the next messages.
    first = max(fill_and_drain() for _ in range(3))
    assert max(fill_and_drain() for _ in range(6)) - first < 16 * MIB


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_who_reads_a_page_slowly_is_not_cut_off(start_server: StartServer, connection: str) -> None:
    server = start_server(settings={"keep_alive_timeout": 0.8, "close_timeout": 0.8}, events=["request"])
    with Peer(server.port, receive_buffer=1 << 17) as peer:
        peer.send(f"GET /long HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode())
        received = 0
        # Far more than the kernel's buffers hold, in more time than both timeouts.
        while received < 20_000_000:
            time.sleep(0.015)
            data = peer.socket.recv(100_000)
            assert data
            received += len(data)


FILE_SIZE = 2 << 30


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for `StaticFiles` with a file of 2 GB, which takes no space."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "sparse").touch()
    os.truncate(tmp_path / "files" / "sparse", FILE_SIZE)
    return tmp_path


def test_a_file_of_2_gb_for_slow_readers_takes_little_memory(start_server: StartServer, directory: Path) -> None:
    server = start_server(events=["request"], directory=str(directory))
    before = server.memory()
    peers = [Peer(server.port, receive_buffer=4096) for _ in range(20)]
    for peer in peers:
        peer.send(b"GET /files/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for peer in peers:
        # This is far more than one read of the file, and than the kernel's buffers hold.
        head = peer.socket.recv(1)
        received = len(head)
        while received < 10 * MIB:
            received += len(peer.socket.recv(1 << 16))
    assert server.memory() - before < len(peers) * 256 * 1024 + 4 * MIB
    for peer in peers:
        peer.socket.close()


def test_who_takes_nothing_of_a_file_is_cut_off(start_server: StartServer, directory: Path) -> None:
    server = start_server(
        settings={"keep_alive_timeout": 0.5, "close_timeout": 0.5}, events=["request"], directory=str(directory)
    )
    descriptors = server.descriptors()
    with Peer(server.port, receive_buffer=4096) as peer:
        peer.send(b"GET /files/sparse HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.descriptors() == descriptors + 2, "the file is open")
        wait_until(lambda: server.descriptors() == descriptors, "socket and file are closed")
        with pytest.raises(ConnectionResetError):
            peer.read_end()
