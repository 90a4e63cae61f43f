"""Servers that the tests reach from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from outside_server import OutsideServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideServer]:
    """A server that the tests of a module share, and must leave as they found it."""
    server = OutsideServer(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()
    assert "Traceback" not in server.log()
    assert "panicked" not in server.log()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OutsideServer]:
    """A server that a test may stop, freeze and kill."""
    server = OutsideServer(tmp_path)
    yield server
    server.kill()
