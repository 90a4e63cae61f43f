"""Build the documentation's site into site/, and check it. Print any mistakes, and exit with status 1 if there are any.

The pages are the project's Markdown files, with their paths. Zensical reports links to missing pages and headings, and
missing names of the API. This script then checks the built site for what Zensical does not report:
links to other missing files, and anything that a reader's browser would fetch from elsewhere.
"""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "target" / "docs"
SITE = ROOT / "site"

# Files and directories that the pages link to; they are copied with their paths.
LINKED = ("LICENSE", "benchmarks", "docs", "examples", "python/hubbub/demo", "tests/conformance/results.json")
NO_PAGES = shutil.ignore_patterns("__pycache__", "Cargo.*")


def stage() -> None:
    """Copy the site's sources into an empty directory: remains of an earlier build could hide missing files."""
    shutil.rmtree(STAGE, ignore_errors=True)
    pages = STAGE / "pages"
    pages.mkdir(parents=True)
    shutil.copy(ROOT / "zensical.toml", STAGE)
    (STAGE / "python").symlink_to(ROOT / "python")
    for page in ROOT.glob("*.md"):
        shutil.copy(page, pages)
    for name in LINKED:
        source, target = ROOT / name, pages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=NO_PAGES)
        else:
            shutil.copy(source, target)


# Elements whose `src` a browser fetches by itself.
FETCHED = ("audio", "embed", "iframe", "img", "script", "video")


class Page(HTMLParser):
    """The names, links and fetched files of a page of the site."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Record an element's name and its links."""
        has = {name: value for name, value in attributes if value}
        self.names |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.add(has["href"])
        elif tag == "link" and has.get("rel") != "canonical" and "href" in has:
            self.fetched.add(has["href"])
        elif tag in FETCHED and "src" in has:
            self.fetched.add(has["src"])
        # Candidates with their sizes: "wide.png 2x, narrow.png".
        self.fetched |= {each.split()[0] for each in has.get("srcset", "").split(",") if each.strip()}


def problems(site: Path) -> list[str]:
    """Return the mistakes of a site, one per line: broken links, and files that are fetched from elsewhere."""
    site = site.resolve()
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in sorted(pages.items()):
        where = path.relative_to(site)
        found += [f"{where} fetches {url}" for url in sorted(page.fetched) if urlsplit(url).netloc]
        for url in sorted(page.links | page.fetched):
            parts = urlsplit(url)
            if parts.scheme in ("http", "https") and not parts.netloc:
                found.append(f"{where}: {url} is no address")
            if parts.scheme or parts.netloc:
                continue
            # A path that begins with a slash is relative to the site.
            base = site if parts.path.startswith("/") else path.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{where}: {url} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                found.append(f"{where}: {url} leads to no heading")
    return found


def main() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "reference_pages.py"], check=True)
    stage()
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=STAGE)
    if built.returncode:
        sys.exit(1)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(STAGE / "site", SITE)
    if found := problems(SITE):
        sys.exit("\n".join(found))
    print(f"The site is {SITE / 'index.html'}; its search needs a server: python -m http.server --directory site")


if __name__ == "__main__":
    main()
