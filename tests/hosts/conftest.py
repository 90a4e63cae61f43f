"""Servers on several hosts, which are one through a Redis of the test's own."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

# The clients, programs and models of these tests.
sys.path.append(str(Path(__file__).resolve().parent.parent / "faults"))
sys.path.append(str(Path(__file__).resolve().parent.parent / "deployment"))

from redis_server import RedisServer, StartRedis, redis_running
from several_hosts import Hosts, StartHosts, hosts_running


class Installed(Protocol):
    """The fixture `installed`."""

    def __call__(self, *names: str, package: str | None = None) -> str: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests if there is no /proc; `items` includes other directories' tests."""
    if sys.platform != "linux":
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="NOT TESTED: needs /proc"))


@pytest.fixture(scope="session")
def redis_program(installed: Installed) -> str:
    """The path of `redis-server`."""
    return installed("redis-server", package="redis-server")


@pytest.fixture
def start_redis(redis_program: str) -> Iterator[StartRedis]:
    with ExitStack() as stack:

        def start(**options: str | int) -> RedisServer:
            # Not pytest's directory, whose path may be too long for the address of a socket.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return stack.enter_context(redis_running(redis_program, directory, **options))

        yield start


@pytest.fixture
def redis(start_redis: StartRedis) -> RedisServer:
    """A Redis for this test."""
    return start_redis()


@pytest.fixture
def start_hosts() -> Iterator[StartHosts]:
    with ExitStack() as stack:

        def start(*brokers: str | None, each: list[dict[str, Any]] | None = None, **settings: Any) -> Hosts:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return stack.enter_context(hosts_running(directory, brokers, each=each, **settings))

        yield start


@pytest.fixture
def two_hosts(redis: RedisServer, start_hosts: StartHosts) -> Hosts:
    """Two hosts on one Redis."""
    return start_hosts(redis.url(), redis.url())


@pytest.fixture(scope="module")
def three_hosts(redis_program: str) -> Iterator[Hosts]:
    """Three hosts on one Redis for all tests of a module, which must leave them healthy."""
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryDirectory() as other,
        redis_running(redis_program, Path(directory)) as redis,
        hosts_running(Path(other), [redis.url()] * 3) as hosts,
    ):
        yield hosts
