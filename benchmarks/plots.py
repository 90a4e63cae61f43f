"""The results of `make bench-all` as plots: SVG, for light and dark pages.

Bars begin at zero; their shade tells ours, the peers' and the limit apart. Lines also differ in their markers, so that
nobody needs colours to tell them apart. Each value is printed beside its bar, or in the tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.typing import RcKeyType

from results import Results, Summary, keeps_up
from servers import LIMIT, SERVERS
from tables import figure
from workloads import RATES

SHOWN = (
    LIMIT,
    "hubbub",
    "hubbub, async def",
    "picows",
    "websockets",
    "aiohttp",
    "Starlette on uvicorn",
    "granian",
    "socketify",
)
"""The servers in every plot; the tables also show the other ways to run Hubbub."""

WIDTH = 9.0
"""The width of every plot, in inches of 72 points."""


@dataclass(frozen=True)
class Theme:
    """The colours of a page."""

    name: str
    background: str
    ink: str
    faint: str
    limit: str
    ours: str
    peers: str
    lines: tuple[str, ...]


# The lines' colours are close to those of Okabe and Ito, which people with any kind of colour vision tell apart, and a
# little lighter on a dark page.
THEMES = (
    Theme(
        name="light",
        background="#ffffff",
        ink="#1f2328",
        faint="#d5dae0",
        limit="#aab2bc",
        ours="#0072b2",
        peers="#e0a458",
        lines=("#7d8590", "#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#8250df", "#1f2328"),
    ),
    Theme(
        name="dark",
        background="#0d1117",
        ink="#e6edf3",
        faint="#30363d",
        limit="#6e7681",
        ours="#56b4e9",
        peers="#c98f3f",
        lines=("#8b949e", "#56b4e9", "#0a84d0", "#e8793a", "#2fbf93", "#e09cc3", "#e3b341", "#b392f0", "#e6edf3"),
    ),
)

MARKERS = "ooDs^vPX*"


def draw(results: Results, directory: Path) -> None:
    """Write each plot into a directory, in a light and a dark version."""
    plots: dict[str, Callable[[Results, Theme], Figure]] = {
        "cost": cost,
        "throughput": throughput,
        "latency": latency,
        "connections": by_connections,
        "memory": memory,
    }
    for theme in THEMES:
        with mpl.rc_context(settings(theme)):
            for name, plot in plots.items():
                drawn = plot(results, theme)
                drawn.savefig(directory / f"benchmark-{name}-{theme.name}.svg", metadata={"Date": None})


def settings(theme: Theme) -> dict[RcKeyType, object]:
    """Return matplotlib's settings. Because of the fixed salt, the same plot gives the same file."""
    return {
        "svg.hashsalt": "hubbub",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "figure.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.faint,
        "grid.linewidth": 0.6,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
    }


def cost(results: Results, theme: Theme) -> Figure:
    """CPU time at each of the main workloads."""
    panels = (
        ("x1", "x1, an echo: µs/message"),
        ("x16", "x16, 16 in flight: µs/message"),
        ("16K", "16K, 16 KiB: µs/message"),
        ("fan-out", "Fan-out to 1,000: µs/delivery"),
        ("fan-out-deflate", "Fan-out, compressed: µs/delivery"),
        ("handshake", "Handshake: µs/connection"),
    )
    return bars(results, theme, "cpu", panels, "CPU time: less is better")


def throughput(results: Results, theme: Theme) -> Figure:
    """Throughput of a server on one core."""
    panels = (
        ("x1", "x1, an echo: messages/s"),
        ("x16", "x16, 16 in flight: messages/s"),
        ("16K", "16K, 16 KiB: messages/s"),
        ("fan-out", "Fan-out to 1,000: deliveries/s"),
        ("fan-out-deflate", "Fan-out, compressed: deliveries/s"),
        ("handshake", "Handshakes/s"),
    )
    return bars(results, theme, "rate", panels, "Throughput on one core: more is better")


def memory(results: Results, theme: Theme) -> Figure:
    """Memory of an idle connection."""
    return bars(results, theme, "memory", (("idle", "Idle connection: bytes"),), "Memory: less is better")


def bars(results: Results, theme: Theme, quantity: str, panels: Sequence[tuple[str, str]], title: str) -> Figure:
    """Panels with a bar for each server, two in a row."""
    known = [panel for panel in panels if panel[0] in results["workloads"]]
    rows = (len(known) + 1) // 2
    drawing = Figure(figsize=(WIDTH, 0.7 + 2.5 * rows), layout="constrained")
    drawing.suptitle(title, x=0.01, ha="left", fontweight="bold")
    all_axes = drawing.subplots(rows, min(2, len(known)), squeeze=False).flat
    for axes, (workload, heading) in zip(all_axes, known, strict=False):
        panel(axes, results, theme, workload, quantity)
        axes.set_title(heading)
    for axes in list(all_axes)[len(known) :]:
        axes.set_axis_off()
    return drawing


