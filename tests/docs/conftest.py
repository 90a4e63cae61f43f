"""Gives each test the blocks that it shows, and checks that it runs them."""

from collections.abc import Iterator

import pytest
from snippets import Snippet


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shows(snippets): what the test runs; see snippets.shows")


@pytest.fixture(autouse=True)
def snippets(request: pytest.FixtureRequest) -> Iterator[list[Snippet]]:
    """The blocks that the test's `shows` marks name, in their order; all of them have to be run."""
    shown = [each for mark in reversed([*request.node.iter_markers("shows")]) for each in mark.args[0]]
    for snippet in shown:
        snippet.has_run = False
    yield shown
    left = [str(snippet) for snippet in shown if not snippet.has_run]
    assert not left, f"the test has not run {', '.join(left)}"
