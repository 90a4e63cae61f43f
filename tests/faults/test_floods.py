"""A flood on one connection: others' messages pass, none of its own is lost, memory stays bounded."""

import select
import threading

import pytest
from conftest import StartServer
from raw_peer import BINARY, PATIENCE, TEXT, frame
from server_process import MIB
from websockets.sync.client import connect


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
        # It cannot be read for ever: what the kernel and the queue take is far less.
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
