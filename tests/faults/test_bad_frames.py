"""Frames that break RFC 6455: the server sends the right close code, whatever else was sent, and continues."""

from collections.abc import Callable, Iterator

import pytest
from raw_peer import (
    BINARY,
    CLOSE,
    COMPRESSION,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    close_frame,
    deflated,
    frame,
)
from server_process import MIB, ServerProcess, serving

MAX_MESSAGE_SIZE = 64 * 1024

PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009

BAD_FRAMES = {
    "RSV1 without compression": (PROTOCOL_ERROR, frame(TEXT, b"hi", rsv=4)),
    "RSV2": (PROTOCOL_ERROR, frame(TEXT, b"hi", rsv=2)),
    "RSV3": (PROTOCOL_ERROR, frame(TEXT, b"hi", rsv=1)),
    "RSV1 on a ping": (PROTOCOL_ERROR, frame(PING, b"hi", rsv=4)),
    **{f"opcode {opcode}": (PROTOCOL_ERROR, frame(opcode, b"hi")) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "unmasked text": (PROTOCOL_ERROR, frame(TEXT, b"hi", masked=False)),
    "unmasked ping": (PROTOCOL_ERROR, frame(PING, masked=False)),
    "unmasked Close": (PROTOCOL_ERROR, frame(CLOSE, b"\x03\xe8", masked=False)),
    "2 bytes for a length of 125": (PROTOCOL_ERROR, frame(BINARY, b"x" * 125, length_bytes=2)),
    "8 bytes for a length of 125": (PROTOCOL_ERROR, frame(BINARY, b"x" * 125, length_bytes=8)),
    "8 bytes for a length of 65535": (PROTOCOL_ERROR, frame(BINARY, b"x" * 65535, length_bytes=8)),
    "a length of 2^63": (PROTOCOL_ERROR, frame(BINARY, claimed=1 << 63)),
    "a length of 2^64 - 1": (PROTOCOL_ERROR, frame(TEXT, claimed=(1 << 64) - 1)),
    "a length of 2^63 - 1": (TOO_BIG, frame(BINARY, claimed=(1 << 63) - 1)),
    "a length above the limit": (TOO_BIG, frame(BINARY, claimed=MAX_MESSAGE_SIZE + 1)),
    "fragments above the limit": (
        TOO_BIG,
        frame(BINARY, b"x" * MAX_MESSAGE_SIZE, fin=False) + frame(CONTINUATION, b"x"),
    ),
    "many fragments above the limit": (
        TOO_BIG,
        frame(BINARY, fin=False) + frame(CONTINUATION, b"x" * 999, fin=False) * 99,
    ),
    "a fragmented ping": (PROTOCOL_ERROR, frame(PING, b"hi", fin=False)),
    "a fragmented pong": (PROTOCOL_ERROR, frame(PONG, b"hi", fin=False)),
    "a fragmented Close": (PROTOCOL_ERROR, frame(CLOSE, b"\x03\xe8", fin=False)),
    "a ping of 126 bytes": (PROTOCOL_ERROR, frame(PING, b"x" * 126)),
    "a pong of 65536 bytes": (PROTOCOL_ERROR, frame(PONG, b"x" * 65536)),
    "a Close of 126 bytes": (PROTOCOL_ERROR, close_frame(1000, b"x" * 124)),
    "a continuation without a start": (PROTOCOL_ERROR, frame(CONTINUATION, b"hi")),
    "a last continuation after a whole message": (
        PROTOCOL_ERROR,
        frame(PONG) + frame(CONTINUATION, b"hi", fin=False),
    ),
    "text within text": (PROTOCOL_ERROR, frame(TEXT, b"one", fin=False) + frame(TEXT, b"two")),
    "binary within text": (PROTOCOL_ERROR, frame(TEXT, b"one", fin=False) + frame(BINARY, b"two", fin=False)),
    "a Close of 1 byte": (PROTOCOL_ERROR, frame(CLOSE, b"\x03")),
    **{
        f"a Close with {code}": (PROTOCOL_ERROR, close_frame(code))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65535)
    },
    "a Close whose reason is not UTF-8": (INVALID_DATA, close_frame(1000, b"\xce\xba\xff")),
    "a Close whose reason breaks off": (INVALID_DATA, close_frame(1000, b"\xce")),
    "text that is not UTF-8": (INVALID_DATA, frame(TEXT, b"ab\xff")),
    "text with a surrogate": (INVALID_DATA, frame(TEXT, b"\xed\xa0\x80")),
    "overlong text": (INVALID_DATA, frame(TEXT, b"\xc0\xaf")),
    "text beyond Unicode": (INVALID_DATA, frame(TEXT, b"\xf4\x90\x80\x80")),
    "text that breaks off": (INVALID_DATA, frame(TEXT, b"\xf0\x9f\x98")),
    "a character whose second fragment is wrong": (
        INVALID_DATA,
        frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x28\x80"),
    ),
    "fragments that break off": (
        INVALID_DATA,
        frame(TEXT, b"\xf0\x9f", fin=False) + frame(PING) + frame(CONTINUATION, b"\x98"),
    ),
    "wrong text in a frame that never ends": (INVALID_DATA, frame(TEXT, b"ab\xff", claimed=5000)),
}

