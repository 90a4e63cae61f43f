"""Runs the tests that the papers show, as a reader would: in a directory of their own."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hubbub import client_path


async def passed(files: Mapping[str, str], environ: Mapping[str, str] = {}) -> int:
    """Run pytest in a directory with those files; return how many tests have passed, if all have.

    Args:
        files: What is in them, by name.
        environ: Variables of the environment, besides those of this process.
    """
    arguments = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto")
    return _count(r"(\d+) passed", await _run(arguments, files, environ))


async def passed_in_node(node: str, test: str, port: int) -> int:
    """Run a module with tests in Node, with `hubbub.js` beside it; return how many have passed, if all have.

    Args:
        node: The path of Node.
        test: What is in the module.
        port: Where a server listens, whose address is in `SERVER`.
    """
    files = {
        "package.json": '{"type": "module"}',
        "hubbub.js": client_path().read_text(encoding="utf-8"),
        "page.test.mjs": test,
    }
    # From Node 22 on, where a WebSocket is there by itself, the option changes nothing.
    arguments = (node, "--experimental-websocket", "--test")
    return _count(r"^\S+ pass (\d+)$", await _run(arguments, files, {"SERVER": f"ws://127.0.0.1:{port}/"}))


async def _run(arguments: tuple[str, ...], files: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Return what is printed by a program that ends without an error, in a directory with those files."""
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
