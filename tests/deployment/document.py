"""Reads the papers in docs: what is run here is what stands there."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
DEPLOY = DOCS / "deploy.md"
SECURITY = DOCS / "security.md"


def snippet(language: str, paper: Path = DEPLOY) -> str:
    """Return the one block of code of a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", paper.read_text(), re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def with_other_places(text: str, places: dict[str, str]) -> str:
    """Replace addresses, ports and paths that only exist where it is deployed; each must be there exactly once."""
    for there, here in places.items():
        assert text.count(there) == 1, f"{there!r} does not stand once in the document"
        text = text.replace(there, here)
    return text
