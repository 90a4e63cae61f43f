"""The command line: its options, and how values are shown to people."""

import pytest
from click.testing import CliRunner

from hubbub import Settings, cli


@pytest.mark.parametrize("command", ["run", "demo"])
def test_every_setting_is_an_option_with_its_meaning_and_default(command: str) -> None:
    shown = " ".join(CliRunner().invoke(cli.main, [command, "--help"]).output.split())
    for setting in Settings.describe():
        assert f"{setting.option} VALUE" in shown
    assert "[default: 1048576]" in shown
    assert "[default: 127.0.0.1,::1]" in shown
    assert "[default: none]" in shown
    assert "[default: false]" in shown


@pytest.mark.parametrize("option", [setting.option for setting in Settings.describe()])
def test_a_value_that_is_not_allowed_is_a_wrong_call(option: str) -> None:
    result = CliRunner().invoke(cli.main, ["run", "app:server", option, "\0"])
    assert result.exit_code == 2
    assert f"(option {option}) is not allowed" in result.output


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_500_000, "1.4 MiB"),
        (1024**3, "1.0 GiB"),
        (1024**4 - 1, "1.0 TiB"),
        (5000 * 1024**4, "5,000.0 TiB"),
    ],
)
def test_sizes_are_shown_in_units(count: int, shown: str) -> None:
    assert cli.shown_bytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-0.5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3600 + 125, "1 h 2 min"),
        (3 * 86_400 + 59, "3 d 0 h"),
    ],
)
def test_durations_are_shown_in_their_two_largest_units(seconds: float, shown: str) -> None:
    assert cli.shown_seconds(seconds) == shown


def test_a_table_has_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_table([["name", "count"], ["a", "1,000"], ["longer", "1"]], left={0})
    assert capsys.readouterr().out == "name    count\na       1,000\nlonger      1\n"
