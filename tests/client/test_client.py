"""The browser client: its own tests, which Node runs; its size, its place, and what is written about it."""

import gzip
import re
import subprocess
from pathlib import Path

import pytest

import hubbub

HERE = Path(__file__).parent
DOCUMENTATION = HERE.parents[1] / "docs" / "client.md"


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.js")), ids=lambda path: path.name)
def test_in_node(node: str, file: Path) -> None:
    run = subprocess.run([node, "--test", file.name], cwd=HERE, capture_output=True, text=True, timeout=50)
    assert run.returncode == 0, run.stdout + run.stderr
    # Node also succeeds for a file in which it finds no test.
    passed = re.search(r"^\S+ pass (\d+)$", run.stdout, re.MULTILINE)
    assert passed, run.stdout
    assert int(passed[1]) >= file.read_text(encoding="utf-8").count("\ntest(")


def test_the_path_is_that_of_the_module_with_its_types_beside_it() -> None:
    path = hubbub.client_path()
    assert path.is_absolute()
    assert path.name == "hubbub.js"
    assert "export const connect" in path.read_text(encoding="utf-8")
    assert path.with_suffix(".d.ts").is_file()


def test_it_is_small() -> None:
    assert len(gzip.compress(hubbub.client_path().read_bytes(), 9)) < 5 * 1024


def test_the_defaults_are_the_documented_ones() -> None:
    source = hubbub.client_path().read_text(encoding="utf-8")
    types = hubbub.client_path().with_suffix(".d.ts").read_text(encoding="utf-8")
    table = re.search(r"const DEFAULTS = \{\n(.*?)\n\}", source, re.DOTALL)
    assert table
    defaults = dict(re.findall(r"(\w+): ([^,]+),", table[1].replace("1024 * 1024", "1 MiB")))
    in_types = re.findall(r"Default: ([\d.]+(?: MiB)?)\b.*\n +(\w+)\?: number", types)
    in_documentation = re.findall(
        r"^\| `(\w+)` \| ([\d.]+(?: MiB)?) ", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: value for value, name in in_types} == defaults
    assert dict(in_documentation) == defaults
