"""Peers whose network is gone: no packet tells of it, and the pings find out."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("half_open_program.py")


@pytest.fixture(scope="module")
def in_own_network() -> list[str]:
    """The beginning of a command that runs in a network of its own."""
    command = ["unshare", "--net"]
    missing = [name for name in ("unshare", "ip") if not shutil.which(name)]
    may = not missing and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    if not may:
        reason = f"HALF-OPEN CONNECTIONS WERE NOT TESTED: {missing or 'this user'} cannot make a network namespace"
        # Who is root may, unless something is wrong with the machine.
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    return command


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
