"""Programs for the tests of how processes are started, watched and ended."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from launched import Launch, Launched, ProgramFile, Run, end, start

# These tests look only at the process that they start.
RUN_EVERYWHERE = ("test_finishing.py", "test_system_exit.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that look at other processes if there is no /proc; `items` includes other directories' tests."""
    if sys.platform != "linux":
        for item in items:
            if item.path.parent == Path(__file__).parent and item.path.name not in RUN_EVERYWHERE:
                item.add_marker(pytest.mark.skip(reason="NOT TESTED: needs /proc"))


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test's servers control sockets of their own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def program(tmp_path: Path) -> ProgramFile:
    """The program that `launch` starts; its name is app.py."""
    return ProgramFile(tmp_path / "app.py")


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Start Python, in the test's directory."""
    async with AsyncExitStack() as stack:

        async def run(*arguments: str | Path, pass_fds: Sequence[int] = (), **environ: str) -> Launched:
            launched = await start(*arguments, cwd=tmp_path, pass_fds=pass_fds, **environ)
            stack.push_async_callback(end, launched)
            return launched

        yield run


@pytest.fixture
def launch(program: ProgramFile, run: Run) -> Launch:
    """Write the program, start it, and wait until it serves."""

    async def launch(lines: str = "", **settings: object) -> Launched:
        program.write(lines, **settings)
        launched = await run(program.path)
        await launched.serves()
        return launched

    return launch
