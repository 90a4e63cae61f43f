"""Writes results into the pages that show them, between their marks."""

from pathlib import Path

import tables
from results import Results

HERE = Path(__file__).parent
ROOT = HERE.parent

RESULTS = {"make bench": HERE / "results.json", "make bench-all": HERE / "results-all.json"}
"""The file with the results of each command."""

IMAGES = ROOT / "docs" / "images"
"""The directory of the plots of `make bench-all`."""

PLOTS = {
    "cost": "CPU time of a message or connection, of each server at six workloads",
    "throughput": "Messages or connections in a second, of each server at six workloads",
    "latency": "Latency of each server at 5,000, 20,000 and 50,000 messages per second: median, p99, p99.9 and maximum",
    "connections": "CPU time of a message with 10 to 15,000 connections, of each server",
    "memory": "Memory of an idle connection, of each server",
}
"""The plots in the order of the page, with their alternative texts."""


def show(results: Results) -> None:
    """Write results into the pages that show those of this command, and draw their plots."""
    if results["command"] == "make bench":
        fill(HERE / "README.md", tables.tables(results))
        return
    # Only this command draws, and only its dependency group contains the plotting library.
    import plots

    plots.draw(results, IMAGES)
    fill(ROOT / "docs" / "performance.md", performance(results))
    fill(ROOT / "README.md", front(results))


def performance(results: Results) -> str:
    """Return the content of docs/performance.md: all plots, then all tables."""
    pictures = "\n\n".join(picture(f"images/benchmark-{name}", alt) for name, alt in PLOTS.items())
    return f"{pictures}\n\n{tables.tables(results)}"


def front(results: Results) -> str:
    """Return the content of the front page: one plot and one table."""
    machine = results["conditions"]["machine"]
    return f"""{picture("docs/images/benchmark-cost", PLOTS["cost"])}

{tables.headline(results)}

Made by `{results["command"]}` on {machine["processor"]}, {machine["cores"]} cores. The values are
medians, and the best server's is bold. `bare loop` is an epoll loop in Rust that does nothing else: the limit.
"""


def picture(path: str, alt: str) -> str:
    """Return the HTML for a plot, in the light or dark version that the reader prefers."""
    return f"""<picture>
  <source media="(prefers-color-scheme: dark)" srcset="{path}-dark.svg">
  <img src="{path}-light.svg" alt="{alt}">
</picture>"""


def fill(page: Path, text: str, name: str = "results") -> None:
    """Replace the text between the marks of that name of a page."""
    before, begin, rest = page.read_text().partition(f"<!-- {name}: begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}: end -->\n")
    if not begin or not end:
        raise ValueError(f"{page} has no marks for {name}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
