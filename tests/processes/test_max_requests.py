"""`max_requests`: workers are renewed before what a program leaks has become too much."""

from launched import Launch, ask
from websockets.exceptions import ConnectionClosed, InvalidHandshake


async def test_a_worker_is_renewed_after_so_many_handshakes(launch: Launch) -> None:
    launched = await launch(workers=1, max_requests=10)
    served: dict[str, int] = {}
    while len(served) < 3:
        try:
            async with launched.connect() as client:
                pid = await ask(client, "os.getpid()")
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError):
            # The worker may leave before it answers.
            continue
        served[pid] = served.get(pid, 0) + 1
    await launched.stop()
    first, second, _ = served.values()
    # A tenth more or less; the last one may not have been answered.
    assert min(first, second) >= 8
    assert any("worker 0 has served max_requests, and is renewed" in line for line in launched.log.all)


async def test_messages_do_not_count(launch: Launch) -> None:
    launched = await launch(workers=1, max_requests=10)
    async with launched.connect() as client:
        assert len({await ask(client, "os.getpid()") for _ in range(100)}) == 1
    await launched.stop()
    assert not any("max_requests" in line for line in launched.log.all)
