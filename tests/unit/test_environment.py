"""Environment variables that are not settings."""

import pytest

from hubbub.environment import complaints


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HUBBUB_WORKRES", "HUBBUB_WORKERS"),
        ("HUBBUB_workers", "HUBBUB_WORKERS"),
        ("HUBBUB_MAX_MESSAGES_SIZE", "HUBBUB_MAX_MESSAGE_SIZE"),
        ("HUBBUB_ORIGIN", "HUBBUB_ORIGINS"),
        ("HUBBUB_SERVICE", None),
        ("HUBBUB_METRIC_PORT", "HUBBUB_METRICS_PORT"),
        ("HUBBUB_", None),
        ("HUBBUB_SECRET_OF_THE_APP", None),
    ],
)
def test_an_unknown_one_is_named_with_the_nearest(name: str, nearest: str | None) -> None:
    (line,) = complaints({name: "the value", "HUBBUB_WORKERS": "2", "OTHER": "x"})
    assert f"the variable {name} is not a setting" in line
    assert "the value" not in line
    assert (f"did you mean {nearest}?" in line) is (nearest is not None)
    assert ("did you mean" in line) is (nearest is not None)


def test_each_of_several_is_named() -> None:
    first, second = complaints({"HUBBUB_WORKRES": "2", "HUBBUB_PROT": "80"})
    assert "HUBBUB_PROT " in first
    assert "HUBBUB_WORKRES " in second


def test_a_name_cannot_pass_for_a_line_of_its_own() -> None:
    (line,) = complaints({"HUBBUB_A\nERROR all is lost\x1b[2J\u202e\udcff": "x"})
    assert "HUBBUB_A\\nERROR all is lost\\x1b[2J\\u202e\\udcff is not a setting" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HUBBUB_PORT", "tcp://10.96.0.7:9501"),
        ("HUBBUB_SERVICE_HOST", "10.96.0.7"),
        ("HUBBUB_SERVICE_PORT", "9501"),
        ("HUBBUB_SERVICE_PORT_HTTP", "9501"),
        ("HUBBUB_PORT_9501_TCP", "tcp://10.96.0.7:9501"),
        ("HUBBUB_PORT_9501_TCP_PROTO", "tcp"),
        ("HUBBUB_PORT_9501_TCP_PORT", "9501"),
        ("HUBBUB_PORT_9501_TCP_ADDR", "10.96.0.7"),
        ("HUBBUB_METRICS_PORT", "tcp://10.96.0.8:9102"),
        ("HUBBUB_METRICS_SERVICE_HOST", "10.96.0.8"),
        ("HUBBUB_METRICS_PORT_9102_TCP_ADDR", "10.96.0.8"),
        ("HUBBUB_BLUE_2_PORT", "udp://10.96.0.9:53"),
        ("HUBBUB_WORKRES", ""),
        ("HUBBUB_WORKERS", "many"),
        ("HUBBUBBLE", "x"),
        ("hubbub_workers", "2"),
    ],
)
def test_what_is_not_meant_for_us_or_is_known_is_passed_over(name: str, value: str) -> None:
    assert list(complaints({name: value})) == []
