"""`hubbub demo`: the addresses that it prints can be opened."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("demo_in_network.py")
OWN_4 = ["http://10.9.8.7:9501/", "http://192.168.7.6:9501/"]
OWN_6 = ["http://[fd00:9::7]:9501/"]


@pytest.mark.parametrize(
    ("hosts", "first", "own"),
    [
        ("0.0.0.0", ["http://localhost:9501/"], OWN_4),
        ("0", ["http://localhost:9501/"], OWN_4),
        # Not everywhere localhost has an IPv6 address.
        ("::", ["http://localhost:9501/", "http://[::1]:9501/"], OWN_6),
        ("0.0.0.0,::", ["http://localhost:9501/"], OWN_4 + OWN_6),
        ("127.0.0.1,::1", ["http://127.0.0.1:9501/"], ["http://[::1]:9501/"]),
    ],
)
def test_the_addresses_that_it_prints_can_be_opened(
    in_own_network: list[str], hosts: str, first: list[str], own: list[str]
) -> None:
    run = subprocess.run(
        [*in_own_network, sys.executable, str(PROGRAM), hosts], capture_output=True, text=True, timeout=50
    )
    assert run.returncode == 0, run.stderr
    statuses: dict[str, int] = json.loads(run.stdout)
    assert set(statuses.values()) == {200}
    urls = list(statuses)
    assert urls[0] in first
    assert [url for url in urls if url in own] == own
    assert set(urls) <= {*first, *own, "http://[::1]:9501/"}
