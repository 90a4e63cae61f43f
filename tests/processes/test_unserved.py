"""While no worker serves, clients still get an answer."""

import asyncio
import os
import re
import signal
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme
from launched import Launch, Launched, ask, children, until

# Seconds that a connection waits for a worker.
PATIENCE = 5
# A busy machine may take longer; a connection that gets no answer would wait forever.
LATEST = 20

# A worker that starts while the file "closed" exists waits until it is removed.
SLOW_START = """
while os.path.exists("closed"):
    time.sleep(0.05)
"""


async def get(launched: Launched, body: bytes = b"", tls: ssl.SSLContext | None = None) -> tuple[str, float]:
    """Request /health; return the whole answer, and the seconds that it took."""
    began = time.monotonic()
    name = "localhost" if tls else None
    connecting = asyncio.open_connection("127.0.0.1", launched.port, ssl=tls, server_hostname=name)
    reader, writer = await asyncio.wait_for(connecting, LATEST)
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(), LATEST)
    writer.close()
    return answer.decode(), time.monotonic() - began


def check_refusal(answer: str, seconds: float) -> None:
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503 ")
    assert "\r\nRetry-After: 5\r\n" in head
    assert body == "no worker is ready\n"
    assert seconds >= PATIENCE - 0.1


async def test_without_a_worker_clients_get_503_and_those_that_come_later_the_next_worker(
    launch: Launch, tmp_path: Path
) -> None:
    launched = await launch(SLOW_START, workers=1)
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("was killed by signal 9")
    # One request has a body that nobody reads.
    answers = await asyncio.gather(*(get(launched) for _ in range(20)), get(launched, bytes(40_000)))
    for answer, seconds in answers:
        check_refusal(answer, seconds)
    await launched.log.wait_for("no worker is serving: connections that have waited for one are answered with 503")
    later = asyncio.create_task(get(launched))
    await asyncio.sleep(0.1)
    (tmp_path / "closed").unlink()
    answer, _ = await later
    assert answer.endswith("\r\n\r\nok")
    async with launched.connect() as client:
        assert int(await ask(client, "server.stats()['refused']")) >= 21
    await launched.stop()
    assert sum("no worker is serving" in line for line in launched.log.all) == 1


async def test_a_stopped_worker_does_not_keep_clients_waiting_for_ever(launch: Launch) -> None:
    launched = await launch(workers=1, stuck_after=None)
    pid = launched.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        for answer, seconds in await asyncio.gather(*(get(launched) for _ in range(20))):
            check_refusal(answer, seconds)
        answer, seconds = await get(launched)
        check_refusal(answer, seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    answer, _ = await get(launched)
    assert answer.endswith("\r\n\r\nok")
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


def certified(directory: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """Write a certificate; return the settings of a server that uses it, and the context of its clients."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(directory / "cert.pem", append=True)
    files = {"ssl_certfile": str(directory / "cert.pem"), "ssl_keyfile": str(directory / "key.pem")}
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return files, context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_clients_of_a_tls_server_get_503_too(launch: Launch, tmp_path: Path, version: ssl.TLSVersion) -> None:
    files, context = certified(tmp_path)
    context.minimum_version = context.maximum_version = version
    launched = await launch(SLOW_START, workers=1, **files)
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("was killed by signal 9")
    answers = await asyncio.gather(*(get(launched, tls=context) for _ in range(40)))
    for answer, seconds in answers:
        check_refusal(answer, seconds)
    await launched.log.wait_for("no worker is serving: connections that have waited for one are answered with 503")
    later = asyncio.create_task(get(launched, tls=context))
    await asyncio.sleep(0.1)
    (tmp_path / "closed").unlink()
    answer, _ = await later
    assert answer.endswith("\r\n\r\nok")
    await launched.stop()


async def test_clients_without_their_certificate_get_an_alert_and_not_503(launch: Launch, tmp_path: Path) -> None:
    files, context = certified(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    launched = await launch(SLOW_START, workers=1, **files, ssl_ca_certs=str(tmp_path / "clients.pem"))
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("was killed by signal 9")
    strangers = [asyncio.create_task(get(launched, tls=context)) for _ in range(10)]
    known = ssl.create_default_context(cadata=pem_of(context))
    authority.issue_cert("ada.example").configure_cert(known)
    for answer, seconds in await asyncio.gather(*(get(launched, tls=known) for _ in range(10))):
        check_refusal(answer, seconds)
    for refused in await asyncio.gather(*strangers, return_exceptions=True):
        assert isinstance(refused, ssl.SSLError)
        assert refused.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    (tmp_path / "closed").unlink()
    await launched.stop()


def pem_of(context: ssl.SSLContext) -> bytes:
    """Return the authorities that a context trusts, in DER."""
    return b"".join(context.get_ca_certs(binary_form=True))


V1 = b"PROXY TCP4 198.51.100.9 192.0.2.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([198, 51, 100, 9, 192, 0, 2, 1, 18, 103, 1, 187])


async def get_through_proxy(launched: Launched, pieces: Sequence[bytes], tls: ssl.SSLContext | None) -> str:
    """Send a PROXY header in pieces, and then a request; return the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.05)
    if tls:
        await writer.start_tls(tls, server_hostname="localhost")
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), LATEST)
    writer.close()
    return answer.decode()


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
async def test_clients_behind_a_proxy_get_503_after_their_header(
    launch: Launch, tmp_path: Path, is_secure: bool
) -> None:
    files, context = certified(tmp_path)
    launched = await launch(SLOW_START, workers=1, proxy_protocol=True, **(files if is_secure else {}))
    tls = context if is_secure else None
    assert (await get_through_proxy(launched, [V1], tls)).endswith("\r\n\r\nok")
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("was killed by signal 9")
    headers = [[V1], [V2], [V1[:9], V1[9:]], [V2[:20], V2[20:]]]
    for answer in await asyncio.gather(*(get_through_proxy(launched, pieces, tls) for pieces in headers * 3)):
        check_refusal(answer, PATIENCE)
    if is_secure:
        # Without a header there is no telling who asks.
        for pieces in ([], [b"PROXY TCP4\r\n"]):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await get_through_proxy(launched, pieces, tls)
    (tmp_path / "closed").unlink()
    await launched.stop()


