"""Programs for the tests of how processes are started, watched and ended."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from launched import Launch, Launched, ProgramFile, end, start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other processes are looked at in /proc."""
    if sys.platform != "linux":
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs /proc"))


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the control sockets of the test's servers be its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def program(tmp_path: Path) -> ProgramFile:
    """The program that `launch` starts; its name is app.py."""
    return ProgramFile(tmp_path / "app.py")


@pytest.fixture
async def launch(program: ProgramFile) -> AsyncIterator[Launch]:
    """Write the program, start it, and wait until it serves."""
    async with AsyncExitStack() as stack:

        async def launch(lines: str = "", **settings: object) -> Launched:
            program.write(lines, **settings)
            launched = await start(program.path)
            stack.push_async_callback(end, launched)
            await launched.serves()
            return launched

        yield launch
