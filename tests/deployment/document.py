"""Reads docs/deploy.md, so that the tests run exactly what it shows."""

import re
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"


def snippet(language: str) -> str:
    """Return the only block of code in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", DEPLOY.read_text(), re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def with_other_places(text: str, places: dict[str, str]) -> str:
    """Replace addresses, ports and paths that exist only in a deployment; each must occur exactly once."""
    for there, here in places.items():
        assert text.count(there) == 1, f"{there!r} does not stand once in the document"
        text = text.replace(there, here)
    return text
