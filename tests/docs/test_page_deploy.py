"""The logging that docs/deploy.md sets up."""

from as_process import output_of
from snippets import Snippet, shows

TELLING = """
logging.getLogger("hubbub").info("told")
logging.getLogger("hubbub.access").info("who came")
print(open("access.log").read())
"""


@shows("docs/deploy.md", "Metrics and logs")
async def test_the_log_and_the_access_log_have_a_line_each(snippets: list[Snippet]) -> None:
    (setting_up,) = snippets
    told, came = (await output_of(setting_up, begin="import hubbub\n", end=TELLING)).split("\n")
    assert told.endswith(" hubbub INFO told")
    assert came.endswith(" who came")
