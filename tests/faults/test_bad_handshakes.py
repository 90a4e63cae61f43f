"""Handshakes that break RFC 6455 §4.2.1 or RFC 9112: the server answers with the right status, and continues."""

from collections.abc import Callable, Iterator, Mapping
from socket import SHUT_WR

import pytest
from raw_peer import Peer, handshake
from server_process import MIB, ServerProcess, StartServer, serving, wait_until

MAX_HEADER_SIZE = 4096

GOOD = handshake()
BLOCK = b"GET / HTTP/1.1\r\nHost: localhost\r\n"

BAD_HANDSHAKES: dict[str, tuple[int, bytes]] = {
    "POST": (405, handshake(line="POST /echo HTTP/1.1")),
    "HEAD": (405, handshake(line="HEAD /echo HTTP/1.1")),
    "an unknown method": (405, handshake(line="DANCE /echo HTTP/1.1")),
    "HTTP/1.0": (400, handshake(line="GET /echo HTTP/1.0")),
    "HTTP/2.0": (505, handshake(line="GET /echo HTTP/2.0")),
    "HTTP/0.9": (400, b"GET /echo\r\n\r\n"),
    "no target": (400, handshake(line="GET HTTP/1.1")),
    "a target without a slash": (400, handshake(line="GET echo HTTP/1.1")),
    "a target with a space": (400, handshake(line="GET /ec ho HTTP/1.1")),
    "no key": (400, handshake(headers={"Sec-WebSocket-Key": None})),
    "an empty key": (400, handshake(headers={"Sec-WebSocket-Key": ""})),
    "a key of 15 bytes": (400, handshake(headers={"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"})),
    "a key that is not base64": (400, handshake(headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j*Q=="})),
    "two keys": (400, GOOD[:-2] + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
    "version 8": (426, handshake(headers={"Sec-WebSocket-Version": "8"})),
    "version 14": (426, handshake(headers={"Sec-WebSocket-Version": "14"})),
    "no version": (426, handshake(headers={"Sec-WebSocket-Version": None})),
    "no Upgrade": (400, handshake(headers={"Upgrade": None})),
    "another Upgrade": (400, handshake(headers={"Upgrade": "h2c"})),
    "Upgrade that only contains the word": (400, handshake(headers={"Upgrade": "xwebsocket"})),
    "no Connection": (400, handshake(headers={"Connection": None})),
    "Connection without upgrade": (400, handshake(headers={"Connection": "keep-alive"})),
    "a body": (400, handshake(headers={"Content-Length": "5"})),
    "a chunked body": (400, handshake(headers={"Transfer-Encoding": "chunked"})),
    "no Host": (400, handshake(headers={"Host": None})),
    "two Hosts": (400, GOOD[:-2] + b"Host: localhost\r\n\r\n"),
    "a Host that is none": (400, handshake(headers={"Host": "a b"})),
    "a bad subprotocol": (400, handshake(headers={"Sec-WebSocket-Protocol": "chat;"})),
    "a subprotocol is offered twice": (400, handshake(headers={"Sec-WebSocket-Protocol": "chat, chat"})),
    "bad extensions": (400, handshake(headers={"Sec-WebSocket-Extensions": "permessage-deflate; ="})),
    "a foreign origin": (403, handshake(headers={"Origin": "https://evil.example.com"})),
    "LF alone everywhere": (400, GOOD.replace(b"\r\n", b"\n")),
    "LF alone in one place": (400, GOOD.replace(b"\r\n", b"\n", 1)),
    "LF alone at the end": (400, GOOD[:-2] + b"\n"),
    "CR alone": (400, GOOD.replace(b"Upgrade: ", b"X: a\rUpgrade: ", 1)),
    "an empty line before": (400, b"\r\n" + GOOD),
    "a folded header": (400, GOOD[:-2] + b"X: a\r\n b\r\n\r\n"),
    "a first header that is folded": (400, GOOD.replace(b"\r\nHost", b"\r\n Host", 1)),
    "space before a colon": (400, GOOD[:-2] + b"X : a\r\n\r\n"),
    "no colon": (400, GOOD[:-2] + b"X\r\n\r\n"),
    "no name": (400, GOOD[:-2] + b": a\r\n\r\n"),
    "NUL in a name": (400, GOOD[:-2] + b"X\0: a\r\n\r\n"),
    "NUL in a value": (400, GOOD[:-2] + b"X: a\0b\r\n\r\n"),
    "NUL in the target": (400, GOOD.replace(b"/echo", b"/ec\0ho")),
    "more than max_header_size": (431, GOOD[:-2] + b"X: " + b"a" * MAX_HEADER_SIZE + b"\r\n\r\n"),
    "more than max_header_size in the first line": (431, handshake("/" + "a" * MAX_HEADER_SIZE)),
    "a line that never ends": (431, b"G" * (MAX_HEADER_SIZE + 1)),
    "more than 128 headers": (431, GOOD[:-2] + b"X: a\r\n" * 124 + b"\r\n"),
    "HTTP/2 at once": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "another protocol": (400, b"EHLO localhost\r\n\r\n"),
}

# The headers that must accompany a status.
HEADERS: Mapping[int, Mapping[str, str]] = {
    405: {"allow": "GET"},
    426: {"sec-websocket-version": "13", "upgrade": "websocket"},
}

CASES = [pytest.param(status, head, id=name) for name, (status, head) in BAD_HANDSHAKES.items()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all cases."""
    settings = {"max_header_size": MAX_HEADER_SIZE}
    with serving(tmp_path_factory.mktemp("server") / "log", settings=settings) as server:
        yield server


def send_whole(peer: Peer, head: bytes) -> None:
    peer.send(head)


def send_in_pieces(peer: Peer, head: bytes) -> None:
    """Send the end, where the server detects that the head is complete, in segments of one byte."""
    peer.send(head[:-100])
    for byte in head[-100:]:
        peer.send(bytes([byte]))


def send_with_more(peer: Peer, head: bytes) -> None:
    """Followed by much more than the server will have read when it answers."""
    peer.send(head + b"more" * MIB)


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("send", [send_whole, send_in_pieces, send_with_more])
@pytest.mark.parametrize(("status", "head"), CASES)
def test_a_bad_handshake_is_told_its_status(
    server: ServerProcess, status: int, head: bytes, send: Callable[[Peer, bytes], None]
) -> None:
    refused = server.ask("stats")["refused"]
    with Peer(server.port) as peer:
        send(peer, head)
        has_body = not head.startswith(b"HEAD ")
        answer = peer.read_answer(has_body=has_body)
        assert answer.status == status
        assert answer.headers.items() >= HEADERS.get(status, {}).items()
        assert answer.body.decode()[-1:] == ("\n" if has_body else "")
        assert peer.read_end() == b""
    assert server.ask("stats")["refused"] == refused + 1


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("send", [send_whole, send_in_pieces, send_with_more])
def test_tls_is_told_by_an_alert_that_there_is_none(server: ServerProcess, send: Callable[[Peer, bytes], None]) -> None:
    refused = server.ask("stats")["refused"]
    with Peer(server.port) as peer:
        send(peer, bytes.fromhex("16030100c8010000c40303") + bytes(100))
        # A fatal one: handshake_failure (RFC 8446 §6).
        assert peer.read_end() == bytes.fromhex("15030100020228")
    assert server.ask("stats")["refused"] == refused + 1


@pytest.mark.usefixtures("bystander")
def test_a_head_without_an_end_is_refused_while_it_still_comes(server: ServerProcess) -> None:
    with Peer(server.port) as peer:
        peer.send(BLOCK + b"X: a\r\n" * MIB)
        assert peer.read_answer().status == 431
        assert peer.read_end() == b""


@pytest.mark.usefixtures("bystander")
def test_a_client_that_has_closed_its_end_still_reads_the_refusal(server: ServerProcess) -> None:
    with Peer(server.port) as peer:
        peer.send(handshake(headers={"Sec-WebSocket-Version": "8"}))
        peer.socket.shutdown(SHUT_WR)
        assert peer.read_answer().status == 426
        assert peer.read_end() == b""


def test_a_request_that_drips_is_cut_off_after_handshake_timeout(start_server: StartServer) -> None:
    server = start_server(settings={"handshake_timeout": 0.5})
    with Peer(server.port) as peer:
        peer.send(BLOCK)
        while not peer.can_be_read(seconds=0.02):
            peer.send(b"x")
        assert peer.read_answer().status == 408
        assert peer.read_end() == b""


def test_a_second_request_that_drips_is_cut_off_too(start_server: StartServer) -> None:
    server = start_server(settings={"handshake_timeout": 0.5})
    with Peer(server.port) as peer:
        peer.send(BLOCK.replace(b"/ ", b"/health ") + b"\r\n")
        assert peer.read_answer().body == b"ok"
        peer.send(BLOCK)
        while not peer.can_be_read(seconds=0.02):
            peer.send(b"x")
        assert peer.read_answer().status == 408
        assert peer.read_end() == b""


def test_a_client_that_says_nothing_is_cut_off_without_an_answer(start_server: StartServer) -> None:
    server = start_server(settings={"handshake_timeout": 0.2})
    with Peer(server.port) as peer:
        assert peer.read_end() == b""


def test_a_refused_client_that_does_not_close_is_cut_off(start_server: StartServer) -> None:
    server = start_server(settings={"close_timeout": 0.2})
    idle = server.descriptors()
    with Peer(server.port) as peer:
        peer.send(BLOCK.replace(b"Host", b"H ost") + b"\r\n")
        assert peer.read_answer().status == 400
        wait_until(lambda: server.descriptors() == idle, "the server lets go of the socket")


def test_requests_whose_answers_are_never_read_cost_little_memory(start_server: StartServer) -> None:
    """Answers are far longer than requests, and with pipelining a client may send any number of requests."""
    server = start_server(settings={"send_queue_size": MIB}, events=["request"])
    before = server.memory()
    with Peer(server.port, receive_buffer=4096) as peer:
        peer.socket.setblocking(False)
        try:
            for _ in range(1000):
                peer.send(BLOCK + b"\r\n")
        except BlockingIOError:
            pass
        # Answered when the server has gone through what it would read.
        for _ in range(50):
            server.ask("stats")
        assert server.memory() - before < 20 * MIB
