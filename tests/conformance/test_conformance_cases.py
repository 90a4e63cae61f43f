"""The choice of cases and the judgement on their results, without Autobahn."""

import json
from pathlib import Path

import pytest
from conformance_cases import Outcome, choose_cases, faults, read_kept, read_report, write_kept

OK = Outcome("OK", "OK")
INFORMATIONAL = Outcome("INFORMATIONAL", "INFORMATIONAL")


@pytest.mark.parametrize("outcome", [OK, INFORMATIONAL, Outcome("OK", "INFORMATIONAL")])
def test_a_case_as_good_as_the_kept_one_passes(outcome: Outcome) -> None:
    assert faults(["1.1.1"], {"1.1.1": outcome}, {"1.1.1": outcome}) == {}


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("FAILED", "OK"),
        Outcome("NON-STRICT", "OK"),
        Outcome("UNIMPLEMENTED", "OK"),
        Outcome("OK", "WRONG CODE"),
        Outcome("OK", "UNCLEAN"),
        Outcome("OK", "FAILED BY CLIENT"),
        Outcome("a word of a later version", "OK"),
    ],
)
def test_a_case_that_is_not_accepted_is_at_fault_even_if_it_was_no_better(outcome: Outcome) -> None:
    assert faults(["1.1.1"], {"1.1.1": outcome}, {"1.1.1": outcome}) == {"1.1.1": str(outcome)}


def test_a_case_that_got_worse_is_at_fault_and_one_that_got_better_is_not() -> None:
    at_fault = faults(
        ["7.1.6", "7.13.1"],
        {"7.1.6": INFORMATIONAL, "7.13.1": OK},
        {"7.1.6": OK, "7.13.1": INFORMATIONAL},
    )
    assert at_fault == {"7.1.6": "INFORMATIONAL, close INFORMATIONAL; was OK, close OK"}


def test_a_case_that_did_not_run_is_at_fault() -> None:
    assert faults(["1.1.1"], {}, {"1.1.1": OK}) == {"1.1.1": "NOT RUN, close NOT RUN"}


def test_a_case_without_a_kept_result_is_at_fault() -> None:
    assert "no kept result" in faults(["1.1.1"], {"1.1.1": OK}, {})["1.1.1"]


def test_kept_cases_that_were_not_asked_for_do_not_matter() -> None:
    assert faults(["1.1.1"], {"1.1.1": OK}, {"1.1.1": OK, "12.1.18": OK}) == {}


def test_faults_come_in_the_order_of_the_numbers() -> None:
    assert list(faults(["2.10", "10.1.1", "2.9"], {}, {})) == ["2.9", "2.10", "10.1.1"]


def test_the_report_of_a_client_is_read(tmp_path: Path) -> None:
    entry = {"behavior": "OK", "behaviorClose": "UNCLEAN", "duration": 2, "remoteCloseCode": None}
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"client-0": {"1.1.1": entry}}))
    assert read_report(index) == {"1.1.1": Outcome("OK", "UNCLEAN")}


def test_a_server_that_could_not_be_reached_has_no_results(tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index.write_text("{}")
    assert read_report(index) == {}


def test_kept_results_come_back_as_they_were_written_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = {"10.1.1": OK, "2.9": INFORMATIONAL}
    write_kept(path, results)
    assert read_kept(path) == results
    assert [line.split(":")[0].strip() for line in path.read_text().splitlines()[1:-1]] == [
        '"2.9"',
        '"10.1.1"',
    ]


def test_no_results_are_kept_before_the_first_record(tmp_path: Path) -> None:
    assert read_kept(tmp_path / "results.json") == {}


def test_the_quick_choice_leaves_out_the_tail_of_the_compression_groups_only() -> None:
    cases = ["1.1.8", "9.1.6", "12.1.4", "12.1.5", "13.7.1", "13.7.18"]
    assert choose_cases(cases, everything=False) == ["1.1.8", "9.1.6", "12.1.4", "13.7.1"]
    assert choose_cases(cases, everything=True) == cases
