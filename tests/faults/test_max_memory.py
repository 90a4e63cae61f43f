"""Many clients that hold memory together: the largest holders are closed, the others do not notice."""

import contextlib
import select
from collections.abc import Iterator, Sequence

from raw_peer import BINARY, CLOSE, CONTINUATION, TEXT, Peer, frame
from server_process import MIB, ServerProcess, StartServer, wait_until

LIMIT = 8 * MIB
# The memory that Python itself takes, and that the allocator keeps.
SLACK = 12 * MIB
CLIENTS = 40
PART = 900_000


@contextlib.contextmanager
def many(peers: Sequence[Peer]) -> Iterator[Sequence[Peer]]:
    """Close them in the end."""
    try:
        yield peers
    finally:
        for peer in peers:
            peer.socket.close()


def held(server: ServerProcess) -> int:
    """Return how much memory connections hold according to the server; it must never exceed the limit."""
    held = int(server.ask("stats")["held_bytes"])
    assert held <= LIMIT
    return held


def test_the_largest_unfinished_messages_are_closed(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT})
    before = server.memory()
    begun = frame(BINARY, b"x" * PART, fin=False)
    with many([server.peer() for _ in range(CLIENTS)]) as large, server.peer() as small, server.peer() as healthy:
        small.send(frame(TEXT, b"begun", fin=False))
        for peer in large:
            peer.send(begun)
            healthy.send_text("hello")
            assert healthy.read_text() == "hello"
            held(server)
        wait_until(lambda: server.ask("stats")["memory_closed"] >= CLIENTS - LIMIT // PART, "the largest are closed")
        assert server.memory() - before < LIMIT + SLACK
        closed = [peer for peer in large if peer.can_be_read()]
        for peer in closed:
            assert peer.read_close() == (
                1009,
                "the server is short of memory, and too much input from this client is waiting",
            )
        assert len(closed) == server.ask("stats")["memory_closed"]
        assert 0 < CLIENTS - len(closed) <= LIMIT // PART
        for peer in [*(peer for peer in large if peer not in closed), small]:
            peer.send(frame(CONTINUATION, b" and ended"))
        assert small.read_text() == "begun and ended"
    wait_until(lambda: held(server) == 0, "all is freed")
    assert "connections held more than max_memory (8388608 bytes): closed" in server.log()


def test_messages_that_wait_for_a_handler_count_too(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT}, kind="async")
    before = server.memory()
    message = frame(BINARY, b"x" * (PART // 4))
    with many([server.peer("/held") for _ in range(CLIENTS)]) as peers:
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                for _ in range(5):
                    peer.send(message)
            held(server)
        wait_until(lambda: server.ask("stats")["memory_closed"] >= CLIENTS - LIMIT // PART, "the largest are closed")
        assert server.memory() - before < LIMIT + CLIENTS * PART // 4 + SLACK
        server.ask("release")


def test_the_largest_unfinished_bodies_are_refused(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT}, events=["request"])
    before = server.memory()
    with many([Peer(server.port) for _ in range(CLIENTS)]) as large, Peer(server.port) as small:
        small.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nbegun")
        for peer in large:
            peer.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x" * PART)
            held(server)
        wait_until(lambda: server.ask("stats")["memory_closed"] >= CLIENTS - LIMIT // PART, "the largest are refused")
        assert server.memory() - before < LIMIT + SLACK
        refused = [peer for peer in large if peer.can_be_read()]
        for peer in refused:
            answer = peer.read_answer()
            assert (answer.status, answer.headers["retry-after"]) == (413, "5")
        assert 0 < CLIENTS - len(refused) <= LIMIT // PART
        small.send(b"ended")
        assert small.read_answer().body == b"begunended"


def test_the_slowest_readers_are_closed(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT, "close_timeout": 0.5})
    before = server.memory()
    with (
        many([server.peer("/reader", receive_buffer=4096) for _ in range(CLIENTS)]) as readers,
        server.peer("/reader") as healthy,
    ):
        descriptors = server.descriptors()
        # Each connection could hold 4 MiB, so all of them 160 MiB.
        for _ in range(300):
            server.ask("broadcast", "/reader", 500, 50)
            for _ in range(50):
                assert healthy.read_frame() == (BINARY, b"x" * 500, True)
            held(server)
            assert server.memory() - before < LIMIT + SLACK
        closed = server.ask("stats")["memory_closed"]
        assert closed >= CLIENTS // 2
        # The clients read nothing, and so never answer the Close frame.
        wait_until(lambda: server.descriptors() <= descriptors - closed, "their sockets are closed")
        poll = select.poll()
        for reader in readers:
            poll.register(reader.socket, 0)
        assert sum(bool(event & select.POLLHUP) for _, event in poll.poll(0)) >= closed
    wait_until(lambda: held(server) == 0, "all is freed")


def test_what_many_outboxes_share_counts_once(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT, "send_queue_size": 2 * LIMIT})
    before = server.memory()
    with many([server.peer("/reader", receive_buffer=4096) for _ in range(CLIENTS)]) as readers:
        server.ask("broadcast", "/reader", 5_000, 1_200)
        stats = server.ask("stats")
        assert stats["queued_bytes"] > 4 * LIMIT
        assert held(server) > 0
        assert stats["memory_closed"] == 0
        assert server.memory() - before < LIMIT + SLACK
        for _ in range(1_200):
            assert readers[0].read_frame() == (BINARY, b"x" * 5_000, True)
        assert held(server) > 0
    wait_until(lambda: held(server) == 0, "all is freed")


def test_one_handler_that_pushes_without_end_cannot_pass_the_limit(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT, "close_timeout": 30})
    before = server.memory()
    with many([server.peer("/reader", receive_buffer=4096) for _ in range(CLIENTS)]) as readers:
        server.ask("broadcast", "/reader", 500, 20_000)
        assert server.memory() - before < LIMIT + SLACK
        held(server)
        # The clients get the frames that were sent before, the rest of the current frame, and the Close frame.
        for reader in readers:
            while (got := reader.read_frame()).opcode != CLOSE:
                assert got == (BINARY, b"x" * 500, True)
            assert got.payload[:2] == (1013).to_bytes(2, "big")


def test_answers_that_are_not_read_are_cut_off(start_server: StartServer) -> None:
    server = start_server(settings={"max_memory": LIMIT}, events=["request"])
    with many([Peer(server.port, receive_buffer=4096) for _ in range(CLIENTS)]) as peers:
        for peer in peers:
            peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            held(server)
        wait_until(lambda: server.ask("stats")["memory_closed"] > 0, "some are cut off")


def test_memory_goes_back_to_the_system_when_slow_readers_have_gone(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": 16 * MIB})
    before = server.memory()
    with many([server.peer("/reader", receive_buffer=4096) for _ in range(CLIENTS)]):
        # The buffers of one connection lie between those of others in memory.
        server.ask("push to all", "/reader", 4000, 2_000)
        assert server.memory() - before > 4 * SLACK
    wait_until(lambda: server.memory() - before < SLACK, "the memory is given back")
