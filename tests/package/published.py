"""Builds what is published from this repository."""

import os
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = subprocess.check_output([ROOT / "scripts" / "find-python", "--all"], text=True).split()

# Build wheels in a directory of their own, not that of `make build`, in which cargo finds what it compiled last time.
BUILDING = os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target" / "package")}

VERSION: str = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]

WheelFor = Callable[[str], Path]


def run(*command: str | Path) -> None:
    """Run a command; if it fails, the test shows its output."""
    done = subprocess.run(command, env=BUILDING, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
