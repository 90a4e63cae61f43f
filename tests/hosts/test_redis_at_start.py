"""Servers whose Redis is absent, refuses them or cannot be written to when they start."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bystanders import bystanding
from hub_server import HubServer
from memory_readers import OPTIONS
from redis_server import PORTS, RedisServer, StartRedis, redis_running
from several_hosts import PROGRAM, Hosts, StartHosts, hears, number_of, until


def cannot_start(directory: Path, broker: str, **settings: Any) -> str:
    """Start a server that must end with status 1, and return the one line that it prints."""
    options = {"broker": broker, "control": str(directory / "c"), "workers": 2, **settings}
    program = [sys.executable, str(PROGRAM), json.dumps(options), json.dumps(OPTIONS), str(directory / "members")]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0, text=True)
    try:
        out, errors = process.communicate(timeout=45)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 1, f"status {process.returncode}: {errors}"
    assert "Traceback" not in errors
    assert out == "", "it served"
    lines = [line for line in errors.strip().splitlines() if "open files" not in line]
    assert len(lines) == 1, errors
    return lines[0]


def unused_port() -> int:
    """Return a port below those of clients at which nothing listens."""
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("all ports are used")


def test_without_redis_a_server_does_not_start_and_says_why_in_one_line(tmp_path: Path) -> None:
    port = unused_port()
    line = cannot_start(tmp_path, f"redis://127.0.0.1:{port}/0")
    assert f"127.0.0.1:{port}" in line
    assert "refused" in line.lower()


def test_a_name_that_does_not_exist_is_named(tmp_path: Path) -> None:
    line = cannot_start(tmp_path, "redis://no-such-host.invalid:6379/0")
    assert "no-such-host.invalid" in line


def test_a_wrong_password_is_reported_and_not_shown(start_redis: StartRedis, tmp_path: Path) -> None:
    redis = start_redis(requirepass="right-password")
    line = cannot_start(tmp_path, redis.url(user="default:wrong-secret"))
    assert "wrong-secret" not in line
    assert "password" in line.lower() or "WRONGPASS" in line


def test_a_missing_password_is_reported(start_redis: StartRedis, tmp_path: Path) -> None:
    redis = start_redis(requirepass="right-password")
    line = cannot_start(tmp_path, redis.url())
    assert "password" in line.lower() or "NOAUTH" in line


def test_a_replica_that_cannot_be_written_to_is_reported(start_redis: StartRedis, tmp_path: Path) -> None:
    master = start_redis()
    replica = start_redis(replicaof=f"127.0.0.1 {master.port}")
    line = cannot_start(tmp_path, replica.url())
    assert "is a replica" in line


def test_a_server_that_is_no_redis_is_reported(tmp_path: Path) -> None:
    async def run() -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await asyncio.to_thread(cannot_start, tmp_path, f"redis://127.0.0.1:{port}/0")

    assert "redis" in asyncio.run(run()).lower()


def test_a_host_for_which_there_is_no_number_does_not_start_unless_it_may_serve_alone(
    redis: RedisServer, start_hosts: StartHosts, tmp_path: Path
) -> None:
    with redis.client() as client:
        for number in range(1, 256):
            assert client.ask("SET", f"hubbub:lease:{number}", f"of another {number}", "PX", 120_000) == "OK"
    assert "all 255 host numbers are taken" in cannot_start(tmp_path, redis.url())
    hosts = start_hosts(redis.url(), broker_required=False)

    async def run() -> None:
        async with hosts.clients() as (alone,):
            assert number_of(alone.fd) == 0
            assert await alone.ask(f"server.push({alone.fd}, 'to myself')") is True
            assert redis.ask("DEL", "hubbub:lease:77") == 1
            await until(alone, "[host.number for host in server.hosts()]", lambda numbers: numbers == [77])
            assert await alone.ask("server.push(fd, 'still me')") is True
            async with hosts.clients() as (later,):
                assert number_of(later.fd) == 77

    asyncio.run(run())


def test_with_the_right_password_and_user_hosts_are_one(start_redis: StartRedis, start_hosts: StartHosts) -> None:
    redis = start_redis(requirepass="ri%ght")
    assert redis.port

    with redis.client() as client:
        client.ask("AUTH", "ri%ght")
        client.ask("ACL", "SETUSER", "hub", "on", ">se:cret", "~*", "&*", "+@all")
    start = start_hosts(redis.url(user="default:ri%25ght"), redis.url(user="hub:se%3Acret"))
    asyncio.run(are_one(start))
    assert "se:cret" not in start[1].log()


def test_other_databases_sockets_and_prefixes_are_other_worlds(redis: RedisServer, start_hosts: StartHosts) -> None:
    hosts = start_hosts(redis.socket_url, redis.url())
    asyncio.run(are_one(hosts))
    other = start_hosts(redis.url(), broker_prefix="other")
    with redis.client() as client:
        for key in redis.keys("*"):
            assert key.startswith(("hubbub:", "other:")), key
        assert client.ask("PING") == "PONG"

    async def is_alone() -> None:
        async with other.clients() as (client,):
            assert len(await client.ask("server.hosts()")) == 1

    asyncio.run(is_alone())


async def are_one(hosts: Hosts) -> None:
    async with bystanding(hosts):
        pass


def test_a_server_that_does_not_require_redis_serves_alone_and_joins_later(
    redis_program: str, start_hosts: StartHosts, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with redis_running(redis_program, tmp_path) as redis:
        redis.stop()
        hosts = start_hosts(redis.url(), redis.url(), broker_required=False)

        async def serve_alone() -> None:
            async with hosts.clients() as (first, second):
                assert await first.ask(f"server.push({first.fd}, 'to myself')") is True
                assert await first.ask(f"server.push({second.fd}, 'to another')") is False
                assert not await asyncio.to_thread(hosts[0].is_healthy)
                await asyncio.to_thread(redis.start)
                await hosts.know_each_other()

        asyncio.run(serve_alone())
        asyncio.run(are_one(hosts))
        for host in hosts:
            assert "WARNING" in host.log().upper() or "alone" in host.log()


def test_ids_of_a_server_that_served_alone_stay_its_own_when_it_joins(
    start_redis: StartRedis, start_hosts: StartHosts
) -> None:
    redis = start_redis()
    redis.stop()
    hosts = start_hosts(redis.url(), redis.url(), broker_required=False)

    async def run() -> None:
        async with hosts.clients() as clients:
            redis.start()
            await hosts.know_each_other()
            for client in clients:
                await until(client, f"server.exists({client.fd})", bool)
                assert await client.ask(f"server.push({client.fd}, 'still me')")
            async with hosts.clients() as later:
                assert number_of(later[0].fd) != number_of(later[1].fd)
                assert {number_of(client.fd) for client in later} <= set(range(1, 256))
            ids = [client.fd for client in [*clients, *later]]
            # Alone, two servers may give out equal ids: number 0 belongs to each of them.
            assert len(set(ids[2:])) == 2

    asyncio.run(run())


async def test_a_new_host_reaches_the_others_at_once(redis: RedisServer, start_hosts: StartHosts) -> None:
    """It does not wait until they say again that they are there, which they do every few seconds."""
    async with start_hosts(redis.url(), redis.url()).clients() as others:
        for _ in range(3):
            (new,) = start_hosts(redis.url())
            async with new.client_of(0) as client:
                assert {number_of(other.fd) for other in others} < set(
                    await client.ask("[host.number for host in server.hosts()]")
                )
                for other in others:
                    assert await client.ask(f"server.push({other.fd}, 'from the new one')") is True
                    assert await hears(other) == "from the new one"


def test_without_a_broker_a_server_is_alone_as_ever(start_hosts: StartHosts) -> None:
    hosts = start_hosts(None, None)

    async def run() -> None:
        async with hosts.clients() as (first, second):
            assert number_of(first.fd) == number_of(second.fd) == 0
            await second.ask("server.subscribe(fd, 'news')")
            await first.ask("server.subscribe(fd, 'news')")
            await first.ask("server.publish('news', 'mine')")
            assert await first.receive() == "mine"
            await second.ask("server.push(fd, 'nothing else')")
            assert await second.receive() == "nothing else"
            assert await first.ask("list(server.connections)") == [first.fd]

    asyncio.run(run())
    assert all(host.is_healthy() for host in hosts)


def test_the_master_of_a_server_without_a_broker_has_no_further_thread(start_hosts: StartHosts) -> None:
    (host,) = start_hosts(None)
    assert isinstance(host, HubServer)
    names = [(thread / "comm").read_text().strip() for thread in Path(f"/proc/{host.pid}/task").iterdir()]
    assert not [name for name in names if "redis" in name.lower() or "link" in name.lower()], names
