"""The lease file, which keeps connection ids from being reused: when ids run out, and when the file is damaged."""

import os
import time
from pathlib import Path

import pytest
from launched import Launch, Launched, ProgramFile, Run, ask, children, gone
from websockets.exceptions import InvalidStatus

LAST = 2**38 - 1
"""The last counter of an id."""
TICKS_A_YEAR = 500 * 86_400 * 365


class Lease:
    """A lease file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def write_counter(self, counter: int) -> None:
        self.write(f"{counter:020}\n".encode())

    def read(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture
def lease(tmp_path: Path) -> Lease:
    """The lease file of a server with `control="hub.sock"`."""
    return Lease(tmp_path / "hub.sock.lease")


async def counter_of_next(launched: Launched) -> int:
    async with launched.connect() as client:
        return int(await ask(client, "frame.fd")) & LAST


async def assert_refuses_to_start(launched: Launched, *words: str) -> None:
    assert await launched.status() == 1
    # Some machines allow so few open files that the log has a warning too.
    (line,) = [line for line in await launched.log.to_the_end() if "max_connections" not in line]
    assert line.startswith("hubbub: ")
    for each in words:
        assert each in line


# A program in whose process the only worker serves.
EMBEDDED = """
async def main():
    async with server:
        tell("port", server.port)
        await asyncio.Event().wait()

if server.settings.workers == 1:
    try:
        asyncio.run(main())
    except OSError as error:
        sys.exit(f"hubbub: {error.strerror}")
"""


@pytest.mark.parametrize("workers", [2, 1], ids=["processes", "embedded"])
async def test_when_all_ids_are_given_out_handshakes_are_refused_and_so_is_the_next_start(
    launch: Launch, program: ProgramFile, run: Run, lease: Lease, workers: int
) -> None:
    lease.write_counter(LAST - 3)
    launched = await launch(EMBEDDED, workers=workers, control="hub.sock")
    given = set()
    refusals: list[tuple[int, bytes]] = []
    # Each worker process has ids of its own.
    while len(refusals) < 10:
        try:
            async with launched.connect() as client:
                fd = int(await ask(client, "frame.fd"))
                assert fd not in given
                given.add(fd)
        except InvalidStatus as error:
            refusals.append((error.response.status_code, bytes(error.response.body or b"")))
    assert set(refusals) == {(503, b"all connection ids have been given out\n")}
    assert {fd & LAST for fd in given} == {LAST - 2, LAST - 1, LAST}
    assert len(given) <= 3 * workers
    await launched.log.wait_for("all connection ids have been given out: handshakes are refused")
    launched.process.terminate()
    await launched.status()
    assert lease.read() == f"{LAST:020}\n".encode()
    await assert_refuses_to_start(await run(program.path), "all connection ids have been given out", str(lease.path))


DAMAGED = {
    "garbage": b"garbage\n",
    "cut": b"00000000000000",
    "zeros": b"\0" * 21,
    "binary": b"\xff\xfe" * 10 + b"\n",
    "too-long": b"0" * 30 + b"\n",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
async def test_a_damaged_lease_is_told_in_one_line_and_left_as_it_is(
    program: ProgramFile, run: Run, lease: Lease, content: bytes
) -> None:
    lease.write(content)
    program.write(control="hub.sock", workers=1)
    await assert_refuses_to_start(
        await run(program.path), "the lease file of connection ids is damaged", str(lease.path)
    )
    assert lease.read() == content


async def test_a_damaged_lease_of_the_automatic_control_socket_is_not_done_without(
    launch: Launch, program: ProgramFile, run: Run, tmp_path: Path
) -> None:
    launched = await launch(workers=1)
    await launched.stop()
    lease = Lease(tmp_path / f"hubbub-{os.geteuid()}" / f"{launched.port}.sock.lease")
    lease.write(b"garbage")
    program.change("port=0", f"port={launched.port}")
    await assert_refuses_to_start(
        await run(program.path), "the lease file of connection ids is damaged", str(lease.path)
    )


async def test_an_empty_lease_is_a_new_one(launch: Launch, lease: Lease) -> None:
    lease.write(b"")
    launched = await launch(control="hub.sock", workers=1)
    assert await counter_of_next(launched) > 0
    await launched.stop()
    assert int(lease.read()) > 0


async def test_after_a_clock_that_was_years_ahead_ids_go_on_above_its(launch: Launch, lease: Lease) -> None:
    ahead = int((time.time() - 1_767_225_600) * 500) + 9 * TICKS_A_YEAR
    lease.write_counter(ahead)
    launched = await launch(control="hub.sock", workers=1)
    await launched.log.wait_for("years ahead of the clock: one of the two is wrong")
    first = await counter_of_next(launched)
    assert first > ahead
    # As after a crash.
    workers = list(children(launched.process.pid))
    launched.process.kill()
    await launched.status()
    for worker in workers:
        await gone(worker)
    again = await launch(control="hub.sock", workers=1)
    assert await counter_of_next(again) > first