async def test_a_stopped_tls_worker_does_not_keep_clients_waiting_either(launch: Launch, tmp_path: Path) -> None:
    files, context = certified(tmp_path)
    launched = await launch(workers=1, stuck_after=None, **files)
    pid = launched.workers()[0]
    before = len(os.listdir(f"/proc/{launched.process.pid}/fd"))
    os.kill(pid, signal.SIGSTOP)
    try:
        # Some clients do not speak TLS, send nothing, or leave in the middle of the handshake.
        silent = [await asyncio.open_connection("127.0.0.1", launched.port) for _ in range(20)]
        for _, writer in silent[:10]:
            writer.write(bytes.fromhex("16030100ff0100"))
        secure = [get(launched, tls=context) for _ in range(20)]
        *answers, (not_tls, _) = await asyncio.gather(*secure, get(launched))
        for answer, seconds in answers:
            check_refusal(answer, seconds)
        # An alert, which is not readable as HTTP.
        assert not_tls[:1] == "\x15"
        for reader, _ in silent:
            assert await asyncio.wait_for(reader.read(), LATEST) == b""
        await until(lambda: len(os.listdir(f"/proc/{launched.process.pid}/fd")) <= before)
        for _, writer in silent:
            writer.close()
    finally:
        os.kill(pid, signal.SIGCONT)
    answer, _ = await get(launched, tls=context)
    assert answer.endswith("\r\n\r\nok")
    await launched.stop()


async def test_clients_that_stay_silent_or_connected_use_up_nothing(launch: Launch) -> None:
    launched = await launch(workers=1, stuck_after=None)
    pid = launched.workers()[0]
    before = len(os.listdir(f"/proc/{launched.process.pid}/fd"))
    os.kill(pid, signal.SIGSTOP)
    try:
        silent = [await asyncio.open_connection("127.0.0.1", launched.port) for _ in range(100)]
        for reader, _ in silent:
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), LATEST)).startswith(b"HTTP/1.1 503 ")
        # The clients have not closed their ends yet.
        await until(lambda: len(os.listdir(f"/proc/{launched.process.pid}/fd")) <= before)
        for _, writer in silent:
            writer.close()
    finally:
        os.kill(pid, signal.SIGCONT)
    await launched.stop()


