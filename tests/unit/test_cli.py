"""The command line: its options, and how values are shown to people."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hubbub import Server, Settings, cli, program
from hubbub.kinds import Flag
from hubbub.settings import Setting

SETTINGS = Settings.describe()
SWITCHES = [setting for setting in SETTINGS if isinstance(setting.kind, Flag)]


def help_of(*command: str) -> str:
    """Return what `--help` prints to a terminal of 80 columns."""
    result = CliRunner().invoke(cli.main, [*command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("command", ["run", "demo"])
def test_every_setting_is_an_option_with_its_type_unit_and_default(command: str) -> None:
    shown = " ".join(help_of(command).split())
    for setting in SETTINGS:
        if setting not in SWITCHES:
            assert f"{setting.option} {setting.kind.metavar} " in shown
    for option in (
        "--port INTEGER",
        "--workers INTEGER|none",
        "--max-message-size BYTES",
        "--receive-queue MESSAGES",
        "--close-timeout SECONDS",
        "--ping-interval SECONDS|none",
        "--slow-consumer [close|drop]",
        "--ssl-certfile PATH|none",
        "--subprotocols LIST",
        "--compression / --no-compression",
        "--access-log / --no-access-log",
    ):
        assert f" {option} " in shown
    assert "[1 to 2,147,483,647; default: 1048576]" in shown
    assert "separated by commas; default: 127.0.0.1,::1]" in shown
    assert "[default: none]" in shown
    assert "[default: off]" in shown


@pytest.mark.parametrize("command", [[], *([name] for name in cli.main.commands)])
def test_no_help_is_cut(command: list[str]) -> None:
    shown = help_of(*command)
    assert "..." not in shown.replace("[ARGS]...", "")
    assert max(map(len, shown.splitlines())) <= 80


def test_the_list_of_commands_has_whole_sentences() -> None:
    shown = " ".join(help_of().split())
    for name, command in cli.main.commands.items():
        summary = " ".join((command.help or "").split("\n\n")[0].split())
        assert summary.endswith(".")
        assert f" {name} {summary}" in shown


def options_of(*words: str) -> dict[str, object]:
    """Return the options of `hubbub run` as it understands them."""
    return cli.run.make_context("run", list(words)).params


def test_a_boolean_is_a_switch_that_takes_no_value() -> None:
    assert {"compression", "access_log"} <= {setting.name for setting in SWITCHES}
    for setting in SWITCHES:
        given = options_of(setting.option, "app:server", "--port", "0")
        assert (given[setting.name], given["target"], given["port"]) == ("true", "app:server", "0")
        assert setting.negation
        assert options_of(setting.negation, "app:server")[setting.name] == "false"
        assert options_of("app:server")[setting.name] is None
        for words in ([setting.option, "true"], [f"{setting.option}=true"]):
            assert CliRunner().invoke(cli.main, ["run", "app:server", *words]).exit_code == 2


@pytest.mark.parametrize(
    ("alias", "text", "name", "value"),
    [
        ("--timeout-keep-alive", "7", "keep_alive_timeout", 7.0),
        ("--timeout-graceful-shutdown", "7", "shutdown_timeout", 7.0),
        ("--ws-max-size", "2000", "max_message_size", 2000),
        ("--ws-ping-interval", "7", "ping_interval", 7.0),
        ("--ws-ping-timeout", "7.5", "ping_timeout", 7.5),
        ("--limit-max-requests", "1000", "max_requests", 1000),
        ("--forwarded-allow-ips", "10.0.0.1,::1", "trusted_proxies", ("10.0.0.1", "::1")),
        ("--forwarded-allow-ips", "*", "trusted_proxies", ("0.0.0.0/0", "::/0")),
    ],
)
def test_uvicorns_names_are_understood_but_not_shown(alias: str, text: str, name: str, value: object) -> None:
    given = options_of("app:app", alias, text)
    assert getattr(Settings.load({}, environ={}, options={name: given[name]}), name) == value  # type: ignore[dict-item]
    assert options_of(f"{alias}={text}", "app:app")[name] == given[name]
    # Of two, the last one counts, whatever their names.
    (own,) = (setting.option for setting in SETTINGS if setting.name == name)
    assert options_of("app:app", own, "1", alias, text)[name] == given[name]
    assert f"\n  {alias}" not in help_of("run")
    assert CliRunner().invoke(cli.main, ["run", "app:app", alias, "many"]).exit_code == 2
    assert CliRunner().invoke(cli.main, ["demo", alias, text]).exit_code == 2


def test_without_proxy_headers_no_proxy_is_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "behind_a_proxy.py").write_text("from hubbub import Server\nserver = Server(port=0)\n")
    trusted: list[int] = []
    monkeypatch.setattr(Server, "start", lambda server: trusted.append(len(server.settings.trusted_proxies)))
    # What the command changes in this process is put back.
    monkeypatch.setattr(program, "name", program.name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for words in ([], ["--proxy-headers"], ["--no-proxy-headers"]):
        arguments = ["run", "behind_a_proxy:server", "--app-dir", str(tmp_path), *words]
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 0, result.output
    assert trusted == [2, 2, 0]


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting not in SWITCHES])
def test_a_value_that_is_not_allowed_is_a_wrong_call(setting: Setting) -> None:
    # A password may be any text, but not empty.
    given = "" if setting.kind.is_secret else "\0"
    result = CliRunner().invoke(cli.main, ["run", "app:server", setting.option, given])
    assert result.exit_code == 2
    assert f"(option {setting.option}) is not allowed" in result.output


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
