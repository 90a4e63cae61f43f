"""Metrics, as Prometheus reads them."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from launched import Launch, ProgramFile, ask, end, gone, start
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed

from hubbub import Server
from ports import free_port

Samples = dict[str, float]
"""Return the values by name and labels, as written in the exposition."""


async def fetch(port: int) -> str:
    """Return what `/metrics` answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    assert " 200 " in head
    assert "Content-Type: text/plain" in head
    return body


async def scrape(port: int) -> Samples:
    """Return all samples, read as Prometheus reads them."""
    samples = {}
    for family in text_string_to_metric_families(await fetch(port)):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return samples


async def until(port: int, condition: Callable[[Samples], bool]) -> Samples:
    """Scrape until the samples are as they should be."""
    samples = await scrape(port)
    while not condition(samples):
        await asyncio.sleep(0.02)
        samples = await scrape(port)
    return samples


def assert_no_counter_fell(before: Samples, after: Samples) -> None:
    gauges = (
        "hubbub_connections",
        "hubbub_queued_bytes",
        "hubbub_outliving_handlers",
        "hubbub_held_bytes",
        "hubbub_worker_stuck",
        "hubbub_start_time",
    )
    counters = [name for name in before if not name.startswith(gauges)]
    assert len(counters) > 50
    assert {name: (before[name], after[name]) for name in counters if after[name] < before[name]} == {}


async def test_what_happens_is_counted(launch: Launch) -> None:
    port = free_port()
    launched = await launch(workers=2, metrics_port=port)
    async with launched.connect_to(0) as client, launched.connect_to(1) as other:
        before = await scrape(port)
        assert before['hubbub_connections{worker="0"}'] >= 1
        assert before['hubbub_connections{worker="1"}'] >= 1
        for _ in range(128):
            assert await ask(client, "'abc'") == "abc"
        after = await scrape(port)
        grown = {name: value - before[name] for name, value in after.items() if value != before[name]}
        assert grown['hubbub_messages_total{direction="in"}'] == 128
        assert grown['hubbub_messages_total{direction="out"}'] == 128
        assert grown['hubbub_bytes_total{direction="in"}'] == 128 * 5
        assert grown['hubbub_bytes_total{direction="out"}'] == 128 * 3
        # One in 64 of the handler's calls is measured.
        assert grown["hubbub_handler_seconds_count"] == 2
        assert (
            after["hubbub_accepted_total"]
            == after['hubbub_connections{worker="0"}'] + after['hubbub_connections{worker="1"}']
        )
        # All messages may have arrived in one turn, which is counted when it ends.
        turns = partial(exceeds, "hubbub_turn_seconds_count", before["hubbub_turn_seconds_count"])
        assert (await until(port, turns))["hubbub_turn_seconds_sum"] > before["hubbub_turn_seconds_sum"]
        await other.close(4321)
        closed = await until(port, lambda samples: samples['hubbub_closed_total{code="4000"}'] == 1)
        assert closed['hubbub_closed_total{code="1006"}'] == 0


def exceeds(name: str, value: float, samples: Samples) -> bool:
    return samples[name] > value


async def test_handlers_that_outlive_their_connection_are_counted(launch: Launch) -> None:
    port = free_port()
    lines = """
    goes_on = asyncio.Event()

    @server.on("close")
    async def on_close(server):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, goes_on.set)
        tell("close", os.getpid())
        await goes_on.wait()
    """
    launched = await launch(lines, workers=1, metrics_port=port)
    async with launched.connect():
        assert (await scrape(port))['hubbub_outliving_handlers{worker="0"}'] == 0
    worker = int((await launched.told.wait_for("close")).split()[1])
    name = 'hubbub_outliving_handlers{worker="0"}'
    samples = await until(port, lambda samples: samples[name] == 1)
    assert samples['hubbub_connections{worker="0"}'] == 0
    os.kill(worker, signal.SIGUSR1)
    await until(port, lambda samples: samples[name] == 0)


