"""The Python code of the docs: a test runs every block of README.md and docs, exactly as written.

A test names the page and the heading of the blocks that it runs, and gets them in order:

    from as_process import serving
    from snippets import Snippet, shows

    @shows("docs/start.md", "A server that answers")
    async def test_the_server_answers(snippets: list[Snippet]) -> None:
        (program,) = snippets
        async with serving(program) as running, running.connect() as client:
            await client.send("hello")
            assert await client.recv() == "you said: hello"

A heading's section ends at the next heading of its level or a higher one; that of a page's title at the next heading.
There are three ways to run blocks; several blocks passed together are run as one program, in that order:

- `execute(block, server=server)`: a fragment, in this process, with the names that the page assumes;
- `serving(block)`: a program that serves, as a process of its own, until the end of the `async with`;
- `output_of(block)`: a program that ends by itself, as a process of its own.

Use `replacing` for text that differs between the reader's machine and a test's (a port, a file). A test fails if it has
not run all of its blocks, and `test_snippets.py` fails if a block belongs to no test. The last two ways are in
`as_process.py`.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


@dataclass(eq=False)
class Snippet:
    """A block of code on a page."""

    page: str
    line: int
    """The number of its first line; 1 is the page's first."""
    language: str
    text: str
    has_run: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Section:
    """A heading with the blocks below it."""

    title: str
    level: int
    snippets: tuple[Snippet, ...]


@cache
def sections(page: str) -> tuple[Section, ...]:
    """Return the sections of a page in the order of their headings, each without those below it.

    Text above the first heading is in a section of level 0 without a title.
    """
    parts: list[tuple[str, int, list[Snippet]]] = [("", 0, [])]
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8"))
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following:
            parts.append((_plain(following), int(token.tag[1]), []))
        elif token.type in ("fence", "code_block"):
            assert token.map
            language = (token.info.split() or [""])[0]
            parts[-1][2].append(Snippet(page, token.map[0] + 2, language, token.content))
    return tuple(Section(title, level, tuple(found)) for title, level, found in parts)


def _plain(heading: Token) -> str:
    return "".join(token.content for token in heading.children or ())


def snippets_of(page: str) -> Iterator[Snippet]:
    """Yield all blocks of a page."""
    for section in sections(page):
        yield from section.snippets


def is_python(snippet: Snippet) -> bool:
    """Whether it is Python, according to the language after its three backticks."""
    return snippet.language in ("python", "py", "python3", "pycon")


SHOWN: set[Snippet] = set()
"""The blocks that tests run; complete once all test modules have been imported."""


def shows(page: str, title: str) -> pytest.MarkDecorator:
    """Mark a test as the one that runs the Python blocks below a heading.

    Args:
        page: `README.md` or `docs/….md`.
        title: The heading's text, without its marks.
    """
    found = sections(page)
    places = [index for index, section in enumerate(found) if section.title == title]
    if len(places) != 1:
        raise LookupError(f"{page} has {len(places)} headings {title!r}; it has {[each.title for each in found]}")
    own, *others = found[places[0] :]
    below = takewhile(lambda section: section.level > own.level, others) if own.level > 1 else ()
    snippets = [each for section in (own, *below) for each in section.snippets if is_python(each)]
    if not snippets:
        raise LookupError(f"there is no Python below {title!r} in {page}")
    SHOWN.update(snippets)
    return pytest.mark.shows(snippets)


def source(snippets: tuple[Snippet, ...], replacing: Mapping[str, str]) -> str:
    """Join the blocks into a program, and mark them as run; each text to replace must occur once."""
    for snippet in snippets:
        snippet.has_run = True
    text = "\n".join(snippet.text for snippet in snippets)
    for there, here in replacing.items():
        assert text.count(there) == 1, f"{there!r} does not stand once in {', '.join(map(str, snippets))}"
        text = text.replace(there, here)
    return text


def execute(*snippets: Snippet, replacing: Mapping[str, str] = {}, **names: Any) -> dict[str, Any]:
    """Run blocks in this process.

    Args:
        snippets: The blocks to run, in order.
        replacing: Texts to replace first; each must occur once.
        names: Names that the page assumes: variables, modules, functions.

    Returns:
        All names that are defined afterwards.
    """
    program = ast.parse(source(snippets, replacing), filename=str(ROOT / snippets[0].page))
    # A traceback then points into the page.
    ast.increment_lineno(program, snippets[0].line - 1)
    exec(compile(program, str(ROOT / snippets[0].page), "exec"), names)
    return names
