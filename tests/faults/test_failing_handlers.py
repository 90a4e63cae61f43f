"""Handlers that raise: 1011 or 500 for that one connection, a line in the log, and the server continues."""

import pytest
from raw_peer import Peer, handshake
from server_process import StartServer, wait_until

KINDS = ["sync", "async", "threaded"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/raise", "/cancel"])
def test_a_message_handler_that_raises_closes_its_connection(start_server: StartServer, kind: str, path: str) -> None:
    server = start_server(kind=kind)
    server.raises = path == "/raise"
    with server.peer("/watch") as watch, server.peer(path) as peer, server.peer("/echo") as other:
        peer.send_text("hello")
        # Messages after the failure are no longer handled.
        peer.send_text("hello again")
        assert peer.read_close().code == 1011
        assert watch.can_be_read() is False
        peer.vanish()
        assert watch.read_json() == [path, 1006, "1011", False]
        other.send_text("hello")
        assert other.read_text() == "hello"
    assert server.log().count("the message handler") == 1


def test_an_open_handler_that_raises_closes_its_connection(start_server: StartServer) -> None:
    server = start_server()
    server.raises = True
    with server.peer("/watch") as watch, server.peer("/raise-in-open") as peer:
        peer.send_text("hello")
        assert peer.read_close().code == 1011
        peer.vanish()
        assert watch.read_json() == ["/raise-in-open", 1006, "1011", False]


def test_a_close_handler_that_raises_is_only_logged(start_server: StartServer) -> None:
    server = start_server()
    server.raises = True
    with server.peer("/watch") as watch:
        fds = []
        for _ in range(3):
            with server.peer("/raise-in-close"):
                fds.append(server.ask("fd", "/raise-in-close"))
            assert watch.read_json() == ["/raise-in-close", 1006, "", False]
        assert [server.ask("exists", fd) for fd in fds] == [False] * 3
    assert server.log().count("the close handler failed") == 3


def test_a_handshake_handler_that_raises_is_a_500(start_server: StartServer) -> None:
    server = start_server(events=["handshake"])
    server.raises = True
    with Peer(server.port) as peer:
        peer.send(handshake("/raise-in-handshake") + b"more" * 100_000)
        assert peer.read_answer().status == 500
        assert peer.read_end() == b""


def test_a_request_handler_that_raises_is_a_500_and_the_connection_goes_on(start_server: StartServer) -> None:
    server = start_server(events=["request"])
    server.raises = True
    with Peer(server.port) as peer:
        for _ in range(3):
            peer.send(b"GET /raise HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert peer.read_answer().status == 500


def test_a_timer_that_raises_is_only_logged(start_server: StartServer) -> None:
    server = start_server()
    server.raises = True
    assert server.ask("raise in timer") is None
    wait_until(lambda: "ZeroDivisionError" in server.log(), "the timer's failure is logged")
