"""Write the settings into docs/settings.md, between its marks, from the table in hubbub/settings.py.

With `--check` nothing is written; the exit status is 1 if the page is not what it should be.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from hubbub.settings import Setting, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
TABLE = re.compile(r"(?<=<!-- settings: begin -->\n).*(?=<!-- settings: end -->)", re.DOTALL)
TYPES = {field.name: inspect.formatannotation(field.type) for field in fields(Settings)}

KIB = 1024
MIB = 1024 * KIB


def described(setting: Setting) -> Iterator[str]:
    """Yield the lines of a setting's section."""
    yield f"\n## `{setting.name}`\n"
    yield f"{setting.doc}\n"
    yield f"- `{TYPES[setting.name]}`: {setting.kind.allowed}"
    yield f"- Default: {default(setting)}"
    yield f"- Option: `{setting.option}`, variable: `{setting.variable}`"


def default(setting: Setting) -> str:
    """Return the default as Python spells it, and a large size in its unit too."""
    value = setting.default
    text = f"`{value!r}`"
    if not setting.kind.allowed.endswith("bytes") or not isinstance(value, int) or value < KIB:
        return text
    return f"{text} ({value // MIB} MiB)" if value % MIB == 0 else f"{text} ({value // KIB} KiB)"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    lines = [line for setting in Settings.describe() for line in described(setting)]
    written, count = TABLE.subn(lambda _: "\n".join(lines) + "\n\n", page)
    if count != 1:
        sys.exit(f"{PAGE} has no marks between which the settings belong")
    if "--check" not in sys.argv:
        PAGE.write_text(written, encoding="utf-8")
    elif written != page:
        sys.exit(f"{PAGE} is not what hubbub/settings.py says: run `make docs`")


main()
