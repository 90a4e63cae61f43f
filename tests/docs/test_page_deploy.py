"""The logging and the image that docs/deploy.md sets up."""

import re

from as_process import output_of
from snippets import Snippet, shows, snippets_of

TELLING = """
logging.getLogger("hubbub").info("told")
logging.getLogger("hubbub.access").info("who came")
print(open("access.log").read())
"""


@shows("docs/deploy.md", "Metrics and logs")
async def test_the_log_and_the_access_log_have_a_line_each(snippets: list[Snippet]) -> None:
    (setting_up,) = snippets
    told, came = (await output_of(setting_up, begin="import hubbub\n", end=TELLING)).splitlines()
    assert told.endswith(" hubbub INFO told")
    assert came.endswith(" who came")


def test_the_image_has_what_it_installs_and_runs() -> None:
    (image,) = [each.text for each in snippets_of("docs/deploy.md") if each.language == "dockerfile"]
    names, rest = re.findall(r"^COPY (.*) /app/\n((?s:.*))", image, re.MULTILINE)[0]
    assert {f"/app/{name}" for name in names.split()} == set(re.findall(r"/app/[^\s\"]+", rest))
