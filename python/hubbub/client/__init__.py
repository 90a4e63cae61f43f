"""The client for browsers: `hubbub.js`, an ES module, and its types `hubbub.d.ts`, shipped as they are written."""

from pathlib import Path


def client_path() -> Path:
    """The file of the browser client, `hubbub.js`, to be served by whatever serves the page.

    It is an ES module (media type `text/javascript`) without dependencies; its types are in `hubbub.d.ts` beside it.

    Returns:
        An absolute path inside the installed package.
    """
    return Path(__file__).resolve().with_name("hubbub.js")
