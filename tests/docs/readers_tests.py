"""Runs the tests that the docs show as a reader would: in a directory of their own."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hubbub import client_path


async def passed(files: Mapping[str, str], environ: Mapping[str, str] = {}) -> int:
    """Run pytest in a directory with those files; return how many tests passed; fails unless all did.

    Args:
        files: Their contents, by name.
        environ: Environment variables, in addition to those of this process.
    """
    arguments = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto")
    return _count(r"(\d+) passed", await _run(arguments, files, environ))


async def passed_in_node(node: str, test: str, port: int) -> int:
    """Run a module with tests in Node, with `hubbub.js` beside it; return how many passed; fails unless all did.

    Args:
        node: The path of Node.
        test: The module's code.
        port: A server's port; the module finds its address in `SERVER`.
    """
    files = {
        "package.json": '{"type": "module"}',
        "hubbub.js": client_path().read_text(encoding="utf-8"),
        "page.test.mjs": test,
    }
    # From Node 22 on WebSocket is built in, and the option changes nothing.
    arguments = (node, "--experimental-websocket", "--test")
    return _count(r"^\S+ pass (\d+)$", await _run(arguments, files, {"SERVER": f"ws://127.0.0.1:{port}/"}))


async def _run(arguments: tuple[str, ...], files: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Run a program in a directory with those files; return its output. It must exit without an error."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in files.items():
            (Path(directory) / name).write_text(text, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=directory,
            env={**os.environ, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def _count(pattern: str, printed: str) -> int:
    match = re.search(pattern, printed, re.MULTILINE)
    assert match, printed
    return int(match[1])
