"""Pushes that wait for the end of an unfinished message: accepted ones arrive, and only so many are accepted."""

from raw_peer import BINARY, CONTINUATION, TEXT
from server_process import MIB, StartServer

BEGUN = (TEXT, b"begun", False)
ENDED = (CONTINUATION, b" and ended", True)

SIZE = 64 * 1024


def test_every_push_that_was_promised_arrives_after_the_end(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": MIB, "slow_consumer": "drop"})
    with server.peer(receive_buffer=4096) as peer:
        # Fill the kernel's buffers first, so that only the outbox decides how much there is room for.
        before = 0
        while server.ask("stats")["queued_bytes"] < SIZE:
            before += server.ask("flood", "/echo", SIZE, 1)[0]
        assert server.ask("begin message", "/echo") is True
        queued, refused = server.ask("flood", "/echo", 10, 200_000)
        assert queued > 0
        assert refused > 0
        # Until the peer reads, there may be no room for the end of the message either.
        for _ in range(before):
            assert peer.read_frame() == (BINARY, b"x" * SIZE, True)
        assert peer.read_frame() == BEGUN
        assert server.ask("end message", "/echo") is True
        assert peer.read_frame() == ENDED
        for _ in range(queued):
            assert peer.read_frame() == (BINARY, b"x" * 10, True)
        peer.send_text("hello")
        assert peer.read_text() == "hello"


def test_empty_pushes_that_wait_are_bounded_too(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": MIB, "slow_consumer": "drop"})
    with server.peer():
        before = server.memory()
        assert server.ask("begin message", "/echo") is True
        queued, refused = server.ask("flood", "/echo", 0, MIB)
        assert queued > 0
        assert refused > 0
        assert server.memory() - before < 8 * MIB
