"""Reads pages of the docs, so that the tests run exactly what they show."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def snippet(language: str, page: str = "deploy.md") -> str:
    """Return a page's only block of code in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def with_other_places(text: str, places: dict[str, str]) -> str:
    """Replace addresses, ports and paths that exist only in a deployment; each must occur exactly once."""
    for there, here in places.items():
        assert text.count(there) == 1, f"{there!r} does not stand once in the document"
        text = text.replace(there, here)
    return text
