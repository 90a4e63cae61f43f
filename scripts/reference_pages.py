"""Write docs/settings.md and docs/commands.md, between their marks, from hubbub/settings.py and hubbub/cli.py.

With `--check` it writes nothing, and exits with status 1 if a page is not up to date.
"""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click

from hubbub.cli import main as hubbub
from hubbub.settings import Setting, Settings

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- reference: begin -->\n", "<!-- reference: end -->"
TYPES = {field.name: inspect.formatannotation(field.type) for field in fields(Settings)}

KIB = 1024
MIB = 1024 * KIB


def settings() -> Iterator[str]:
    """Yield the lines of the settings' page."""
    for setting in Settings.describe():
        yield f"\n## `{setting.name}`\n"
        yield f"{setting.doc}\n"
        yield f"- `{TYPES[setting.name]}`: {setting.kind.allowed}"
        yield f"- Default: {default(setting)}"
        option = f"`{setting.option}`" + (f" or `{setting.negation}`" if setting.negation else "")
        yield f"- Option: {option}, variable: `{setting.variable}`"


def default(setting: Setting) -> str:
    """Return the default as Python spells it, and a large size in its unit too."""
    value = setting.default
    text = f"`{value!r}`"
    if (
        not setting.kind.allowed.removesuffix(", or None").endswith("bytes")
        or not isinstance(value, int)
        or value < KIB
    ):
        return text
    return f"{text} ({value // MIB} MiB)" if value % MIB == 0 else f"{text} ({value // KIB} KiB)"


def commands() -> Iterator[str]:
    """Yield the lines of the commands' page."""
    names = {setting.name for setting in Settings.describe()}
    for name, command in hubbub.commands.items():
        yield f"\n## `hubbub {name}`\n"
        usage = command.collect_usage_pieces(click.Context(command))
        yield f"```text\nhubbub {' '.join([name, *usage])}\n```\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        options = [each for each in command.params if isinstance(each, click.Option)]
        takes_all = names <= {str(each.name) for each in options}
        for option in options:
            if not (option.hidden or (takes_all and option.name in names)):
                yield f"- `{option.opts[0]}`: {option.help}"
        if takes_all:
            yield "- Every [setting](settings.md), as `--max-connections 1000`."


PAGES = {"settings.md": settings, "commands.md": commands}


def main() -> None:
    for name, lines in PAGES.items():
        page = DOCS / name
        text = page.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"{page} has no marks to write between")
        written = before + begin + "\n".join(lines()) + "\n\n" + end + after
        if "--check" not in sys.argv:
            page.write_text(written, encoding="utf-8")
        elif written != text:
            sys.exit(f"{page} is not what the program says: run `make docs`")


main()
