"""Reloading: new workers with new code replace the old ones."""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from textwrap import dedent

import pytest
import trustme
from launched import LIFE, LIFE_BUT_START, Launch, Launched, ProgramFile, ask, children, gone, signal_group, until
from websockets.asyncio.client import connect

VERSION = "\nVERSION = 1\n"


async def reloaded(launched: Launched) -> None:
    await launched.log.wait_for("INFO reloaded")


@asynccontextmanager
async def connecting(launched: Launched) -> AsyncIterator[Callable[[], list[str]]]:
    """Let clients connect throughout the block, several at the same time; every attempt must succeed."""
    stop = asyncio.Event()
    versions: list[str] = []

    async def connect_again_and_again() -> None:
        while not stop.is_set():
            async with launched.connect():
                pass
            versions.append("connected")

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(connect_again_and_again())
        yield lambda: versions
        stop.set()


@pytest.mark.parametrize("way", ["SIGHUP", "server.reload()", "threading.Thread(target=server.reload).start()"])
async def test_a_reload_loads_the_new_code_and_no_connection_fails(
    launch: Launch, program: ProgramFile, way: str
) -> None:
    launched = await launch(VERSION, workers=2)
    before = launched.workers()
    async with launched.connect_to(0) as one, launched.connect_to(1) as other, connecting(launched) as connected:
        assert await ask(one, "VERSION") == "1"
        program.change("VERSION = 1", "VERSION = 2")
        if way == "SIGHUP":
            launched.process.send_signal(signal.SIGHUP)
        else:
            assert await ask(one, way) == "None"
        for client in (one, other):
            await client.wait_closed()
            assert client.close_code == 1012
        await reloaded(launched)
        count = len(connected())
        assert count > 0
    assert set(launched.workers()) == {0, 1}
    assert not set(launched.workers().values()) & set(before.values())
    for worker_id in (0, 1):
        async with launched.connect_to(worker_id) as client:
            assert await ask(client, "VERSION, server.worker_id") == f"(2, {worker_id})"
            # A reload does not count as a restart, which follows a failure.
            assert await ask(client, "server.stats()['restarts']") == "0"
    await launched.stop()
    assert "ERROR" not in "\n".join(launched.log.all)


async def test_ids_go_on_after_a_reload(launch: Launch) -> None:
    launched = await launch(workers=1)
    seen = set()
    for _ in range(3):
        async with launched.connect() as client:
            fd = await ask(client, "frame.fd")
            assert fd not in seen
            seen.add(fd)
            assert await ask(client, f"[server.exists(fd) for fd in {sorted(map(int, seen))}].count(True)") == "1"
            launched.process.send_signal(signal.SIGHUP)
            await reloaded(launched)


async def test_the_old_workers_close_handlers_run(launch: Launch) -> None:
    launched = await launch(LIFE, workers=1)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(launched.connect()) for _ in range(30)]
        for client in clients:
            await ask(client, "server.worker_id")
        launched.process.send_signal(signal.SIGHUP)
        for client in clients:
            await client.wait_closed()
            assert client.close_code == 1012
    await reloaded(launched)
    await launched.stop()
    told = await launched.told.to_the_end()
    assert told[2:] == ["worker_start 0", *["close 1012"] * 30, *["worker_stop 0"] * 2, "shutdown", told[-1]]


async def test_one_worker_after_the_other(launch: Launch) -> None:
    lines = """
    server.on("worker_start", lambda server, n: tell("worker_start", n))
    server.on("worker_stop", lambda server, n: tell("worker_stop", n))
    """
    launched = await launch(lines, workers=2)
    launched.process.send_signal(signal.SIGHUP)
    await reloaded(launched)
    await launched.stop()
    told = await launched.told.to_the_end()
    assert told[3:7] == ["worker_start 0", "worker_stop 0", "worker_start 1", "worker_stop 1"]


async def test_new_code_that_fails_leaves_the_old_workers(launch: Launch, program: ProgramFile) -> None:
    launched = await launch(VERSION, workers=2)
    before = launched.workers()
    async with launched.connect() as client:
        program.change("VERSION = 1", "raise LookupError('new code')")
        launched.process.send_signal(signal.SIGHUP)
        await launched.log.wait_for("LookupError: new code")
        await launched.log.wait_for("the reload failed")
        assert await ask(client, "VERSION") == "1"
        assert launched.workers() == before
        # Once the program works again, they are replaced.
        program.change("raise LookupError('new code')", "VERSION = 3")
        launched.process.send_signal(signal.SIGHUP)
        await client.wait_closed()
        await reloaded(launched)
    async with launched.connect() as client:
        assert await ask(client, "VERSION") == "3"
    await launched.stop()


