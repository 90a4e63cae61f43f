"""The programs and options of docs/coming-from/uvicorn.md."""

import re

import click
import pytest
from as_process import serving
from snippets import ROOT, Snippet, shows
from uvicorn.main import main as uvicorn

from hubbub import cli

PAGE = "docs/coming-from/uvicorn.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
# The cells of the table's first two columns.
ROWS = re.findall(r"^\| (`--.*?) \|(.*?)\|", TEXT, re.MULTILINE)


@pytest.mark.parametrize("arguments", [("app.py",), ("-m", "hubbub", "run", "app:app")])
@shows(PAGE, "From Python")
async def test_the_application_starts_and_ends_with_the_server(
    snippets: list[Snippet], arguments: tuple[str, ...]
) -> None:
    async with serving(*snippets, arguments=arguments, environ={"HUBBUB_WORKERS": "1"}) as running:
        assert "opening the pool" in running.lines
        assert "closing the pool" not in running.lines
    assert running.lines.count("closing the pool") == 1
    assert not any("Traceback" in line for line in running.lines)


@shows(PAGE, "WebSockets beside the application")
async def test_an_endpoint_is_served_beside_the_application(snippets: list[Snippet]) -> None:
    hubbub_run = ("-m", "hubbub", "run", "app:server")
    async with (
        serving(*snippets, arguments=hubbub_run, environ={"HUBBUB_WORKERS": "2"}) as running,
        running.connect("/rooms/garden") as ada,
    ):
        await ada.send("anybody here?")
        assert await ada.recv() == "anybody here?"
        async with running.connect("/rooms/garden") as grace:
            await grace.send("hello")
            assert await grace.recv() == "hello"
            assert await ada.recv() == "hello"


def options_in(cell: str) -> list[str]:
    return re.findall(r"`(--[a-z0-9-]+)`", cell)


def names_of(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_the_table_has_every_option_of_uvicorn_and_no_other() -> None:
    theirs = [option for cell, _ in ROWS for option in options_in(cell)]
    assert len(theirs) == len(set(theirs))
    assert set(theirs) <= names_of(uvicorn)
    without = {"APP", "app", "--version", "--help"}
    for option in uvicorn.params:
        assert set(option.opts) & {*theirs, *without}, option.opts


def test_the_options_of_the_second_column_are_ours() -> None:
    known = names_of(cli.run) | set(cli.ALIASES.values())
    named = {option for _, cell in ROWS for option in options_in(cell)}
    assert named <= known
    assert set(cli.ALIASES.values()) <= named


def test_the_names_in_brackets_are_those_of_uvicorn() -> None:
    for theirs, ours in ROWS:
        for brackets in re.findall(r"\((.*?)\)", ours):
            assert set(options_in(brackets)) <= set(options_in(theirs))
