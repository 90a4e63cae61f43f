"""The tests that docs/security.md names must be there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECURITY = ROOT / "docs" / "security.md"
TEST = re.compile(r"`([\w/]+\.(?:py|rs))::(\w+)`")


def threats() -> list[tuple[str, str, str]]:
    """Return the rows of the table: a threat, what stops it, and the tests."""
    rows = re.findall(r"^\| (\*\*.*?) \| (.*?) \| (.*?) \|$", SECURITY.read_text(), re.MULTILINE)
    assert len(rows) == SECURITY.read_text().count("\n| **")
    return rows


def test_each_threat_has_tests_and_nothing_beside_them() -> None:
    for threat, _, shown_by in threats():
        assert TEST.sub("", shown_by).strip() == "", threat
        assert TEST.search(shown_by), threat


def test_each_test_that_is_named_exists() -> None:
    named = [test for _, _, shown_by in threats() for test in TEST.findall(shown_by)]
    assert len(named) > 20
    for file, name in named:
        keyword = "fn" if file.endswith(".rs") else "def"
        assert re.search(rf"\b{keyword} {name}\(", (ROOT / file).read_text()), f"{file} has no {name}"