async def test_new_code_whose_worker_start_fails_leaves_the_old_workers(launch: Launch, program: ProgramFile) -> None:
    lines = """
    @server.on("worker_start")
    async def on_worker_start(server):
        if VERSION == 2:
            await asyncio.sleep(0)
            raise LookupError("no database")
    """
    launched = await launch(VERSION + dedent(lines) + LIFE_BUT_START, workers=2)
    before = launched.workers()
    async with launched.connect() as client:
        program.change("VERSION = 1", "VERSION = 2")
        launched.process.send_signal(signal.SIGHUP)
        await launched.log.wait_for("LookupError: no database")
        await launched.log.wait_for("the reload failed")
        assert await ask(client, "VERSION") == "1"
        assert launched.workers() == before
        async with launched.connect() as newcomer:
            assert await ask(newcomer, "VERSION") == "1"
        program.change("VERSION = 2", "VERSION = 3")
        launched.process.send_signal(signal.SIGHUP)
        await client.wait_closed()
        await reloaded(launched)
    async with launched.connect() as client:
        assert await ask(client, "VERSION") == "3"
    await launched.stop()
    told = await launched.told.to_the_end()
    # The old and the last workers have stopped; the one that did not start has no `worker_stop`.
    assert sorted(line for line in told if "worker_stop" in line) == ["worker_stop 0"] * 2 + ["worker_stop 1"] * 2


