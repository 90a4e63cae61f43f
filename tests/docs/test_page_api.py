"""docs/api.md has every public name."""

import re

from snippets import ROOT

import hubbub


def test_every_public_name_is_there_once() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(?:::: |`)hubbub\.(\w+)(?:$|` is )", page, re.MULTILINE)
    assert sorted(listed) == sorted(hubbub.__all__)


def test_what_is_not_imported_from_the_package_is_named_above() -> None:
    above, _, below = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("\n## ")
    others = re.findall(r"^::: hubbub\.\w+\.(\w+)$", below, re.MULTILINE)
    assert others
    assert [name for name in others if not re.search(rf"\b{name}`", above)] == []
