"""docs/react.md: its project is type-checked, built and run by Vite, and works in a browser."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from as_process import Running, serving
from playwright.async_api import Page, expect
from snippets import Snippet, shows, snippets_of
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub import client_path
from ports import free_port

PAGE = "docs/react.md"
PROJECT = Path(__file__).with_name("react")
BUILD = 'Path(__file__).with_name("web") / "dist"'
HUBBUB_RUN = ("-m", "hubbub", "run", "app:server")

# Installing programs may take longer than a test is given.
pytestmark = pytest.mark.timeout(60, func_only=True)


@pytest.fixture(scope="module")
def packages(unavailable: Callable[[str], NoReturn]) -> Path:
    """React, Vite and TypeScript, installed by npm."""
    modules, locked = PROJECT / "node_modules", PROJECT / "package-lock.json"
    made = modules / "made"
    # Tests run in several processes; only one may install.
    with locked.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.stat().st_mtime < locked.stat().st_mtime:
            npm = shutil.which("npm")
            if npm is None:
                unavailable("React and Vite: there is no npm to install them with")
            command = [npm, "ci", "--prefix", str(PROJECT), "--no-audit", "--no-fund"]
            run = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if run.returncode != 0:
                unavailable(f"React and Vite: npm could not install them: {run.stderr.strip()}")
            made.touch()
    return modules


class Web:
    """The project of the page."""

    def __init__(self, directory: Path, node: str, packages: Path) -> None:
        self.directory = directory
        self._node = node
        shutil.copytree(packages, directory / "node_modules", symlinks=True)
        source = directory / "src"
        source.mkdir()
        for name in ("package.json", "tsconfig.json", "index.html"):
            shutil.copy(PROJECT / name, directory)
        for name in ("hubbub.js", "hubbub.d.ts"):
            shutil.copy(client_path().with_name(name), source)
        blocks = [snippet for snippet in snippets_of(PAGE) if snippet.language in ("ts", "tsx")]
        hook, app, main, self._config = (block.text for block in blocks)
        for name, text in (("useHubbub.ts", hook), ("App.tsx", app), ("main.tsx", main)):
            (source / name).write_text(text, encoding="utf-8")

    def configure(self, port: int, proxy: str) -> None:
        """Write `vite.config.ts` for a server at that port, with these options of the proxy."""
        text = self._config
        for there, here in (("9501", str(port)), ("ws: true", proxy)):
            assert text.count(there) == 1
            text = text.replace(there, here)
        (self.directory / "vite.config.ts").write_text(text, encoding="utf-8")

    def command(self, program: str, *arguments: str) -> tuple[str, ...]:
        return (self._node, f"node_modules/{program}", *arguments)

    async def run(self, program: str, *arguments: str) -> None:
        """Run a program of a package, which must succeed."""
        process = await asyncio.create_subprocess_exec(
            *self.command(program, *arguments),
            cwd=self.directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()

    @asynccontextmanager
    async def developing(self) -> AsyncIterator[int]:
        """Run Vite's development server until the end of the block, which gets its port."""
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *self.command("vite/bin/vite.js", "--port", str(port), "--strictPort", "--host", "127.0.0.1"),
            cwd=self.directory,
            # Without colours, which would be in the middle of the address.
            env={**os.environ, "NO_COLOR": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            assert process.stdout
            while f":{port}/".encode() not in (line := await process.stdout.readline()):
                assert line, "Vite has ended"
            yield port
        finally:
            process.terminate()
            await process.communicate()


@pytest.fixture
def web(tmp_path: Path, node: str, packages: Path) -> Web:
    """The project, which is not yet configured."""
    return Web(tmp_path, node, packages)


async def say_and_see(page: Page, running: Running, address: str) -> None:
    """Open the page, and talk in both directions."""
    await page.goto(address)
    await expect(page.get_by_role("status")).to_have_text("open")
    await page.get_by_placeholder("Say something").fill("hello")
    await page.keyboard.press("Enter")
    await expect(page.locator("li")).to_have_text(["hello"])
    async with running.connect("/live") as other:
        await other.send('{"text": "good morning"}')
        await expect(page.locator("li")).to_have_text(["hello", "good morning"])


@shows(PAGE, "The server")
async def test_the_page_works_during_development(snippets: list[Snippet], web: Web, page: Page) -> None:
    reloading = (*HUBBUB_RUN, "--reload")
    async with serving(*snippets, arguments=reloading) as running:
        web.configure(running.port, "ws: true")
        async with web.developing() as port:
            await say_and_see(page, running, f"http://127.0.0.1:{port}/")


@shows(PAGE, "The server")
@shows(PAGE, "In production")
async def test_the_page_works_when_it_is_built(snippets: list[Snippet], web: Web, page: Page) -> None:
    web.configure(9501, "ws: true")
    await web.run("typescript/bin/tsc", "--project", ".")
    await web.run("vite/bin/vite.js", "build")
    dist = {BUILD: f"Path({str(web.directory / 'dist')!r})"}
    async with serving(*snippets, arguments=HUBBUB_RUN, replacing=dist) as running:
        await say_and_see(page, running, f"http://127.0.0.1:{running.port}/")
        async with page.expect_response("**/assets/*.js") as script:
            await page.goto(f"http://127.0.0.1:{running.port}/rooms/7")
        assert (await (await script.value).all_headers())["cache-control"] == "max-age=31536000, immutable"
        await expect(page.get_by_role("status")).to_have_text("open")


@shows(PAGE, "The server")
@pytest.mark.parametrize(
    ("proxy", "is_accepted"),
    [
        ("ws: true", True),
        ("ws: true, changeOrigin: true", False),
        ("ws: true, changeOrigin: true, rewriteWsOrigin: true", True),
    ],
)
async def test_which_proxy_the_server_accepts(snippets: list[Snippet], web: Web, proxy: str, is_accepted: bool) -> None:
    async with serving(*snippets, arguments=HUBBUB_RUN) as running:
        web.configure(running.port, proxy)
        async with web.developing() as port:
            client = connect(f"ws://127.0.0.1:{port}/live", origin=f"http://127.0.0.1:{port}", proxy=None)  # type: ignore[arg-type]
            if is_accepted:
                async with client as connection:
                    await connection.send('{"text": "hello"}')
                    assert await connection.recv() == '{"text":"hello"}'
            else:
                with pytest.raises(InvalidStatus) as refused:
                    await client
                assert refused.value.response.status_code == 403
                await running.printed("pages of this origin may not connect here")
