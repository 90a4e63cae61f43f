"""Unfinished messages: the server waits for the rest as long as more of it arrives."""

import select
import time

import pytest
from raw_peer import CONTINUATION, PING, PONG, TEXT, frame
from server_process import StartServer


@pytest.mark.parametrize("begun", [frame(TEXT, b"begun", fin=False), frame(TEXT, b"begun")[:-1], frame(TEXT, b"x")[:1]])
def test_an_unfinished_message_is_not_waited_for_for_ever(start_server: StartServer, begun: bytes) -> None:
    server = start_server(settings={"message_timeout": 0.3})
    with server.peer() as peer, server.peer() as idle:
        peer.send(begun)
        assert peer.read_close() == (1008, "the message was not finished in time")
        idle.send_text("still here")
        assert idle.read_text() == "still here"


def test_pings_and_pongs_are_no_progress(start_server: StartServer) -> None:
    server = start_server(settings={"message_timeout": 0.5})
    with server.peer() as peer:
        peer.send(frame(TEXT, b"begun", fin=False))
        begin = time.monotonic()
        while not peer.can_be_read(0.05):
            peer.send(frame(PONG))
        assert peer.read_close().code == 1008
        assert time.monotonic() - begin >= 0.5
    with server.peer() as peer:
        peer.send(frame(TEXT, b"begun", fin=False))
        peer.send(frame(PING))
        while (got := peer.read_frame()).opcode == PONG:
            time.sleep(0.05)
            peer.send(frame(PING))
        assert got.payload[:2] == (1008).to_bytes(2, "big")


@pytest.mark.parametrize("whole", [frame(TEXT, b"whole"), frame(PING)])
def test_frames_that_are_cut_at_the_same_place_each_time_are_progress(start_server: StartServer, whole: bytes) -> None:
    server = start_server(settings={"message_timeout": 0.5})
    with server.peer() as peer:
        peer.send(whole[:1])
        begin = time.monotonic()
        while time.monotonic() - begin < 1.5:
            time.sleep(0.1)
            peer.send(whole[1:] + whole[:1])
            assert peer.read_frame().opcode in (TEXT, PONG)


def test_halves_of_pings_are_no_progress_of_a_message(start_server: StartServer) -> None:
    server = start_server(settings={"message_timeout": 0.5})
    ping = frame(PING, b"12345678")
    halves = ping[:7], ping[7:]
    with server.peer() as peer:
        peer.send(frame(TEXT, b"begun", fin=False))
        begin = time.monotonic()
        number = 0
        while not peer.can_be_read(0.1) or peer.read_frame().opcode == PONG:
            assert time.monotonic() - begin < 5
            peer.send(halves[number % 2])
            number += 1
        assert time.monotonic() - begin >= 0.5


def test_a_message_that_comes_slowly_is_waited_for(start_server: StartServer) -> None:
    server = start_server(settings={"message_timeout": 2})
    message = frame(TEXT, b"slow")
    with server.peer() as peer:
        for byte in message:
            time.sleep(0.4)
            peer.send(bytes([byte]))
        assert peer.read_text() == "slow"
        # Each message has a time limit of its own.
        select.select([peer.socket], [], [], 2.5)
        peer.send_text("next")
        assert peer.read_text() == "next"


def test_a_message_that_waits_for_its_handler_is_not_late(start_server: StartServer) -> None:
    server = start_server(settings={"message_timeout": 0.3, "receive_queue": 1}, kind="async")
    with server.peer("/held") as peer:
        for _ in range(10):
            peer.send_text("hello")
        peer.send(frame(TEXT, b"begun", fin=False))
        assert not peer.can_be_read(1)
        server.ask("release")
        peer.send(frame(CONTINUATION, b" and ended"))
        peer.send_text("how many?")
        assert peer.read_text() == "12"


def test_none_waits_for_ever(start_server: StartServer) -> None:
    server = start_server(settings={"message_timeout": None})
    with server.peer() as peer:
        peer.send(frame(TEXT, b"begun", fin=False))
        assert not peer.can_be_read(1)
        peer.send(frame(CONTINUATION, b" and ended"))
        assert peer.read_text() == "begun and ended"
