"""Docstrings have the form that the API's page expects."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "hubbub"
MODULES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])


def returned(docstring: str) -> Iterator[list[str]]:
    """Yield the items that a reader of the API's page sees below each `Returns:` and `Yields:`."""
    for section in re.findall(r"^(?:Returns|Yields):\n((?: .*\n|\n)*)", docstring + "\n", re.MULTILINE):
        yield re.findall(r"^    \S.*$", section, re.MULTILINE)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_what_is_returned_is_one_item(module: Path) -> None:
    """If the item has several lines, all but the first must be indented; otherwise each becomes an item of its own."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (docstring := ast.get_docstring(node)):
            assert [items for items in returned(docstring) if len(items) != 1] == [], node.name


def test_items_are_found_in_a_docstring() -> None:
    text = "Do it.\n\nReturns:\n    This,\n    that.\n\nRaises:\n    ValueError: It is not done."
    assert [*returned(text)] == [["    This,", "    that."]]
