"""Workers killed, stopped, reloaded or terminated under load: each message that must arrive does, once and in order."""

import pytest
from exact_model import DISTURBANCES, run
from hub_server import StartHub

MESSAGES = 8_000


@pytest.mark.parametrize("name", DISTURBANCES)
async def test_every_message_arrives_once_and_in_order(start_hub: StartHub, name: str) -> None:
    result = await run(start_hub(), name, MESSAGES)
    assert result.sent >= MESSAGES
    assert result.disturbances >= 2
    assert result.restarts == (result.disturbances if name in ("kill", "terminate") else 0)