async def test_refusals_are_counted_by_status(launch: Launch) -> None:
    port = free_port()
    lines = """
    from hubbub import Refuse, Response
    ANSWERS = {"/no": False, "/pay": Response(status=402), "/login": Refuse(4401, "")}
    server.on("handshake", lambda server, request: ANSWERS[request.path])
    """
    launched = await launch(lines, workers=1, metrics_port=port)
    for path in ("/no", "/pay", "/login"):
        reader, writer = await asyncio.open_connection("127.0.0.1", launched.port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert await reader.readline()
        writer.close()
    samples = await scrape(port)
    statuses = ("101", "403", "other", "400")
    assert [samples[f'hubbub_refused_total{{status="{status}"}}'] for status in statuses] == [1, 1, 1, 0]


async def test_histograms_are_cumulative_and_end_in_their_count(launch: Launch) -> None:
    port = free_port()
    launched = await launch(workers=1, metrics_port=port)
    async with launched.connect() as client:
        await ask(client, "time.sleep(0.03)")
    samples = await scrape(port)
    for name in ("hubbub_turn_seconds", "hubbub_handler_seconds"):
        bounds = {
            float(match[1]): value
            for each, value in samples.items()
            if (match := re.fullmatch(rf'{name}_bucket{{le="(.+)"}}', each))
        }
        counts = [bounds[bound] for bound in sorted(bounds)]
        assert counts == sorted(counts)
        assert counts[-1] == samples[f"{name}_count"]
    # The handler's first call is measured, and it slept.
    assert samples['hubbub_turn_seconds_bucket{le="0.025"}'] < samples["hubbub_turn_seconds_count"]
    assert samples['hubbub_handler_seconds_bucket{le="0.025"}'] == 0
    assert samples["hubbub_handler_seconds_sum"] >= 0.03


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_no_counter_falls_when_a_worker_dies(launch: Launch, number: signal.Signals) -> None:
    port = free_port()
    launched = await launch(workers=2, metrics_port=port)
    async with launched.connect_to(0) as bystander:
        for round_ in range(1, 4):
            async with launched.connect_to(1) as client:
                for _ in range(20):
                    pid = int(await ask(client, "os.getpid()"))
                before = await scrape(port)
                os.kill(pid, number)
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert_no_counter_fell(before, during := await scrape(port))
            await gone(pid)
            after = await until(port, partial(has_restarted, round_))
            assert_no_counter_fell(during, after)
        await ask(bystander, "1")
    await launched.stop()


def has_restarted(times: int, samples: Samples) -> bool:
    return samples["hubbub_restarts_total"] == times


async def test_they_go_on_through_a_reload(launch: Launch) -> None:
    port = free_port()
    launched = await launch(workers=2, metrics_port=port)
    async with launched.connect() as client:
        await ask(client, "1")
    before = await scrape(port)
    for _ in range(2):
        launched.process.send_signal(signal.SIGHUP)
        await launched.log.wait_for("reloaded")
    after = await scrape(port)
    assert_no_counter_fell(before, after)
    assert after["hubbub_accepted_total"] == before["hubbub_accepted_total"]
    assert after["hubbub_restarts_total"] == 0


async def test_only_the_master_listens_and_only_on_loopback_and_until_the_stop(launch: Launch) -> None:
    port = free_port()
    launched = await launch(workers=2, metrics_port=port, host="0.0.0.0")
    listening = sockets_at(port)
    assert [line.split()[1] for line in listening] == [f"0100007F:{port:04X}"]
    inode = listening[0].split()[9]
    holders = [pid for pid in (launched.process.pid, *launched.workers().values()) if holds(pid, inode)]
    assert holders == [launched.process.pid]
    await launched.stop()
    with pytest.raises(ConnectionRefusedError):
        await fetch(port)


def sockets_at(port: int) -> list[str]:
    """The system's lines for the sockets that listen at a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return [line for line in lines if f":{port:04X} 00000000:0000 0A" in line]


def holds(pid: int, inode: str) -> bool:
    """Whether a process has that socket open."""
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink())
    return f"socket:[{inode}]" in links


async def test_silent_connections_make_no_threads_and_keep_no_scrape_waiting(launch: Launch) -> None:
    port = free_port()
    launched = await launch(workers=1, metrics_port=port)

    def threads() -> int:
        return len(os.listdir(f"/proc/{launched.process.pid}/task"))

    await scrape(port)
    before = threads()
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(600)]
    assert (await scrape(port))["hubbub_accepted_total"] == 0
    assert threads() <= before
    assert len(os.listdir(f"/proc/{launched.process.pid}/fd")) < 100
    # Silent clients are disconnected, so they do not keep their places.
    for reader, writer in silent:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    assert (await scrape(port))["hubbub_accepted_total"] == 0
    await launched.stop()


async def test_what_is_no_request_for_metrics_is_answered_or_closed(launch: Launch) -> None:
    port = free_port()
    launched = await launch(workers=1, metrics_port=port)
    for request, answer in (
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"\xff\xfe\r\n\r\n", b"HTTP/1.1 405 "),
        (b"x" * 100_000, b""),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        with contextlib.suppress(ConnectionResetError):
            assert (await reader.read()).startswith(answer)
        writer.close()
    assert (await scrape(port))["hubbub_accepted_total"] == 0
    await launched.stop()
    assert not any("Traceback" in line for line in launched.log.all)


async def test_a_port_in_use_is_one_line(program: ProgramFile) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        program.write(metrics_port=port)
        launched = await start(program.path)
        try:
            assert await launched.status() == 1
            errors = [line for line in await launched.log.to_the_end() if " WARNING " not in line]
        finally:
            await end(launched)
    assert errors == [f"hubbub: cannot serve metrics on 127.0.0.1 port {port}: Address already in use"]


async def test_a_missing_package_is_one_line(program: ProgramFile) -> None:
    # This has the same effect as a missing package.
    program.write("sys.modules['prometheus_client'] = None", metrics_port=free_port())
    launched = await start(program.path)
    try:
        assert await launched.status() == 1
        errors = [line for line in await launched.log.to_the_end() if " WARNING " not in line]
    finally:
        await end(launched)
    assert errors == ["hubbub: metrics_port needs the package prometheus-client: pip install prometheus-client"]


async def test_an_embedded_server_serves_its_own() -> None:
    port = free_port()
    server = Server(port=0, metrics_port=port)
    async with server:
        assert (await scrape(port))['hubbub_connections{worker="0"}'] == 0
    with pytest.raises(ConnectionRefusedError):
        await fetch(port)
    # The server can be started again.
    async with server:
        assert (await scrape(port))["hubbub_accepted_total"] == 0


async def test_a_scrape_under_way_at_the_stop_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    async with Server(port=0, metrics_port=port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Once this is answered, earlier clients have been accepted.
        await fetch(port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    assert " 200 " in answer.partition("\n")[0]
    assert "hubbub_accepted_total 0.0" in answer
    assert "Traceback" not in capfd.readouterr().err
