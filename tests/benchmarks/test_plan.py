"""The plans of the two benchmark commands."""

import re
from pathlib import Path

import pytest

from plan import BENCH, BENCH_ALL, PLANS, Plan
from servers import PEERS, SERVERS


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_all_that_is_measured_is_there(plan: Plan) -> None:
    for workload in plan.workloads:
        assert workload.servers
        assert set(workload.servers) <= set(SERVERS), workload.name
    assert len({workload.name for workload in plan.workloads}) == len(plan.workloads)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_targets_are_measured(plan: Plan) -> None:
    measured = {workload.name: workload.servers for workload in plan.workloads}
    for target in plan.targets:
        assert {target.server, target.peer or target.server} <= set(measured[target.workload])


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_every_server_tells_its_settings(server: object) -> None:
    named = SERVERS[getattr(server, "name", "")]
    assert named.settings
    assert not named.is_python or (PEERS / named.program).exists()


def test_the_short_one_takes_minutes_and_the_long_one_less_than_forty() -> None:
    assert BENCH.expected_seconds(list(SERVERS)) < 13 * 60
    assert BENCH_ALL.expected_seconds(list(SERVERS)) < 35 * 60


def test_what_is_left_out_takes_no_time() -> None:
    each = [
        BENCH.expected_seconds([server]) for server in {server for each in BENCH.workloads for server in each.servers}
    ]
    assert all(seconds > 0 for seconds in each)
    assert sum(each) == pytest.approx(BENCH.expected_seconds(list(SERVERS)))


def test_the_page_says_which_command_measures_what() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
    rows = re.findall(
        r"^\| (`.*?`) \| .* \| (?:`(bench|bench-all)`|both) \|$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {
        name: {command} if command else set(PLANS) for names, command in rows for name in re.findall("`(.*?)`", names)
    }
    measured: dict[str, set[str]] = {}
    for plan in PLANS.values():
        for workload in plan.workloads:
            for name in (re.sub(r"connections-\d+", "connections-N", workload.name), *workload.servers):
                measured.setdefault(name, set()).add(plan.name)
    assert told == measured