async def test_a_certificate_that_cannot_be_used_at_a_reload_leaves_the_old_workers(
    launch: Launch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certfile, keyfile = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(certfile)
    certificate.private_key_pem.write_to_path(keyfile)
    launched = await launch(workers=2, ssl_certfile=str(certfile), ssl_keyfile=str(keyfile))
    before = launched.workers()
    certfile.write_text("broken")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("the reload failed")
    assert launched.workers() == before
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with connect(f"wss://127.0.0.1:{launched.port}", ssl=context, proxy=None) as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


async def test_a_reload_asked_for_again_begins_again(launch: Launch) -> None:
    launched = await launch(workers=2)
    before = launched.workers()
    async with launched.connect() as client:
        assert await ask(client, "[server.reload() for _ in range(5)].count(None)") == "5"
    await reloaded(launched)
    after = launched.workers()
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    await launched.stop()


async def test_new_code_that_hangs_gives_way_to_the_next(launch: Launch, program: ProgramFile) -> None:
    launched = await launch(VERSION, workers=2)
    program.change("VERSION = 1", "tell('hangs'); time.sleep(1000)")
    launched.process.send_signal(signal.SIGHUP)
    await launched.told.wait_for("hangs")
    program.change("tell('hangs'); time.sleep(1000)", "VERSION = 2")
    launched.process.send_signal(signal.SIGHUP)
    await reloaded(launched)
    for worker_id in (0, 1):
        async with launched.connect_to(worker_id) as client:
            assert await ask(client, "VERSION") == "2"
    await launched.stop()


async def test_reload_at_the_start_waits_for_it(launch: Launch) -> None:
    lines = """
    @server.on("worker_start")
    def on_worker_start(server, worker_id):
        tell("worker_start")
        if not os.path.exists(__file__ + ".asked"):
            open(__file__ + ".asked", "w").close()
            server.reload()
    """
    launched = await launch(lines, workers=2)
    await reloaded(launched)
    await launched.stop()
    assert sum("worker_start" in line for line in launched.told.all) == 4


async def test_a_worker_that_dies_during_a_reload_is_replaced(launch: Launch, program: ProgramFile) -> None:
    launched = await launch(VERSION + "if VERSION == 2: time.sleep(0.3)\n", workers=2)
    program.change("VERSION = 1", "VERSION = 2")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("INFO reloading")
    victim = launched.workers()[0]
    os.kill(victim, signal.SIGKILL)
    await gone(victim)
    await reloaded(launched)
    for worker_id in (0, 1):
        async with launched.connect_to(worker_id) as client:
            assert await ask(client, "VERSION") == "2"
    await launched.stop()


async def test_a_stop_during_a_reload(launch: Launch, program: ProgramFile) -> None:
    launched = await launch(VERSION + "if VERSION == 2: tell('loads') or time.sleep(3600)\n", workers=2)
    program.change("VERSION = 1", "VERSION = 2")
    async with launched.connect() as client:
        launched.process.send_signal(signal.SIGHUP)
        await launched.told.wait_for("loads")
        await launched.stop()
        await client.wait_closed()
        assert client.close_code == 1001


async def test_changed_settings_are_logged_and_wait_for_the_next_start(launch: Launch, program: ProgramFile) -> None:
    lines = """
    server = new_server(workers=2, threads=4)
    server.on("message", on_message)
    """
    launched = await launch(lines)
    program.change("workers=2, threads=4", "workers=3, threads=5")
    launched.process.send_signal(signal.SIGHUP)
    assert (await launched.log.wait_for("changed in the code")).endswith("workers, threads")
    await reloaded(launched)
    async with launched.connect() as client:
        assert await ask(client, "server.settings.threads, server.settings.workers") == "(4, 2)"
    await launched.stop()
    assert sum("changed in the code" in line for line in launched.log.all) == 1


async def test_changed_options_of_topics_wait_for_the_next_start_too(launch: Launch, program: ProgramFile) -> None:
    lines = """
    server = new_server(workers=2)
    server.topic_options("news", history=5)
    server.on("message", on_message)
    """
    launched = await launch(lines)
    program.change("history=5", "history=6, presence=True")
    launched.process.send_signal(signal.SIGHUP)
    assert (await launched.log.wait_for("changed in the code")).endswith("to apply: topic_options")
    await reloaded(launched)
    await launched.stop()
    assert sum("changed in the code" in line for line in launched.log.all) == 1


async def test_sighup_to_the_whole_group_is_one_reload(launch: Launch) -> None:
    launched = await launch(workers=2)
    signal_group(launched, signal.SIGHUP)
    await reloaded(launched)
    await launched.stop()
    assert sum("INFO reloading" in line for line in launched.log.all) == 1


async def test_under_nohup_sighup_stays_ignored(launch: Launch) -> None:
    launched = await launch("signal.signal(signal.SIGHUP, signal.SIG_IGN)", workers=1)
    launched.process.send_signal(signal.SIGHUP)
    async with launched.connect() as client:
        assert await ask(client, "1") == "1"
    await launched.stop()
    assert not any("reload" in line for line in launched.log.all)


def slow_start_of(worker_id: int) -> str:
    """Lines that make a worker wait in its start while the file "slow" exists."""
    return f"""
import hubbub.program
assignment = hubbub.program.assignment
while assignment and assignment.worker_id == {worker_id} and os.path.exists("slow"):
    time.sleep(0.05)
"""


async def test_a_failed_reload_leaves_no_worker_without_a_process(
    launch: Launch, program: ProgramFile, tmp_path: Path
) -> None:
    launched = await launch(slow_start_of(1), workers=2)
    before = launched.workers()
    (tmp_path / "slow").touch()
    os.kill(before[1], signal.SIGKILL)
    await launched.log.wait_for("worker 1 (pid")
    # Worker 0 is replaced, and worker 1 is starting.
    launched.process.send_signal(signal.SIGHUP)
    await until(lambda: launched.workers().get(0, before[0]) != before[0])
    await until(lambda: len(list(children(launched.process.pid))) == 2)
    program.change("import hubbub.program", "raise LookupError('new code')")
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("the reload failed")
    (tmp_path / "slow").unlink()
    program.change("raise LookupError('new code')", "import hubbub.program")
    await until(lambda: launched.workers().keys() == {0, 1})
    async with launched.connect_to(1) as client:
        assert await ask(client, "1 + 1") == "2"
    await launched.stop()


async def test_a_worker_that_was_terminated_while_it_started_does_not_fail_the_next_reload(
    launch: Launch, tmp_path: Path
) -> None:
    launched = await launch(slow_start_of(0), workers=2)
    before = launched.workers()
    (tmp_path / "slow").touch()
    os.kill(before[0], signal.SIGKILL)
    line = await launched.log.wait_for("is starting")
    pid = int(line.split("(pid ")[1].split(")")[0])
    os.kill(pid, signal.SIGTERM)
    await gone(pid)
    (tmp_path / "slow").unlink()
    launched.process.send_signal(signal.SIGHUP)
    await reloaded(launched)
    assert not set(launched.workers().values()) & set(before.values())
    await launched.stop()
    assert "the reload failed" not in "\n".join(launched.log.all)


async def test_while_no_worker_serves_a_reload_that_hangs_delays_no_other_worker(
    launch: Launch, tmp_path: Path
) -> None:
    lines = """
if assignment and assignment.worker_id == 1 and os.path.exists("dies"):
    os._exit(7)
"""
    launched = await launch(slow_start_of(0) + lines, workers=2)
    before = launched.workers()
    (tmp_path / "dies").touch()
    os.kill(before[1], signal.SIGKILL)
    await launched.log.wait_for("restarting worker 1 in 6.4 s")
    (tmp_path / "slow").touch()
    launched.process.send_signal(signal.SIGHUP)
    await launched.log.wait_for("worker 0 (pid")
    (tmp_path / "dies").unlink()
    os.kill(before[0], signal.SIGKILL)
    began = time.monotonic()
    await until(lambda: 1 in launched.workers())
    assert time.monotonic() - began < 5
    (tmp_path / "slow").unlink()
    await launched.stop()
