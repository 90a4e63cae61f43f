"""Errors of a site that its generator accepts, but `make docs` finds."""

import runpy
from collections.abc import Callable
from pathlib import Path

from snippets import ROOT

problems: Callable[[Path], list[str]] = runpy.run_path(str(ROOT / "scripts" / "docs.py"))["problems"]


def test_links_have_to_lead_somewhere_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file.txt").touch()
    (tmp_path / "index.html").write_text(
        """
        <h1 id="here"></h1>
        <a href="#here"></a><a href="sub/page.html#there"></a><a href="/file.txt"></a><a href="https://example.com/"></a>
        <a href="#gone"></a><a href="sub/page.html#gone"></a><a href="gone.txt"></a><a href="https:example.com"></a>
        <script src="https://example.com/script.js"></script><link rel="stylesheet" href="//example.com/style.css">
        """
    )
    (tmp_path / "sub" / "page.html").write_text('<h2 id="there"></h2><img src="../file.txt" srcset="gone.png 2x">')
    assert problems(tmp_path) == [
        "index.html fetches //example.com/style.css",
        "index.html fetches https://example.com/script.js",
        "index.html: #gone leads to no heading",
        "index.html: gone.txt leads nowhere",
        "index.html: https:example.com is no address",
        "index.html: sub/page.html#gone leads to no heading",
        "sub/page.html: gone.png leads nowhere",
    ]
