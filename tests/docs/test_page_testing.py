"""docs/testing.md: the tests that it shows pass, in a directory that is set up as it says."""

import pytest
from as_process import serving
from readers_tests import passed, passed_in_node
from snippets import Snippet, shows, snippets_of, source

PAGE = "docs/testing.md"

# Installing a program may take longer than a test is given.
pytestmark = pytest.mark.timeout(60, func_only=True)


def block_of(language: str) -> str:
    """Return the page's one block of another language than Python."""
    (block,) = [snippet.text for snippet in snippets_of(PAGE) if snippet.language == language]
    return block


@shows(PAGE, "Testing an application")
@shows(PAGE, "A server in the test's event loop")
@shows(PAGE, "Waiting for events")
@shows(PAGE, "Times and limits")
@shows(PAGE, "A handler alone")
@shows(PAGE, "Several workers")
async def test_all_tests_pass(snippets: list[Snippet]) -> None:
    app, conftest, *tests = (source((snippet,), {}) for snippet in snippets)
    files = {f"test_{number}.py": test for number, test in enumerate(tests)}
    files |= {"pyproject.toml": block_of("toml"), "app.py": app, "conftest.py": conftest}
    assert await passed(files) == sum(test.count("def test_") for test in tests)


@shows(PAGE, "The page in a browser")
async def test_the_page_is_tested_in_a_browser(snippets: list[Snippet], chromium: str) -> None:
    # A reader has Playwright's own browser. The tests use the system's, which root may run only without its sandbox.
    launched = {"launch()": f"launch(executable_path={chromium!r}, args=['--no-sandbox'])"}
    assert await passed({"test_page.py": source(tuple(snippets), launched)}) == 1


async def test_javascript_is_tested_in_node(node: str) -> None:
    (application, *_) = snippets_of(PAGE)
    async with serving(application) as server:
        assert await passed_in_node(node, block_of("js"), server.port) == 1
