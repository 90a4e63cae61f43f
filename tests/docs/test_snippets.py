"""Every block in the docs is accounted for: Python blocks are run, and other blocks name their language."""

import importlib
from pathlib import Path

import pytest
from snippets import PAGES, SHOWN, Section, Snippet, execute, is_python, sections, snippets_of

# None of these is another name for Python.
OTHER_LANGUAGES = {
    "caddy",
    "css",
    "dockerfile",
    "haproxy",
    "html",
    "ini",
    "js",
    "json",
    "nginx",
    "php",
    "sh",
    "sql",
    "text",
    "toml",
    "ts",
    "tsx",
    "yaml",
}


def test_every_python_block_has_a_test_that_runs_it() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(file.stem)
    python = [snippet for page in PAGES for snippet in snippets_of(page) if is_python(snippet)]
    assert len(python) > 10
    assert [str(snippet) for snippet in python if snippet not in SHOWN] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page: str) -> None:
    named = {*OTHER_LANGUAGES, "python"}
    assert [str(snippet) for snippet in snippets_of(page) if snippet.language not in named] == []


def test_a_page_is_read_by_its_headings(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A *title*\n\n- in a list:\n\n  ```python\n  one = 1\n  ```\n\n## Below\n\n```sh\nls\n```\n")
    above, title, below = sections(str(page))
    assert above == Section("", 0, ())
    assert (title.title, title.level, below.title, below.level) == ("A title", 1, "Below", 2)
    (first,), (second,) = title.snippets, below.snippets
    assert (first.text, first.line, first.language) == ("one = 1\n", 6, "python")
    assert (second.text, second.line, second.language) == ("ls\n", 12, "sh")


def test_a_traceback_points_into_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        execute(Snippet("docs/page.md", 40, "python", "one = 1\none / 0\n"))
    place = raised.traceback[-1]
    assert str(place.path).endswith("docs/page.md")
    assert place.lineno + 1 == 41


def test_what_is_to_be_exchanged_must_be_there_once() -> None:
    with pytest.raises(AssertionError, match=r"'2' does not stand once in docs/page\.md:3"):
        execute(Snippet("docs/page.md", 3, "python", "one = 1"), replacing={"2": "3"})