BAD_COMPRESSED_FRAMES = {
    "no deflate data": (INVALID_DATA, frame(TEXT, b"\xff\xff\xff\xff", rsv=4)),
    "deflate data that breaks off": (INVALID_DATA, frame(TEXT, deflated(bytes(range(256)))[:-20], rsv=4)),
    "inflated text that is not UTF-8": (INVALID_DATA, frame(TEXT, deflated(b"ab\xff"), rsv=4)),
    "RSV1 on a continuation": (
        PROTOCOL_ERROR,
        frame(TEXT, deflated(b"hi"), rsv=4, fin=False) + frame(CONTINUATION, b"hi", rsv=4),
    ),
    "RSV1 on a Close": (PROTOCOL_ERROR, frame(CLOSE, b"\x03\xe8", rsv=4)),
    "a bomb": (TOO_BIG, frame(BINARY, deflated(bytes(40 * MIB)), rsv=4)),
    "a bomb of one byte too much": (TOO_BIG, frame(BINARY, deflated(bytes(MAX_MESSAGE_SIZE + 1)), rsv=4)),
}

CASES = [
    *(pytest.param(code, data, {}, id=name) for name, (code, data) in BAD_FRAMES.items()),
    *(
        pytest.param(code, data, {"Sec-WebSocket-Extensions": COMPRESSION}, id=name)
        for name, (code, data) in BAD_COMPRESSED_FRAMES.items()
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all cases."""
    settings = {"compression": True, "max_message_size": MAX_MESSAGE_SIZE}
    with serving(tmp_path_factory.mktemp("server") / "log", settings=settings) as server:
        yield server


def send_whole(peer: Peer, data: bytes) -> None:
    peer.send(data)


def send_in_pieces(peer: Peer, data: bytes) -> None:
    """Send the beginning, with headers and short payloads, in segments of one byte."""
    for index in range(len(data[:200])):
        peer.send(data[index : index + 1])
    peer.send(data[200:])


def send_with_more(peer: Peer, data: bytes) -> None:
    """Send the data, followed by far more than the server will have read when it answers."""
    peer.send(data + frame(TEXT, b"more" * 1000) * 250)


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("send", [send_whole, send_in_pieces, send_with_more])
@pytest.mark.parametrize(("code", "data", "headers"), CASES)
def test_a_bad_frame_is_told_its_close_code(
    server: ServerProcess,
    code: int,
    data: bytes,
    headers: dict[str, str],
    send: Callable[[Peer, bytes], None],
) -> None:
    with server.peer("/watch") as watch, server.peer("/echo", headers=headers) as peer:
        send(peer, frame(TEXT, b"before") + data)
        assert peer.read_text() == "before"
        while (received := peer.read_frame()).opcode == PONG:
            pass
        assert (received.opcode, int.from_bytes(received.payload[:2], "big")) == (CLOSE, code)
        # RFC 6455 §7.1.7: the server must not go on to process data from a connection that it fails.
        assert peer.read_end() == b""
        assert watch.read_json() == ["/echo", 1006, str(code), False]


def test_a_compression_bomb_is_never_whole_in_memory(server: ServerProcess) -> None:
    before = server.memory()
    bomb = frame(BINARY, deflated(bytes(60 * MIB)), rsv=4)
    for _ in range(4):
        with server.peer("/echo", headers={"Sec-WebSocket-Extensions": COMPRESSION}) as peer:
            peer.send(bomb)
            assert peer.read_close().code == TOO_BIG
    assert server.memory() - before < 10 * MIB


def test_a_claimed_length_costs_no_memory(server: ServerProcess) -> None:
    before = server.memory()
    peers = [server.peer() for _ in range(100)]
    for peer in peers:
        peer.send(frame(BINARY, b"only this", claimed=MAX_MESSAGE_SIZE))
    # The server answers this once it has read all of them.
    server.ask("stats")
    assert server.memory() - before < 100 * MAX_MESSAGE_SIZE / 4
    for peer in peers:
        peer.socket.close()


@pytest.mark.usefixtures("bystander")
def test_what_follows_a_close_does_not_cost_the_answer(server: ServerProcess) -> None:
    with server.peer() as peer:
        peer.send(close_frame(1000) + frame(TEXT, b"too late") * 1000)
        assert peer.read_close().code == 1000
