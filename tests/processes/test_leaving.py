"""Unfinished work in a worker that is replaced: its clients are answered as if it stayed."""

import asyncio
import os
import signal
import ssl
import textwrap
from pathlib import Path

import pytest
import trustme
from launched import LIFE, Launch, Launched
from websockets.asyncio.client import connect

# A file releases the handler, because a stopping worker no longer runs timers.
HESITATING = """
async def until_told():
    tell("begins")
    while not os.path.exists("goes-on"):
        await asyncio.sleep(0.01)

@server.on("handshake")
async def on_handshake(server, request):
    if request.path == "/slow":
        await until_told()

@server.on("request")
async def on_request(server, request):
    if request.path == "/slow":
        await until_told()
    if request.path == "/long":
        return bytes(20_000_000)
    return f"{os.getpid()} {len(request.body)}"
"""


async def leaves(launched: Launched, number: signal.Signals) -> int:
    """Replace worker 0; wait until the new one is there, and the old one has begun to leave."""
    (pid,) = launched.workers().values()
    if number == signal.SIGHUP:
        async with launched.connect() as client:
            launched.process.send_signal(number)
            # Connections without an unanswered request are closed first.
            await client.wait_closed()
    else:
        os.kill(pid, number)
        await launched.told.wait_for("worker_start 0")
    # No event shows that the worker refuses nothing, so give a wrong refusal time to happen.
    await asyncio.sleep(0.2)
    return pid


async def answer(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Return the head and the body of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.splitlines() if line.startswith("Content-Length: "))
    return head, (await reader.readexactly(int(length.split()[1]))).decode()


async def close_code(address: str) -> int | None:
    """Connect, and return the code with which the server closes the connection."""
    async with connect(address, proxy=None) as client:
        await client.wait_closed()
        return client.close_code


def ask(writer: asyncio.StreamWriter, *headers: str, path: str = "/", method: str = "GET") -> None:
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 1012), (signal.SIGTERM, 1001)])
async def test_a_handshake_whose_handler_still_runs_is_accepted(
    launch: Launch, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    launched = await launch(LIFE + HESITATING, workers=1)

    connecting = asyncio.ensure_future(close_code(f"ws://127.0.0.1:{launched.port}/slow"))
    await launched.told.wait_for("begins")
    await leaves(launched, number)
    (tmp_path / "goes-on").touch()
    assert await connecting == code
    await launched.stop()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_an_upload_ends_and_is_answered(launch: Launch, number: signal.Signals) -> None:
    launched = await launch(LIFE + HESITATING, workers=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
    ask(writer, "Content-Length: 10", "Expect: 100-continue", method="POST")
    assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
    pid = await leaves(launched, number)
    writer.write(b"0123456789")
    head, body = await answer(reader)
    assert head.startswith("HTTP/1.1 200")
    assert "Connection: close" in head
    assert body == f"{pid} 10"
    assert await reader.read() == b""
    writer.close()
    await launched.stop()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_kept_connection_over_tls_is_still_answered(
    launch: Launch, tmp_path: Path, number: signal.Signals
) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    both = str(tmp_path / "both.pem")
    launched = await launch(LIFE + HESITATING, workers=1, ssl_certfile=both, ssl_keyfile=both)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    (pid,) = launched.workers().values()
    kept = [await asyncio.open_connection("127.0.0.1", launched.port, ssl=trusted) for _ in range(3)]
    for reader, writer in kept:
        ask(writer)
        head, body = await answer(reader)
        assert "Connection: close" not in head
        assert body == f"{pid} 0"
    # One request keeps the worker from ending; the others arrive after it has begun to leave.
    slow, *others = kept
    ask(slow[1], path="/slow")
    await launched.told.wait_for("begins")
    if number == signal.SIGHUP:
        launched.process.send_signal(number)
    else:
        os.kill(pid, number)
    await launched.told.wait_for("worker_start 0")
    await asyncio.sleep(0.2)
    for (reader, writer), path, expected in zip(others, ["/", "/health"], [f"{pid} 0", "ok"], strict=True):
        ask(writer, path=path)
        head, body = await answer(reader)
        assert head.startswith("HTTP/1.1 200")
        assert "Connection: close" in head
        assert body == expected
    (tmp_path / "goes-on").touch()
    assert (await answer(slow[0]))[1] == f"{pid} 0"
    for _, writer in kept:
        writer.close()
    await launched.stop()


async def test_answers_that_are_cut_off_are_told_of(launch: Launch) -> None:
    launched = await launch(LIFE + HESITATING, workers=1, shutdown_timeout=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", launched.port, limit=4096)
    ask(writer, path="/long")
    await reader.readuntil(b"\r\n\r\n")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("worker 0: 1 answers were cut off because they took longer than shutdown_timeout")
    writer.close()
    await launched.stop()


async def test_a_websocket_that_has_ended_is_no_answer_that_was_cut_off(launch: Launch) -> None:
    opening = """
        server.on("open", lambda server, request: server.push(request.fd, bytes(20_000_000)))
    """
    launched = await launch(LIFE + textwrap.dedent(opening), workers=1, shutdown_timeout=0.3, send_queue_size=2**25)
    reader, writer = await asyncio.open_connection("127.0.0.1", launched.port, limit=4096)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    ask(writer, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key)
    await reader.readuntil(b"\r\n\r\n")
    # A Close frame with code 1000. The client does not read the data that was sent before the server's answer.
    writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
    await launched.told.wait_for("close 1000")
    await launched.stop()
    writer.close()
    assert not [line for line in await launched.log.to_the_end() if "cut off" in line]
