"""The client for browsers: `hubbub.js`, an ES module, and its types `hubbub.d.ts`, shipped without a build step."""

from pathlib import Path


def client_path() -> Path:
    """Return the path of the browser client, `hubbub.js`, to be served along with your page.

    It is an ES module (media type `text/javascript`) without dependencies; its types are in `hubbub.d.ts` next to it.

    Returns:
        An absolute path inside the installed package.
    """
    return Path(__file__).resolve().with_name("hubbub.js")
