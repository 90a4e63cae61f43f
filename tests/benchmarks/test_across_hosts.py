"""The parts of the benchmark of several hosts that need no servers."""

import pytest

from across_hosts.bench import Target, percentile
from across_hosts.clients import HUBBUB, PLAIN, SIZE, SOCKET_IO, Dialect, Load, Receivers
from across_hosts.servers import Usage
from processes import Failed


@pytest.mark.parametrize("dialect", [HUBBUB, PLAIN, SOCKET_IO])
def test_each_message_of_a_dialect_is_one_frame_of_the_same_length(dialect: Dialect) -> None:
    first, last = dialect.heard(0), dialect.heard(2**32)
    assert len(first) == len(last) == 2 + first[1]
    text = dialect.sent(7)[6:].decode()
    assert text.removeprefix(dialect.before).removesuffix(dialect.after).startswith("0000000000000007")
    assert len(text) == SIZE + len(dialect.before) + len(dialect.after)


def test_a_target_has_a_bound_on_one_side() -> None:
    assert Target("µs", 3, at_most=3).is_met
    assert not Target("µs", 3.1, at_most=3).is_met
    assert Target("publishes/s", 100_000, at_least=100_000).is_met
    assert not Target("publishes/s", 99_999, at_least=100_000).is_met


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([5], 0.99) == 5


def test_cpu_time_is_added_and_scaled_by_its_parts() -> None:
    assert (Usage(4, 1, 2, 3) - Usage(1, 1, 1, 1)) * 2 == Usage(6, 0, 2, 4)
    assert Usage(4, 1, 2, 3).whole == 7


def test_a_load_whose_messages_do_not_arrive_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("across_hosts.clients.PATIENCE", 0)
    sent: list[int] = []
    load = Load(sent.append, chunks=3, per_chunk=10, deliveries=1, length=66, window=20)
    with pytest.raises(Failed, match="30 of 30 messages did not arrive"):
        load.carry(Receivers([]))
    # No more than the window allows.
    assert sent in ([0], [0, 1])
