"""docs/settings.md says what hubbub/settings.py says."""

import subprocess
import sys

from as_process import output_of
from snippets import ROOT, Snippet, sections, shows

from hubbub import Settings


def test_the_page_is_made_from_the_settings_as_they_are() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "settings_page.py"), "--check"]
    assert subprocess.run(check, capture_output=True, text=True, check=False).stderr == ""


def test_each_setting_has_a_heading_that_links_can_lead_to() -> None:
    headings = [section.title for section in sections("docs/settings.md") if section.level == 2]
    assert headings == [setting.name for setting in Settings.describe()]


@shows("docs/settings.md", "Settings")
async def test_a_wrong_name_is_refused_as_it_says(snippets: list[Snippet]) -> None:
    (block,) = snippets
    promised = block.text.partition("    # ")[2].strip()
    assert promised
    assert await output_of(block) == promised