def panel(axes: Axes, results: Results, theme: Theme, workload: str, quantity: str) -> None:
    """A bar for each server, with its number, and a line from the lowest to the highest."""
    found = medians(results, workload, quantity)
    failed = [server for server in SHOWN if server in results["workloads"][workload]["failed"]]
    rows = [server for server in SHOWN if server in found or server in failed]
    top = max((summary["highest"] for summary in found.values()), default=1.0)
    for server in failed:
        axes.text(0.015 * top, rows.index(server), "failed", va="center", fontsize=8, fontstyle="italic")
    for server, summary in found.items():
        place = rows.index(server)
        axes.barh(place, summary["median"], height=0.7, color=shade(server, theme))
        axes.plot([summary["lowest"], summary["highest"]], [place, place], color=theme.ink, linewidth=1)
        axes.text(summary["highest"] + 0.015 * top, place, figure(summary["median"]), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.16 * top)
    axes.xaxis.set_major_locator(NullLocator())
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)


def latency(results: Results, theme: Theme) -> Figure:
    """From the median to the maximum, at rates that are the same for every server."""
    rates = [rate for rate in RATES if f"latency-{rate}" in results["workloads"]]
    drawing = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    drawing.suptitle(
        "Latency of an echo at the same rate for every server, µs: less is better",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    all_axes = drawing.subplots(1, len(rates), sharex=True, squeeze=False)[0]
    # The same rows everywhere, because only the first plot names them.
    measured = {server for rate in rates for server in medians(results, f"latency-{rate}", "p50")}
    rows = [server for server in SHOWN if server in measured]
    for axes, rate in zip(all_axes, rates, strict=True):
        points(axes, results, theme, f"latency-{rate}", rows)
        axes.set_title(f"{rate:,} messages/s")
        if axes is not all_axes[0]:
            axes.set_yticklabels([])
    if len(all_axes):
        drawing.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return drawing


def points(axes: Axes, results: Results, theme: Theme, workload: str, servers: Sequence[str]) -> None:
    """A row for each server, with a marker for each percentile if it keeps up."""
    found = {
        quantity: {
            server: summary
            for server, summary in medians(results, workload, quantity).items()
            if keeps_up(results, workload, server)
        }
        for quantity in ("p50", "p99", "p99.9", "max")
    }
    places = {server: place for place, server in enumerate(servers)}
    for server, place in places.items():
        if server not in found["p50"]:
            axes.text(0.02, place, "too slow", transform=axes.get_yaxis_transform(), va="center", color=theme.ink)
            continue
        values = [each[server]["median"] for each in found.values() if server in each]
        axes.plot(values, [place] * len(values), color=shade(server, theme), linewidth=2.5, alpha=0.7)
    for (quantity, each), marker in zip(found.items(), "osD|", strict=True):
        axes.scatter(
            [summary["median"] for summary in each.values()],
            [places[server] for server in each],
            marker=marker,
            s=26,
            color=theme.ink,
            zorder=3,
            label=quantity,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="x")
    axes.set_yticks(range(len(servers)), servers)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)


def by_connections(results: Results, theme: Theme) -> Figure:
    """CPU time of a message, by the number of connections."""
    counts = sorted(int(name.split("-")[1]) for name in results["workloads"] if name.startswith("connections-"))
    drawing = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = drawing.subplots()
    axes.set_title("CPU time by the number of connections, µs per message: less is better")
    for server, colour, marker in zip(SHOWN, theme.lines, MARKERS, strict=True):
        found = {count: medians(results, f"connections-{count}", "cpu").get(server) for count in counts}
        known = {count: summary["median"] for count, summary in found.items() if summary}
        if known:
            width = 2.6 if server == "hubbub" else 1.4
            dashes = "--" if server == LIMIT else "-"
            axes.plot(
                list(known), list(known.values()), dashes, color=colour, marker=marker, linewidth=width, label=server
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    # The last two labels are too close to each other for one line.
    axes.set_xticks(counts, [f"\n{count:,}" if count > 10_000 else f"{count:,}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
    axes.grid(which="both", axis="y")
    axes.set_xlabel("connections")
    drawing.legend(loc="outside right center", frameon=False)
    return drawing


def medians(results: Results, workload: str, quantity: str) -> dict[str, Summary]:
    """Return the known values of one quantity, in the order of the plots."""
    servers = results["workloads"].get(workload, {"servers": {}})["servers"]
    return {server: servers[server][quantity] for server in SHOWN if quantity in servers.get(server, {})}


def shade(server: str, theme: Theme) -> str:
    """Return the colour of a bar: the limit's, ours, or a peer's."""
    if server == LIMIT:
        return theme.limit
    return theme.ours if (SERVERS[server].variant_of or server) == "hubbub" else theme.peers
