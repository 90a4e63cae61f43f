"""Hosts, Redis and the network fail under load: each message between hosts arrives once and in order, or is told of."""

import os

import pytest
from hosts_model import FAULTS, run_fault, world

MESSAGES = 1_500
# `HUBBUB_ALL_FAULTS=1` runs those that the other tests of this directory mostly cover, too.
USUAL = ("calm", "kill", "slow-redis", "killed-redis", "lost-commands", "lost-subscriptions")
NAMES = list(FAULTS) if os.environ.get("HUBBUB_ALL_FAULTS") else USUAL


@pytest.mark.parametrize("name", NAMES)
async def test_every_message_arrives_once_and_in_order(redis_program: str, name: str) -> None:
    with world(redis_program) as servers:
        outcome = await run_fault(servers, name, messages=MESSAGES)
    assert outcome.sent >= 2 * MESSAGES
    assert outcome.arrived > outcome.sent
    assert outcome.disconnected > 0
