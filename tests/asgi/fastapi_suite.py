"""Judge our server with FastAPI's tests, whose client talks to a real server: `python tests/asgi/fastapi_suite.py`.

As with Starlette's, which is FastAPI's basis, only what passes with uvicorn must pass here. Arguments are for pytest.
"""

import sys
from pathlib import Path

from judging import compared, extras, fetched, verdict

# Tests that pass with uvicorn and fail here, by name, and why that is right.
KNOWN: dict[str, str] = {
    "tests/test_extra_routes.py::test_trace": "TRACE, which shows pages what they must not see, is refused with 501",
    "tests/test_tutorial/test_websockets/test_tutorial003.py::test_websocket_handle_disconnection": (
        "each WebSocket has a server of its own here, and only the thread of its event loop may send to it"
    ),
}

# They need no server, or many more packages.
LEFT_OUT = (
    "tests/test_fastapi_cli.py",
    "tests/test_prepare_release.py",
    "tests/test_telemetry",
    "tests/test_translate.py",
    "tests/test_tutorial/test_graphql",
    "tests/test_tutorial/test_opentelemetry",
)

EXTRAS = (
    "a2wsgi",
    "argon2-cffi",
    "argon2-cffi-bindings",
    "asttokens",
    "dirty-equals",
    "dnspython",
    "email-validator",
    "executing",
    "greenlet",
    "httpcore",
    "httpx",
    "inline-snapshot",
    "itsdangerous",
    "jinja2",
    "markupsafe",
    "orjson",
    "pwdlib",
    "pydantic-settings",
    "python-dotenv",
    "python-multipart",
    "pyyaml",
    "rich",
    "sqlalchemy",
    "sqlmodel",
)


def selected(directory: Path) -> list[str]:
    """Return the paths of the tests, one by one: pytest would load settings of those left out beside them."""
    paths = [*directory.glob("tests/test_*"), *directory.glob("tests/test_tutorial/test_*")]
    names = {str(path.relative_to(directory)) for path in paths}
    return sorted(names - {*LEFT_OUT, "tests/test_tutorial"})


def main() -> int:
    """Run the tests on both servers."""
    directory = fetched("fastapi")
    # Each test waits for servers that stop, so more of them run at a time than there are cores.
    arguments = [*selected(directory), "--timeout=20", "--tb=no", "-n", "6"]
    path = extras("fastapi", *EXTRAS)
    return verdict(compared(directory, "starlette_live", *arguments, *sys.argv[1:], PYTHONPATH=path), KNOWN)


if __name__ == "__main__":
    sys.exit(main())
