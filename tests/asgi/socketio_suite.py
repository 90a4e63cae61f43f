"""Judge our server with python-socketio: `python tests/asgi/socketio_suite.py [pytest's arguments]`.

First with its own tests that start a live server, then with our cases for its clients (`socketio_clients.py`), which
run with uvicorn too: only what passes there must pass here.
"""

import sys
from pathlib import Path

from judging import compared, extras, fetched, outcomes, verdict

# Tests that pass with uvicorn and fail here, by name, and why that is right.
KNOWN: dict[str, str] = {}


def main() -> int:
    """Run the tests."""
    path = extras("socketio", "requests", "urllib3", "charset-normalizer", "idna", "certifi")
    # They all use the same port.
    arguments = ["-n", "0", "--timeout=30", *sys.argv[1:]]
    print("python-socketio's own tests")
    own = outcomes(
        fetched("python-socketio"),
        "socketio_on_hubbub",
        "tests/async/test_admin.py",
        *arguments,
        JUDGE_SERVER="hubbub",
        PYTHONPATH=path,
    )
    failed = verdict(own, KNOWN)
    print("our cases for its clients")
    arguments = ["socketio_clients.py", "--timeout=30", *sys.argv[1:]]
    cases = compared(Path(__file__).parent, "results", *arguments, PYTHONPATH=path)
    return verdict(cases, KNOWN) or failed


if __name__ == "__main__":
    sys.exit(main())
