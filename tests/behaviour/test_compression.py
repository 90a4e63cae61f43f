"""permessage-deflate (RFC 7692)."""

import zlib
from typing import Any

import pytest
from application import Note
from running import Running, Serve
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from hubbub import Frame, Opcode, Server

NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def echo(server: Server, note: Note) -> None:
    server.on("open", lambda server, request: note(request.fd))
    server.on("message", lambda server, frame: server.push(frame.fd, frame.data))


def inflate(payload: bytes, window_bits: int = 15) -> bytes:
    """Return the text of a compressed message (RFC 7692 §7.2.2)."""
    return zlib.decompressobj(wbits=-window_bits).decompress(payload + b"\x00\x00\xff\xff")


async def test_it_is_off_unless_asked_for(serve: Serve) -> None:
    running = await serve(echo)
    async with running.connect(compression="deflate") as client:
        assert client.protocol.extensions == []
        await client.send("x" * 5000)
        assert await client.recv() == "x" * 5000


@pytest.mark.parametrize("takeover", [True, False])
async def test_messages_go_compressed_both_ways(serve: Serve, takeover: bool, subtests: pytest.Subtests) -> None:
    running = await serve(echo, compression=True)
    for window_bits in (None, 9, 12, 15):
        factory = ClientPerMessageDeflateFactory(
            server_max_window_bits=window_bits,
            client_max_window_bits=window_bits or True,
            server_no_context_takeover=not takeover,
            client_no_context_takeover=not takeover,
        )
        with subtests.test(window_bits=window_bits):
            async with running.connect(extensions=[factory]) as client:
                assert len(client.protocol.extensions) == 1
                for message in ("x" * 5000, b"y" * 200_000, "short", "", "x" * 5000):
                    await client.send(message)
                    assert await client.recv() == message


async def test_what_is_agreed(serve: Serve, subtests: pytest.Subtests) -> None:
    running = await serve(echo, compression=True)
    for offer, answer in (
        ("permessage-deflate", NO_TAKEOVER),
        ("permessage-deflate; client_max_window_bits", NO_TAKEOVER),
        ("permessage-deflate; server_max_window_bits=10", NO_TAKEOVER + "; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", NO_TAKEOVER),
        ("x-webkit-deflate-frame", None),
    ):
        with subtests.test(offer=offer):
            async with running.raw() as client:
                agreed = (await client.upgrade(f"Sec-WebSocket-Extensions: {offer}")).headers
                assert parameters(agreed.get("sec-websocket-extensions")) == parameters(answer)


def parameters(extension: str | None) -> set[str]:
    return set((extension or "").split("; "))


async def test_only_messages_from_the_threshold_on_are_compressed(serve: Serve) -> None:
    running = await serve(echo, compression=True, compression_threshold=100)
    async with running.raw() as client:
        await client.upgrade("Sec-WebSocket-Extensions: permessage-deflate")
        (fd,) = await running.noted()
        await running.server.push(fd, "x" * 99)
        assert await client.frame() == (Opcode.TEXT, b"x" * 99, True, False)
        await running.server.push(fd, "x" * 100)
        frame = await client.frame()
        assert frame.rsv1
        assert inflate(frame.payload) == b"x" * 100
        assert len(frame.payload) < 20


async def test_each_message_can_be_inflated_alone(serve: Serve) -> None:
    running = await serve(echo, compression=True)
    async with running.raw() as client:
        await client.upgrade("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9")
        (fd,) = await running.noted()
        message = bytes(range(100)) * 100
        for _ in range(3):
            await running.server.push(fd, message)
            assert inflate((await client.frame()).payload, window_bits=9) == message


async def test_what_does_not_shrink_goes_as_it_is(serve: Serve) -> None:
    running = await serve(echo, compression=True, compression_threshold=0)
    async with running.raw() as client:
        await client.upgrade("Sec-WebSocket-Extensions: permessage-deflate")
        (fd,) = await running.noted()
        for message in (b"", b"a"):
            await running.server.push(fd, message)
            assert await client.frame() == (Opcode.BINARY, message, True, False)


@pytest.mark.parametrize("send", ["publish", "broadcast"])
async def test_a_message_for_many_suits_each_of_them(serve: Serve, send: str) -> None:
    running = await serve(echo, compression=True)
    offers: list[dict[str, Any]] = [
        {"compression": None},
        {"compression": "deflate"},
        {"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=9)]},
        {"extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=12)]},
        {"compression": None},
    ]
    message = "".join(str(number) for number in range(5000))
    clients = [await running.connect(**offer) for offer in offers]
    for _ in clients:
        await running.server.subscribe(await running.opened(), "news")
    await send_all(running, send, message)
    await send_all(running, send, "short")
    for client in clients:
        assert await client.recv() == message
        assert await client.recv() == "short"
        await client.close()


async def send_all(running: Running, how: str, message: str) -> None:
    if how == "publish":
        await running.server.publish("news", message)
    else:
        await running.server.broadcast(message)


async def test_inflating_stops_at_max_message_size(serve: Serve) -> None:
    def application(server: Server, note: Note) -> None:
        @server.on("message")
        def on_message(server: Server, frame: Frame) -> None:
            note("message", len(frame.data))

        server.on("close", lambda server, fd, code, reason: note("close", code, reason))

    running = await serve(application, compression=True, max_message_size=10_000)
    async with running.connect(compression="deflate") as client:
        await client.send(b"x" * 10_000)
        assert await running.noted() == ("message", 10_000)
        await client.send(b"x" * 10_001)
        await client.wait_closed()
        assert client.close_code == 1009
    assert await running.noted() == ("close", 1006, "1009")


async def test_nonsense_that_claims_to_be_compressed_is_1007(serve: Serve) -> None:
    running = await serve(echo, compression=True)
    async with running.raw() as client:
        await client.upgrade("Sec-WebSocket-Extensions: permessage-deflate")
        client.send(b"\xc2\x85\x00\x00\x00\x00\xff\xff\xff\xff\xff")
        assert (await client.close_frame())[0] == 1007
