"""Peers whose network is gone: no packet reports it, but the pings detect it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("half_open_program.py")


@pytest.mark.parametrize(("case", "closes"), [("idle", [[1006, "1011"]]), ("reading", [[1006, "1011"]]), ("http", [])])
def test_a_half_open_connection_is_found_and_freed(
    in_own_network: list[str], case: str, closes: list[list[object]]
) -> None:
    run = subprocess.run(
        [*in_own_network, sys.executable, str(PROGRAM), case], capture_output=True, text=True, timeout=50
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["closes"] == closes
    assert told["connections"] == 0
    assert told["queued_bytes"] == 0
    assert "Traceback" not in run.stderr
