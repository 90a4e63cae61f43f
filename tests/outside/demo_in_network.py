"""Runs the demo in a network namespace with several addresses: `demo_in_network.py HOSTS`.

Prints as JSON the addresses that the demo prints, each with the HTTP status that it returns.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

ADDRESSES = ("10.9.8.7/24", "192.168.7.6/24", "fd00:9::7/64")


def network() -> None:
    """Set up the addresses and routes of this machine."""
    for command in (
        "link set lo up",
        # An IPv6 address is usable at once only if the kernel does not look for duplicates first.
        *(f"address add {address} dev lo{' nodad' if ':' in address else ''}" for address in ADDRESSES),
        "route add default dev lo src 10.9.8.7",
        "route add 192.168.0.0/16 dev lo src 192.168.7.6",
        "-6 route add default dev lo src fd00:9::7",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def status_of(url: str) -> int:
    # A proxy would lead out of this network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=20) as answer:
        return int(answer.status)


def main(hosts: str) -> None:
    network()
    demo = subprocess.Popen(
        [sys.executable, "-m", "hubbub", "demo", "--host", hosts, "--port", "9501", "--workers", "1"],
        stdout=subprocess.PIPE,
    )
    try:
        assert demo.stdout
        # It is all written at once.
        printed = os.read(demo.stdout.fileno(), 65536).decode()
        print(json.dumps({url: status_of(url) for url in re.findall(r"http://\S+", printed)}))
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(20) == 0
    finally:
        demo.kill()
        demo.wait()


main(*sys.argv[1:])
