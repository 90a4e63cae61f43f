"""The licences of the crates that are compiled into a wheel are in THIRD-PARTY-LICENSES.txt."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CRATE = ROOT / "crates" / "python"


def test_the_licenses_are_those_of_the_crates_that_are_compiled_in() -> None:
    listed = re.findall(r"^- (\S+ \S+)$", (ROOT / "THIRD-PARTY-LICENSES.txt").read_text(), re.MULTILINE)
    assert set(listed) == compiled_in(), "update THIRD-PARTY-LICENSES.txt with `make licenses`"


def compiled_in() -> set[str]:
    """Return the names and versions of other authors' crates, for all systems that have wheels."""
    targets = tomllib.loads((CRATE / "about.toml").read_text())["targets"]
    command = ["cargo", "tree", "--locked", "--manifest-path", str(CRATE / "Cargo.toml"), "--edges", "normal"]
    options = ["--prefix", "none", "--format", "{p}", *(f"--target={target}" for target in targets)]
    lines = subprocess.check_output([*command, *options], text=True).splitlines()
    # In the lines of our own crates, a path follows the version.
    return {re.sub(r" v(\S+).*", r" \1", line) for line in lines if line and str(ROOT) not in line}
