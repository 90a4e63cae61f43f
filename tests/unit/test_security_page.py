"""The tests that docs/security.md names must exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
THREATS, TESTS = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").split("\n## The tests\n")
OF_A_FILE = re.compile(r"    - `[\w/]+\.(?:py|rs)`: `\w+`(?:, `\w+`)*")


def shown_by() -> dict[str, list[tuple[str, str]]]:
    """Return the files and names of the tests listed below each threat's name."""
    found = {}
    for part in TESTS.split("\n- ")[1:]:
        threat, *lines = part.strip().splitlines()
        assert [line for line in lines if not OF_A_FILE.fullmatch(line)] == [], threat
        found[threat] = [(line.split("`")[1], name) for line in lines for name in re.findall(r"`(\w+)`", line)]
    return found


def test_each_threat_has_tests() -> None:
    header, *threats = re.findall(r"^\| (.+?)(?=[:,]| \|)", THREATS, re.MULTILINE)
    assert header == "threat"
    assert threats == list(shown_by())
    assert all(shown_by().values())


def test_each_test_that_is_named_exists() -> None:
    named = [test for tests in shown_by().values() for test in tests]
    assert len(named) > 60
    for file, name in named:
        keyword = "fn" if file.endswith(".rs") else "def"
        assert re.search(rf"\b{keyword} {name}\(", (ROOT / file).read_text()), f"{file} has no {name}"
