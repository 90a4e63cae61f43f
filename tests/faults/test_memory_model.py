"""Workers killed, reloaded or stopped while clients come back to topics with history: nothing is missing or twice."""

import tempfile
from pathlib import Path

import pytest
from memory_model import DISTURBANCES, memory_serving, run_disturbed

MESSAGES = 4_000
CLIENTS = 60


@pytest.mark.parametrize("name", DISTURBANCES)
async def test_what_was_missed_is_recovered_or_known_to_be_lost(name: str) -> None:
    # Not pytest's directory, whose path may be too long for the address of a socket.
    with tempfile.TemporaryDirectory() as directory, memory_serving(Path(directory)) as (server, members_log):
        result = await run_disturbed(server, members_log, name, MESSAGES, CLIENTS)
    assert result.published >= MESSAGES
    assert result.record.recoveries > 0
    assert result.disturbances >= 2
