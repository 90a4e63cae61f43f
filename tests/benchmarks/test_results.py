"""From samples to medians, verdicts and JSON."""

from pathlib import Path

import pytest

import results
from plan import BENCH, Target
from results import Conditions, Sample, Samples
from workloads import IDLE, X1, latency

CONDITIONS = Conditions(
    machine={"processor": "a processor", "cores": 2, "kernel": "6.1"},
    versions={"Python": "3.13.0"},
    servers={},
    rounds=3,
    seconds_per_measurement=1.0,
    own_cores=True,
)


def costs(*values: float) -> list[Sample]:
    return [{"cpu": value, "rate": 1e6 / value} for value in values]


def test_a_summary_has_the_median_the_spread_and_all_rounds() -> None:
    assert results.summary([3.0, 1.0, 2.123456]) == {
        "median": 2.1235,
        "lowest": 1.0,
        "highest": 3.0,
        "rounds": [3.0, 1.0, 2.1235],
    }


def test_ratios_are_taken_within_rounds() -> None:
    samples = Samples(X1, {"hubbub": costs(1.0, 20.0, 3.0), "picows": costs(2.0, 40.0, 3.0)})
    verdict = results.verdict(Target("x1", "hubbub", "picows", at_most=0.6), samples)
    assert (verdict["median"], verdict["lowest"], verdict["highest"]) == (0.5, 0.5, 1.0)
    assert verdict["ratio_of_medians"] == 1.0
    assert verdict["met"]


@pytest.mark.parametrize(
    ("at_most", "at_least", "met"), [(2.0, None, True), (1.9, None, False), (None, 2.0, True), (None, 2.1, False)]
)
def test_a_target_is_met_up_to_its_bound(at_most: float | None, at_least: float | None, met: bool) -> None:
    samples = Samples(IDLE, {"hubbub": [{"memory": value} for value in (1.0, 2.0, 9.0)]})
    assert results.verdict(Target("idle", "hubbub", None, at_most, at_least), samples)["met"] is met


def test_who_fails_has_no_results_and_no_verdict() -> None:
    samples = Samples(X1, {"hubbub": costs(1.0), "picows": costs(2.0)})
    samples.fail("picows", "it died")
    found = results.results(BENCH, [samples], CONDITIONS)
    assert set(found["workloads"]["x1"]["servers"]) == {"hubbub"}
    assert found["workloads"]["x1"]["failed"] == {"picows": "it died"}
    assert found["targets"] == []


def test_all_quantities_of_a_latency_are_kept(tmp_path: Path) -> None:
    sample = {"p50": 1.0, "p99": 2.0, "p99.9": 3.0, "max": 4.0, "late": 0.5, "rate": 10.0}
    found = results.results(BENCH, [Samples(latency(5000), {"hubbub": [sample]})], CONDITIONS)
    summaries = found["workloads"]["latency-5000"]["servers"]["hubbub"]
    assert {name: summary["median"] for name, summary in summaries.items()} == sample

    results.write(found, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == found
