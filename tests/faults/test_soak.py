"""The soak test, for some seconds: it runs, and no client misses a message."""

import tempfile
from pathlib import Path

from hub_server import hub_serving
from soak import SUBSCRIBERS, certified, soak

MINUTES = 0.05


async def test_nobody_misses_a_message_over_tls_with_compression() -> None:
    # Not pytest's directory, which may be too long for the address of a socket.
    with tempfile.TemporaryDirectory() as directory:
        settings, context = certified(Path(directory))
        with hub_serving(Path(directory), workers=2, compression=True, ping_interval=5.0, **settings) as server:
            load, processes = await soak(server, context, MINUTES)
    assert load.published > 0
    assert load.received == load.published * SUBSCRIBERS
    assert load.visits > 0
    assert [len(series.pss) > 0 for series in processes.values()] == [True] * 3
