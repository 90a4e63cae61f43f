"""Servers to be broken, each with a bystander who must not notice."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from server_process import Bystander, ServerProcess, serving

StartServer = Callable[..., ServerProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Memory and descriptors of another process are read from /proc."""
    if sys.platform != "linux":
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs /proc"))


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers with the options of `fault_server.py`, each with a bystander.

    At the end of the test the bystander must have missed nothing, and the server be none the worse.
    """
    with ExitStack() as stack:

        def start(**options: Any) -> ServerProcess:
            log = tmp_path_factory.mktemp("server") / "log"
            server = stack.enter_context(serving(log, **options))
            stack.enter_context(Bystander(server))
            return server

        yield start


@pytest.fixture
def bystander(server: ServerProcess) -> Iterator[Bystander]:
    """A bystander of the module's `server`."""
    with Bystander(server) as bystander:
        yield bystander
