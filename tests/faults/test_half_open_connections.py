"""Peers whose network is gone: no packet tells of it, and the pings find out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

PROGRAM = Path(__file__).with_name("half_open_program.py")


@pytest.fixture(scope="module")
def in_own_network(installed: Callable[..., str], unavailable: Callable[[str], NoReturn]) -> list[str]:
    """The beginning of a command that runs in a network of its own."""
    installed("iproute2", "ip")
    command = [installed("util-linux", "unshare"), "--net"]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        if os.geteuid() != 0:
            pytest.skip("NOT TESTED: only root can make a network namespace for half-open connections")
        unavailable("root cannot make a network namespace here for half-open connections")
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
