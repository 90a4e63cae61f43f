"""A part of the plugins for pytest: writes the outcome of each test to the file that JUDGE_RESULTS names."""

import json
import os
from pathlib import Path

import pytest

__all__ = ["pytest_runtest_logreport", "pytest_sessionfinish"]

_outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note an outcome; a test also fails if its fixtures do."""
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid
        if _outcomes.get(name) != "failed":
            _outcomes[name] = "skipped" if hasattr(report, "wasxfail") else report.outcome


def pytest_sessionfinish() -> None:
    """Write all of them; pytest-xdist gives them to one process."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        Path(os.environ["JUDGE_RESULTS"]).write_text(json.dumps(_outcomes))
