"""Build the documentation's site into site/, and check it. What is wrong is told, and the exit status is 1.

The pages are the project's Markdown, in the places that it has in the project. Zensical reports links to pages and
headings that are not there, and names of the API that it does not find; what it lets pass is looked for in what it has
built: links to other files, and anything that a reader's browser would fetch from elsewhere.
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

# What the pages link to, beside each other.
LINKED = ("LICENSE", "benchmarks", "docs", "examples", "python/hubbub/demo", "tests/conformance/results.json")
NO_PAGES = shutil.ignore_patterns("__pycache__", "Cargo.*")


def stage() -> None:
    """Lay out what the site is made of, from nothing: what is left of a former build may hide what is missing."""
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
    """What a page of the site has, links to, and fetches."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note an element's name, and where it leads."""
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
    """Return what is wrong with a site, line by line: links that lead nowhere, and what is fetched from elsewhere."""
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
            # One that begins with a slash begins where the site does.
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
