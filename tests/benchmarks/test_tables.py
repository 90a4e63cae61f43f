"""The results as Markdown: the best, the leader, the failures."""

from test_results import CONDITIONS, costs

import results
import tables
from plan import BENCH, BENCH_ALL, Target
from results import Results, Sample, Samples
from workloads import IDLE, X1, X16, latency


def found(*measured: Samples) -> Results:
    return results.results(BENCH_ALL, measured, CONDITIONS)


def rows(markdown: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines}


def latencies(*, p50: float = 1.0, p99: float = 2.0, rate: float = 20_000) -> list[Sample]:
    return [{"p50": p50, "p99": p99, "p99.9": 3.0, "max": 4.0, "late": 0.5, "rate": rate}]


def test_the_best_server_is_bold_and_the_limit_never() -> None:
    samples = {"bare loop": costs(1.0), "hubbub": costs(3.0, 2.0, 4.0), "picows": costs(5.0), "websockets": costs(9.0)}
    shown = rows(tables.tables(found(Samples(X1, samples))))
    assert tables.grid(found(Samples(X1, samples)), tables.messages("cpu")[:1]).splitlines()[2:] == [
        "| bare loop | 1 (1 to 1) |",
        "| hubbub | **3** (2 to 4) |",
        "| picows | 5 (5 to 5) |",
        "| websockets | 9 (9 to 9) |",
    ]
    assert shown["picows"] == ["200,000 (200,000 to 200,000)"]


def test_more_is_better_where_a_rate_is_compared() -> None:
    shown = tables.grid(found(Samples(X1, {"hubbub": costs(4.0), "picows": costs(2.0)})), tables.messages("rate")[:1])
    assert rows(shown)["picows"] == ["**500,000** (500,000 to 500,000)"]
    assert "**" not in rows(shown)["hubbub"][0]


def test_nobody_is_best_of_one_kind() -> None:
    shown = tables.grid(
        found(Samples(X1, {"hubbub": costs(4.0), "hubbub, async def": costs(2.0)})), tables.messages("cpu")[:1]
    )
    assert "**" not in shown


def test_a_line_for_each_column_in_which_a_peer_is_ahead() -> None:
    measured = (
        Samples(
            X1, {"hubbub": costs(4.0), "hubbub, async def": costs(1.0), "picows": costs(3.0), "aiohttp": costs(5.0)}
        ),
        Samples(latency(20_000), {"hubbub": latencies(p99=30.0), "socketify": latencies(p99=20.0)}),
    )
    assert list(tables.peers_ahead(found(*measured))) == [
        "x1, µs of CPU time: picows 3; hubbub 4",
        "x1, per second: picows 333,330; hubbub 250,000",
        "latency-20000, p99 in µs: socketify 20; hubbub 30",
    ]
    assert "socketify 20" in tables.tables(found(*measured))


def test_that_no_peer_is_ahead_is_said_too() -> None:
    assert "In none of these columns" in tables.tables(found(Samples(X1, {"hubbub": costs(1.0), "picows": costs(3.0)})))


def test_who_failed_is_told_loudly() -> None:
    samples = Samples(X1, {"hubbub": costs(1.0), "picows": costs(3.0), "socketify": costs(3.0)})
    samples.fail("socketify", "it ended\nafter this and that\nwith an error")
    markdown = tables.tables(found(samples))
    assert rows(markdown)["socketify"] == ["**FAILED**"]
    assert "- **socketify FAILED at x1**: it ended … with an error\n" in markdown + "\n"


def test_what_a_server_does_not_take_part_in_is_a_dash() -> None:
    measured = (Samples(X1, {"hubbub": costs(1.0), "granian": costs(3.0)}), Samples(X16, {"hubbub": costs(1.0)}))
    assert rows(tables.grid(found(*measured), tables.messages("cpu")[:2]))["granian"] == ["3 (3 to 3)", "–"]


def test_verdicts_are_shown_with_their_bounds() -> None:
    samples = Samples(IDLE, {"hubbub": [{"memory": 2000.0}]})
    markdown = tables.tables(results.results(BENCH, [samples], CONDITIONS))
    assert "| idle | hubbub | at most 1,024 | **2,000** | 2,000 to 2,000 | **missed** |" in markdown
    assert Target("idle", "hubbub", None, 1024) in BENCH.targets


def test_the_front_page_has_one_line_for_each_server() -> None:
    measured = (
        Samples(
            X1, {"bare loop": costs(1.0), "hubbub": costs(2.0), "hubbub, async def": costs(3.0), "picows": costs(4.0)}
        ),
        Samples(latency(20_000), {"hubbub": latencies(p50=30.0), "picows": latencies(p50=20.0)}),
    )
    shown = rows(tables.headline(found(*measured)))
    assert list(shown) == ["server", "---", "bare loop", "hubbub", "picows"]
    assert shown["hubbub"][0] == "**2**"
    assert shown["picows"][1] == "**20**"


def test_the_latency_of_a_server_that_is_too_slow_for_the_rate_is_not_compared() -> None:
    samples = Samples(
        latency(20_000),
        {"hubbub": latencies(p50=30.0), "picows": latencies(p50=10.0, rate=18_000), "websockets": latencies(p50=40.0)},
    )
    shown = rows(tables.grid(found(samples), tables.latencies(20_000)[:1]))
    assert shown["hubbub"] == ["**30** (30 to 30)"]
    assert shown["picows"] == ["too slow"]
    assert list(tables.peers_ahead(found(samples))) == []
