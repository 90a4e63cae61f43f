"""What tests of several kinds need: programs that the system has, or can have, and a page in a real browser."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# No sandbox, because CI runs as root; and nothing that would ask the network for anything but our page.
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

# The first that takes a .js file for the ES module that it is.
NODE = (20, 19)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that may have a program installed their time without their fixtures'."""
    for item in items:
        may_install = isinstance(item, pytest.Function) and "installed" in item.fixturenames
        if may_install and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.fixture(scope="session")
def unavailable() -> Unavailable:
    """Skip the test loudly, with what is missing; with CI=true, where everything must be there, let it fail."""

    def unavailable(missing: str) -> NoReturn:
        reason = f"NOT TESTED: {missing}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return unavailable


@pytest.fixture(scope="session")
def installed(unavailable: Unavailable) -> Installed:
    """Find programs, and install what is missing.

    `installed("nginx")` returns a path; further names are others under which the program may be found. On Debian as
    root, what is not on the PATH is installed with apt-get, from the package with the first name. Where that cannot
    be, it is `unavailable`.
    """

    def installed(package: str, *other_names: str) -> str:
        names = (package, *other_names)
        path = _find(names)
        if path is None:
            _install(package)
            path = _find(names)
        if path is None:
            unavailable(f"there is no {package} on the PATH, and it could not be installed by apt-get")
        return path

    return installed


def _find(names: tuple[str, ...]) -> str | None:
    # Debian's daemons are where only the PATH of root leads.
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _install(package: str) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    without_questions = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", package]):
        subprocess.run(
            ["apt-get", "--quiet", *step], env=without_questions, stdout=subprocess.DEVNULL, timeout=600, check=False
        )


@pytest.fixture(scope="session")
def in_own_network(installed: Installed, unavailable: Unavailable) -> list[str]:
    """The beginning of a command that runs in a network of its own."""
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
    """The path of the system's Chromium: Playwright brings none that this project could rely on."""
    return installed(*CHROMIUM_NAMES)


@pytest.fixture
def browser(chromium: str) -> OpenBrowser:
    """Opens a browser that is this test's own, with further flags."""

    @contextlib.asynccontextmanager
    async def browser(*flags: str) -> AsyncIterator["Browser"]:
        # Most runs open no page, and it takes long to load.
        from playwright.async_api import async_playwright, expect

        # An expectation has 5 s to come true unless told, which a busy machine may need for its first page alone.
        expect.set_options(timeout=20_000)
        async with async_playwright() as playwright:
            opened = await playwright.chromium.launch(executable_path=chromium, args=[*CHROMIUM_FLAGS, *flags])
            yield opened
            await opened.close()

    return browser


@pytest.fixture
async def page(browser: OpenBrowser) -> AsyncIterator["Page"]:
    """An empty page of a browser that is this test's own."""
    async with browser() as opened:
        yield await opened.new_page()
