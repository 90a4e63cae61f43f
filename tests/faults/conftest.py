"""Servers that tests try to break, each with a bystander, whose connection must not be affected."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer, StartHub, hub_serving
from server_process import Bystander, ServerProcess, StartServer, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that look at other processes if there is no /proc; `items` includes other directories' tests."""
    if sys.platform != "linux":
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="NOT TESTED: needs /proc"))


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers with the options of `fault_server.py`, each with a bystander.

    At the end of the test the bystander must have missed nothing, and the server must be as healthy as before.
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


@pytest.fixture
def start_hub() -> Iterator[StartHub]:
    """Start servers of three workers with settings; at the end of the test each must stop as it should."""
    with ExitStack() as stack:

        def start(**settings: Any) -> HubServer:
            # Not pytest's, which may be too long for the address of a socket.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return stack.enter_context(hub_serving(directory, **settings))

        yield start
