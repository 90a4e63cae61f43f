"""Fixtures for tests of several kinds: system programs, installed if missing, and a page in a real browser."""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# No sandbox, because CI runs as root; and no features that load anything except our page from the network.
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Unavailable = Callable[[str], NoReturn]
Installed = Callable[..., str]
OpenBrowser = Callable[..., contextlib.AbstractAsyncContextManager["Browser"]]

# The first version that detects that a .js file is an ES module.
NODE = (20, 19)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Do not count the time of fixtures against the timeout of tests that may install a program."""
    for item in items:
        may_install = isinstance(item, pytest.Function) and "installed" in item.fixturenames
        if may_install and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.fixture(scope="session")
def unavailable() -> Unavailable:
    """Skip the test and say what is missing; fail instead with CI=true, where nothing may be missing."""

    def unavailable(missing: str) -> NoReturn:
        reason = f"NOT TESTED: {missing}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return unavailable


@pytest.fixture(scope="session")
def installed(unavailable: Unavailable) -> Installed:
    """Find programs, and install what is missing.

    `installed("nginx")` returns a path; further arguments are alternative names of the program. On Debian as root, a
    program that is not on the PATH is installed with apt-get, from `package`, by default the one with the first name.
    If that is not possible, the program is `unavailable`.
    """

    def installed(*names: str, package: str | None = None) -> str:
        path = _find(names)
        if path is None:
            _install(package or names[0], names)
            path = _find(names)
        if path is None:
            unavailable(f"there is no {names[0]} on the PATH, and it could not be installed by apt-get")
        return path

    return installed


def _find(names: tuple[str, ...]) -> str | None:
    # Debian installs daemons in directories that are only on root's PATH.
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _install(package: str, names: tuple[str, ...]) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    without_questions = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with (Path(tempfile.gettempdir()) / "hubbub-tests-install.lock").open("w") as lock:
        # Tests run in several processes; only one may run apt-get. Another may just have installed the program.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _find(names):
            return
        for step in (["update"], ["install", "--yes", package]):
            command = ["apt-get", "--quiet", *step]
            subprocess.run(command, env=without_questions, stdout=subprocess.DEVNULL, timeout=600, check=False)


@pytest.fixture(scope="session")
def in_own_network(installed: Installed, unavailable: Unavailable) -> list[str]:
    """The beginning of a command that runs in its own network namespace."""
    installed("iproute2", "ip")
    command = [installed("util-linux", "unshare"), "--net"]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        if os.geteuid() != 0:
            pytest.skip("NOT TESTED: only root can make a network namespace")
        unavailable("root cannot make a network namespace here")
    return command


@pytest.fixture(scope="session")
def node(installed: Installed, unavailable: Unavailable) -> str:
    """The path of a Node.js that is new enough for `hubbub.js`."""
    path = installed("nodejs", "node")
    printed = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    if tuple(map(int, re.findall(r"\d+", printed)[:2])) < NODE:
        unavailable(f"hubbub.js needs Node.js 20.19 or later, and {path} is older")
    return path


@pytest.fixture(scope="session")
def chromium(installed: Installed) -> str:
    """The path of the system's Chromium: the project does not rely on Playwright's own."""
    return installed(*CHROMIUM_NAMES)


@pytest.fixture
def browser(chromium: str) -> OpenBrowser:
    """Opens a browser for this test only, with further flags."""

    @contextlib.asynccontextmanager
    async def browser(*flags: str) -> AsyncIterator["Browser"]:
        # Most runs open no page, and this import is slow.
        from playwright.async_api import async_playwright, expect

        # The default timeout of an expectation is 5 s, which a busy machine may need for its first page alone.
        expect.set_options(timeout=20_000)
        async with async_playwright() as playwright:
            opened = await playwright.chromium.launch(executable_path=chromium, args=[*CHROMIUM_FLAGS, *flags])
            yield opened
            await opened.close()

    return browser


@pytest.fixture
async def page(browser: OpenBrowser) -> AsyncIterator["Page"]:
    """An empty page in a browser for this test only."""
    async with browser() as opened:
        yield await opened.new_page()
