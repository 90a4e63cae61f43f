"""The commands in the docs exist."""

import re
import shlex

import click
import pytest
from snippets import PAGES, ROOT, snippets_of

from hubbub.cli import main

CHECKED = [*PAGES, "CONTRIBUTING.md", "benchmarks/README.md"]
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

OURS = [
    pytest.param(line, id=f"{page}: {line}")
    for page in CHECKED
    for snippet in snippets_of(page)
    if snippet.language == "sh"
    for line in snippet.text.splitlines()
    if re.match(r"(?:\w+=\S* )*(?:hubbub|python -m hubbub) ", line)
]


@pytest.mark.parametrize("line", OURS)
def test_a_command_is_understood(line: str) -> None:
    command: click.Command = main
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
    words = words[words.index("hubbub") + 1 :]
    name = "hubbub"
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    # Parses the whole line and rejects unknown options, without running anything.
    command.make_context(name, words)


def test_there_are_such_commands() -> None:
    assert len(OURS) >= 4


@pytest.mark.parametrize("page", CHECKED)
def test_what_make_is_asked_for_is_in_the_makefile(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    asked = re.findall(r"`make ([\w-]+)`|^make ([\w-]+)", text, re.MULTILINE)
    assert [target for targets in asked for target in targets if target and target not in TARGETS] == []
