"""Where a server listens: one host or several, all on one port."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from launched import Launch, ProgramFile, Run, ask
from websockets.asyncio.client import connect

from hubbub import Server
from hubbub.errors import CannotServe
from hubbub.listening import listen


def addresses_of(sockets: list[socket.socket]) -> list[str]:
    """Close listening sockets, and return their hosts; assert that they have the same port."""
    with contextlib.ExitStack() as opened:
        for each in sockets:
            opened.enter_context(each)
        names = [each.getsockname() for each in sockets]
    assert len({name[1] for name in names}) == 1
    return [name[0] for name in names]


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A socket that listens at ::1, on any port."""
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", 0))
        taken.listen()
        yield taken


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that resolves to 127.0.0.1 and ::1; localhost does not do so on every machine."""
    resolve = socket.getaddrinfo

    def resolving(host: str, *arguments: Any, **options: Any) -> list[Any]:
        hosts = ["::1", "127.0.0.1"] if host == "both.example" else [host]
        return [found for each in hosts for found in resolve(each, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    return "both.example"


async def answer_at(host: str, port: int) -> str:
    async with connect(f"ws://{f'[{host}]' if ':' in host else host}:{port}/", proxy=None) as client:
        return str(await ask(client, "'served'"))


@pytest.mark.parametrize("workers", [1, 2])
async def test_several_hosts_are_served_on_one_free_port(launch: Launch, workers: int) -> None:
    launched = await launch(host=["127.0.0.1", "::1"], workers=workers)
    for host in ("127.0.0.1", "::1"):
        assert await answer_at(host, launched.port) == "served"
    await launched.stop()
    assert any(f"listening on 127.0.0.1 and ::1 port {launched.port}" in line for line in launched.log.all)


async def test_embedded_too() -> None:
    server = Server(["127.0.0.1", "::1"], 0, control=None)
    server.on("message", lambda server, frame: server.push(frame.fd, "served"))
    assert repr(server) == "<Server 127.0.0.1,::1 port 0, not running>"
    async with server:
        assert await answer_at("127.0.0.1", server.port) == await answer_at("::1", server.port) == "served"


async def test_hosts_come_from_a_variable(run: Run, program: ProgramFile) -> None:
    program.write(workers=1)
    launched = await run(program.path, HUBBUB_HOST="127.0.0.1,::1")
    await launched.serves()
    assert await answer_at("::1", launched.port) == "served"
    await launched.stop()


async def test_a_name_is_served_at_all_its_addresses_and_each_address_once(both: str) -> None:
    assert addresses_of(await listen([both], 0, 1)) == ["::1", "127.0.0.1"]
    assert addresses_of(await listen(["127.0.0.1", both, "127.0.0.1"], 0, 1)) == ["127.0.0.1", "::1"]


async def test_the_wildcard_covers_the_addresses_of_its_family(both: str) -> None:
    assert addresses_of(await listen([both, "127.0.0.2", "0.0.0.0"], 0, 1)) == ["::1", "0.0.0.0"]


async def test_ipv6_alone_leaves_ipv4_to_others() -> None:
    (six,) = await listen(["::"], 0, 1)
    with six:
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        port = six.getsockname()[1]
        assert addresses_of(await listen(["0.0.0.0"], port, 1)) == ["0.0.0.0"]


async def test_a_host_that_fails_is_named_and_the_others_are_closed(taken: socket.socket, both: str) -> None:
    port = taken.getsockname()[1]
    for hosts, named in ((["127.0.0.1", "::1"], "::1"), ([both], f"{both} (::1)")):
        with pytest.raises(CannotServe) as refused:
            await listen(hosts, port, 1)
        assert refused.value.errno == errno.EADDRINUSE
        assert str(refused.value.strerror) == f"cannot listen on {named} port {port}: Address already in use"
    assert addresses_of(await listen(["127.0.0.1"], port, 1)) == ["127.0.0.1"]
    with pytest.raises(CannotServe, match=r"cannot listen on 192\.0\.2\.1 port"):
        await listen(["127.0.0.1", "192.0.2.1"], 0, 1)
    with pytest.raises(CannotServe, match=r"cannot listen on nowhere\.invalid"):
        await listen(["127.0.0.1", "nowhere.invalid"], 0, 1)


async def test_a_free_port_is_free_at_all_addresses(taken: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    # Make the kernel first propose a port that is in use at the other address.
    bind, port = socket.socket.bind, taken.getsockname()[1]
    proposed = [port, 0]

    def proposing(self: socket.socket, address: tuple[object, ...]) -> None:
        bind(self, (address[0], proposed.pop(0), *address[2:]) if address[1] == 0 else address)

    monkeypatch.setattr(socket.socket, "bind", proposing)
    assert addresses_of(await listen(["127.0.0.1", "::1"], 0, 1)) == ["127.0.0.1", "::1"]
    assert proposed == []