async def test_workers_are_started_again_soon_while_none_serves(launch: Launch) -> None:
    launched = await launch(workers=1)
    for _ in range(7):
        async with launched.connect() as client:
            os.kill(int(await ask(client, "os.getpid()")), signal.SIGKILL)
            await client.wait_closed()
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()
    delays = [
        float(found[1]) for line in launched.log.all if (found := re.search(r"restarting worker \d+ in (\S+) s", line))
    ]
    assert len(delays) == 6
    assert max(delays) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_log_names_used_up_descriptors_and_what_to_raise(launch: Launch, workers: int) -> None:
    lines = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    """
    launched = await launch(lines, workers=workers)
    clients = [await asyncio.open_connection("127.0.0.1", launched.port) for _ in range(workers * 72 + 20)]
    line = await launched.log.wait_for("clients are waiting: the workers have no file descriptors left")
    assert "raise the limit of open files, which is 200 (`ulimit -n`, LimitNOFILE= of systemd)" in line
    # The log must not have a line for each check.
    await asyncio.sleep(3)
    assert sum("no file descriptors left" in each for each in launched.log.all) == 1
    for _, writer in clients:
        writer.close()
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


async def test_clients_get_503_whatever_they_have_sent(launch: Launch, tmp_path: Path) -> None:
    launched = await launch(SLOW_START, workers=1)
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("was killed by signal 9")

    async def half_close() -> tuple[str, float]:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), LATEST)
        writer.close()
        return answer.decode(), time.monotonic() - began

    sizes = (0, 64 * 1024, 100_000, 1_000_000)
    answers = await asyncio.gather(half_close(), *(get(launched, bytes(size)) for size in sizes))
    for answer, seconds in answers:
        check_refusal(answer, seconds)
    (tmp_path / "closed").unlink()
    await launched.stop()


@pytest.mark.parametrize("secure", [False, True])
async def test_clients_that_a_stopped_worker_has_not_taken_get_503_when_the_server_stops(
    launch: Launch, tmp_path: Path, secure: bool
) -> None:
    files, context = certified(tmp_path) if secure else ({}, None)
    launched = await launch(workers=1, stuck_after=None, shutdown_timeout=1, **files)
    pid = launched.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    gets = [asyncio.create_task(get(launched, tls=context)) for _ in range(10)]
    # By then the master has accepted them.
    await asyncio.sleep(1.5)
    launched.process.send_signal(signal.SIGTERM)
    for answer, _ in await asyncio.gather(*gets):
        check_refusal(answer, PATIENCE)
    os.kill(pid, signal.SIGCONT)
    assert await launched.process.wait() == 0


@pytest.mark.parametrize("secure", [False, True])
async def test_clients_that_wait_without_a_worker_get_503_when_the_server_stops(
    launch: Launch, tmp_path: Path, secure: bool
) -> None:
    files, context = certified(tmp_path) if secure else ({}, None)
    launched = await launch(SLOW_START, workers=1, **files)
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("was killed by signal 9")
    gets = [asyncio.create_task(get(launched, tls=context)) for _ in range(30)]
    await asyncio.sleep(2.5)
    launched.process.send_signal(signal.SIGTERM)
    for answer, _ in await asyncio.gather(*gets):
        check_refusal(answer, PATIENCE)
    assert await launched.process.wait() == 0


@pytest.mark.parametrize("secure", [False, True])
async def test_silent_clients_leave_descriptors_for_new_workers(launch: Launch, tmp_path: Path, secure: bool) -> None:
    files, _ = certified(tmp_path) if secure else ({}, None)
    lines = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
"""
    launched = await launch(lines + SLOW_START, workers=1, max_connections=100, **files)
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    await launched.log.wait_for("is starting")
    is_enough = asyncio.Event()

    async def stay_silent() -> None:
        while not is_enough.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
            reading, ending = asyncio.ensure_future(reader.read()), asyncio.ensure_future(is_enough.wait())
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            ending.cancel()
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(400):
            group.create_task(stay_silent())
        # Until the first ones are turned away, and others take their places.
        await launched.log.wait_for("no worker is serving")
        await asyncio.sleep(1)
        (pid,) = children(launched.process.pid)
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "closed").unlink()
        await until(lambda: launched.workers().get(0, pid) != pid)
        is_enough.set()
    await launched.stop()
    assert "cannot be started" not in "\n".join(launched.log.all)


async def test_a_stuck_worker_does_not_count_as_serving(launch: Launch, tmp_path: Path) -> None:
    lines = """
    @server.on("worker_start")
    def on_worker_start(server, worker_id):
        if worker_id == 1 and os.path.exists("dies"):
            os._exit(7)
    """
    launched = await launch(lines, workers=2, stuck_after=0.5)
    workers = launched.workers()
    os.kill(workers[0], signal.SIGSTOP)
    try:
        await launched.log.wait_for("is stuck")
        (tmp_path / "dies").touch()
        os.kill(workers[1], signal.SIGKILL)
        for _ in range(7):
            line = await launched.log.wait_for("restarting worker 1 in")
        assert line.endswith(" in 1 s")
    finally:
        os.kill(workers[0], signal.SIGCONT)
    await launched.stop()


async def test_a_worker_that_takes_long_to_start_is_named_in_the_log(launch: Launch, tmp_path: Path) -> None:
    launched = await launch(SLOW_START, workers=1, stuck_after=0.5)
    (tmp_path / "closed").touch()
    os.kill(launched.workers()[0], signal.SIGKILL)
    assert "worker 0 (pid " in await launched.log.wait_for("has been starting for 0.5 s, and is not ready yet")
    (tmp_path / "closed").unlink()
    async with launched.connect() as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()
