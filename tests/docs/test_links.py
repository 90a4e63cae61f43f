"""Links in the docs as a code host shows them, as plain Markdown; `make docs` checks those of the site."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from snippets import ROOT, sections

PAGES = sorted(
    str(path.relative_to(ROOT)) for folder in ("*.md", "benchmarks/*.md", "docs/**/*.md") for path in ROOT.glob(folder)
)


def links(page: str) -> Iterator[str]:
    """Yield the targets of a page's links and pictures."""
    for token in MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8")):
        yield from links_of(token)


def links_of(token: Token) -> Iterator[str]:
    for attribute in ("href", "src"):
        if found := token.attrGet(attribute):
            yield str(found)
    if token.type in ("html_block", "html_inline"):
        yield from re.findall(r"""(?:href|src|srcset)="([^"]*)\"""", token.content)
    for child in token.children or ():
        yield from links_of(child)


@cache
def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings: lower case, without punctuation, with a number for duplicates."""
    slugs = [re.sub(r"[^\w -]", "", section.title.lower()).replace(" ", "-") for section in sections(page)]
    seen: Counter[str] = Counter()
    names = set()
    for slug in slugs:
        names.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return names


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), link
            assert re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc), link
            continue
        target = (ROOT / page).parent / unquote(parts.path) if parts.path else ROOT / page
        assert target.exists(), link
        if parts.fragment:
            assert unquote(parts.fragment) in anchors(str(target.relative_to(ROOT))), link


def test_links_are_found() -> None:
    assert {"docs/start.md", "docs/images/chat-desktop-light.png", "https://socket.io/"} <= set(links("README.md"))
    assert "settings.md#origins" in set(links("docs/start.md"))
