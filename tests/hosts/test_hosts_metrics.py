"""What monitoring is told about the broker and the other hosts."""

import urllib.request

from raw_peer import PATIENCE
from redis_server import RedisServer
from server_process import wait_until
from several_hosts import StartHosts

from ports import free_port


def metrics_at(port: int) -> dict[str, float]:
    """Return the metrics without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


def test_the_broker_and_the_hosts_are_among_the_metrics(redis: RedisServer, start_hosts: StartHosts) -> None:
    ports = [free_port(), free_port()]
    hosts = start_hosts(redis.url(), redis.url(), each=[{"metrics_port": port} for port in ports])

    def tells(is_up: int, losses: int) -> bool:
        found = [metrics_at(port) for port in ports]
        return all(
            (each["hubbub_broker_up"], each["hubbub_broker_lost_total"], each["hubbub_hosts"]) == (is_up, losses, 2)
            for each in found
        )

    wait_until(lambda: tells(is_up=1, losses=0), "both hosts tell that all is well")
    redis.kill()
    wait_until(lambda: tells(is_up=0, losses=1), "both hosts tell that the broker is away")
    redis.start()
    hosts.become_healthy()
    wait_until(lambda: tells(is_up=1, losses=1), "both hosts tell that the broker is there again")


def test_a_server_without_a_broker_has_no_such_metrics(start_hosts: StartHosts) -> None:
    port = free_port()
    start_hosts(None, metrics_port=port)
    found = metrics_at(port)
    assert "hubbub_accepted_total" in found
    assert not [name for name in found if "broker" in name or "hosts" in name]
