"""What docs/hosts.md shows: two hosts behind nginx and HAProxy, users of Redis, and files for containers."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from document import DOCS, snippet
from hub_client import HubClient, Lost, Refused, end
from proxies import haproxy_of_hosts, nginx_of_hosts
from raw_peer import PATIENCE
from redis_server import StartRedis
from several_hosts import Hosts, StartHosts, hears, number_of

from hubbub import Settings

Installed = Callable[..., str]
PROXIES: dict[str, Callable[[Installed, Path, int, int], AbstractAsyncContextManager[int]]] = {
    "nginx": nginx_of_hosts,
    "haproxy": haproxy_of_hosts,
}


async def come_back(port: int) -> HubClient:
    """Connect as a client does that was sent away: again and again, and each refusal counts."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(OSError, Lost):
                return await HubClient.connect(port)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("proxy", PROXIES)
async def test_behind_a_proxy_two_hosts_are_one_and_each_may_be_drained(
    proxy: str, installed: Installed, two_hosts: Hosts, tmp_path: Path
) -> None:
    first, second = two_hosts
    await two_hosts.know_each_other()
    async with PROXIES[proxy](installed, tmp_path, first.port, second.port) as port:
        clients = [await HubClient.connect(port) for _ in range(20)]
        assert len({number_of(client.fd) for client in clients}) == 2
        for client in clients:
            assert await clients[0].ask(f"server.push({client.fd}, 'to you')")
            assert await hears(client) == "to you"

        with first.publisher() as publisher:
            publisher.drain(1.0)
        back = list(await asyncio.gather(*(replaced(client, port) for client in clients)))
        left = {number_of(client.fd) for client in clients} & {number_of(client.fd) for client in back}
        assert len(left) == 1
        assert {number_of(client.fd) for client in back} == left
        await end(client for client in {*clients, *back} if not client.ended.done())
    first.kill()


async def replaced(client: HubClient, port: int) -> HubClient:
    """Wait whether a client is sent away, and then connect it again: no handshake may be refused."""
    async with asyncio.timeout(PATIENCE):
        while not client.ended.done():
            try:
                await asyncio.wait_for(client.ends(), 3)
            except TimeoutError:
                return client
    assert client.close_code == 1012
    try:
        return await come_back(port)
    except Refused as refused:
        raise AssertionError(f"a client that came back got {refused.status}") from None


def test_the_user_of_the_page_may_do_all_that_is_needed_and_no_more(
    start_redis: StartRedis, start_hosts: StartHosts
) -> None:
    redis = start_redis()
    redis.ask(*snippet_of_the_acl().split())
    broker = redis.url(user="hubbub:password")

    async def are_one() -> None:
        hosts = start_hosts(broker, broker)
        await hosts.know_each_other()
        async with hosts.clients() as clients:
            first, second = clients
            assert await first.ask(f"server.push({second.fd}, 'to you')")
            assert await hears(second) == "to you"
            for client in clients:
                assert "position" in await client.ask("server.join(fd, 'room:a', last=1)")
            await first.ask("server.publish('room:a', 'hello')")
            for client in clients:
                assert "hello" in await hears(client)
            assert len(await first.ask("server.presence('room:a')")) == 2

    asyncio.run(are_one())
    denied = redis.ask("ACL", "LOG")
    assert denied == []


def snippet_of_the_acl() -> str:
    (line,) = re.findall(r"^ *(ACL SETUSER .*)$", (DOCS / "hosts.md").read_text(), re.MULTILINE)
    assert isinstance(line, str)
    return line


def settings_in(variables: list[str]) -> None:
    """Check that each variable is that of a setting."""
    names = {variable.removeprefix("HUBBUB_").lower() for variable in variables}
    assert names <= set(Settings.__dataclass_fields__)


def test_the_manifest_is_valid_for_kubernetes() -> None:
    documents = list(yaml.safe_load_all((DOCS / "kubernetes.yaml").read_text()))
    for each in documents:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
    deployment = next(each for each in documents if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings_in([variable["name"] for variable in container["env"]])
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    seconds = int(command[command.index("--seconds") + 1])
    assert pod["terminationGracePeriodSeconds"] > seconds + Settings().shutdown_timeout
    liveness = container["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] > seconds
    # A Service of this name would set a variable that is also a setting's.
    assert all(each["metadata"]["name"] != "hubbub" for each in documents if each["kind"] == "Service")


def test_the_compose_file_sets_what_exists() -> None:
    services = yaml.safe_load((DOCS / "compose.yaml").read_text())["services"]
    for name in ("hubbub1", "hubbub2"):
        settings_in(list(services[name]["environment"]))
        assert services[name]["hostname"] == name
    assert {"redis", "nginx"} <= set(services)
    text = snippet("nginx", "hosts.md")
    assert text.count(":9501") == 2
