"""docs/api.md has every public name."""

import re

from snippets import ROOT

import hubbub


def test_every_public_name_is_there_once() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: hubbub\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(hubbub.__all__) - {"__version__"})
