"""A flood on one connection: others' messages pass, none of its own is lost, memory stays bounded."""

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR

import pytest
from raw_peer import BINARY, CONTINUATION, PATIENCE, PING, TEXT, frame
from server_process import MIB, Bystander, ServerProcess, StartServer
from websockets.sync.client import connect

# Frames that never become a message: no handler is called, and no limit on a message's size applies.
EMPTY_FRAMES = {
    "pings": (b"", frame(PING)),
    "continuation frames": (frame(TEXT, fin=False), frame(CONTINUATION, fin=False)),
}
FLOODS = [pytest.param(first, then, id=name) for name, (first, then) in EMPTY_FRAMES.items()]


@contextmanager
def flooding(server: ServerProcess, first: bytes, then: bytes) -> Iterator[None]:
    """Send `first`, then `then` without end, and read all answers, until the connection or the block ends."""

    batch = then * 40_000

    def flood() -> None:
        with suppress(OSError):
            peer.send(first)
            while True:
                peer.send(batch)

    def read() -> None:
        with suppress(OSError):
            peer.read_end()

    with server.peer("/count") as peer:
        threads = [threading.Thread(target=flood), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            with suppress(OSError):
                peer.socket.shutdown(SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize(("first", "then"), FLOODS)
def test_timers_and_others_go_on_during_a_flood_of_empty_frames(
    start_server: StartServer, first: bytes, then: bytes
) -> None:
    server = start_server()
    with flooding(server, first, then), Bystander(server) as bystander, server.peer() as other:
        for number in range(50):
            bystander.check()
            other.send_text(str(number))
            assert other.read_text() == str(number)


@pytest.mark.parametrize(("first", "then"), FLOODS)
def test_a_server_stops_during_a_flood_of_empty_frames(tmp_path: Path, first: bytes, then: bytes) -> None:
    server = ServerProcess(tmp_path / "log", settings={"close_timeout": 0.2})
    try:
        with flooding(server, first, then):
            server.ask("stats")
            server.stop()
    finally:
        server.kill()


def test_timers_go_on_while_a_thread_broadcasts_without_end(start_server: StartServer) -> None:
    server = start_server(settings={"send_queue_size": 64 * 1024, "slow_consumer": "drop"})
    peers = [server.peer() for _ in range(200)]
    with Bystander(server) as bystander:
        server.ask("broadcast from thread")
        for _ in range(10):
            bystander.check()
        assert server.ask("threads at work") == 1
        server.ask("enough")
    assert peers[0].read_frame() == (BINARY, b"x", True)
    for peer in peers:
        peer.socket.close()


@pytest.mark.parametrize("kind", ["sync", "async", "threaded"])
def test_others_are_served_during_a_flood(start_server: StartServer, kind: str) -> None:
    server = start_server(kind=kind)
    batch = frame(TEXT, b"x" * 50) * 500
    batches = 0
    enough = threading.Event()

    def flood() -> None:
        nonlocal batches
        while not enough.is_set():
            flooder.send(batch)
            batches += 1

    with server.peer("/count") as flooder, connect(f"ws://127.0.0.1:{server.port}/echo") as other:
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for number in range(50):
                other.send(str(number))
                assert other.recv(PATIENCE) == str(number)
        finally:
            enough.set()
            thread.join()
        flooder.send_text("how many?")
        assert flooder.read_text() == str(batches * 500 + 1)


def test_a_flood_for_a_handler_that_lags_is_not_read(start_server: StartServer) -> None:
    server = start_server(kind="async")
    message = frame(BINARY, b"x" * 1000)
    with server.peer("/held") as peer:
        before = server.memory()
        most = 100 * MIB // len(message)
        sent = 0
        batch = message * 64
        peer.socket.setblocking(False)
        unsent = b""
        # The server must stop reading long before that: the kernel and the queue take far less.
        while sent < most and select.select([], [peer.socket], [], 1)[1]:
            unsent = unsent or batch
            count = peer.socket.send(unsent)
            unsent = unsent[count:]
            sent += 64 * (not unsent)
        assert sent < most
        assert server.memory() - before < 4 * MIB
        server.ask("release")
        peer.socket.settimeout(30)
        peer.send(unsent)
        sent += 64 * bool(unsent)
        peer.send_text("how many?")
        assert peer.read_text() == str(sent + 1)
