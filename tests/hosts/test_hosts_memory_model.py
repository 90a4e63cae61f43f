"""Clients come back to topics with history at any of three hosts, while these, Redis and the network fail.

Nothing is missing or twice, or clients are told; and nobody is a member who is gone.
"""

import os

import pytest
from hosts_memory_model import FAULTS, run_fault
from hosts_model import world
from memory_readers import SETTINGS

MESSAGES = 3_000
CLIENTS = 40
# `HUBBUB_ALL_FAULTS=1` runs those that the other tests of this directory mostly cover, too.
USUAL = ("calm", "kill", "killed-redis", "old-dump", "frozen-redis", "lost-packets")
NAMES = list(FAULTS) if os.environ.get("HUBBUB_ALL_FAULTS") else USUAL


@pytest.mark.parametrize("name", NAMES)
async def test_what_was_missed_is_recovered_or_known_to_be_lost(redis_program: str, name: str) -> None:
    with world(redis_program, **SETTINGS) as servers:
        result = await run_fault(servers, name, MESSAGES, clients=CLIENTS)
    assert result.published >= MESSAGES
    # Those before the fault; calmly, each reader hears a tenth of the messages.
    assert result.record.received > 1_000
    assert result.record.recoveries > 0
