"""Judge our WebSockets with uvicorn's tests of its own: `python tests/asgi/uvicorn_websockets.py [pytest's arguments]`.

The tests start a live server and connect to it; only the way in which it is started is ours.
"""

import sys

from judging import fetched, outcomes, verdict

TESTS = "tests/protocols/test_websocket.py"

# Tests that fail, by name, and why that is right.
INTERNALS = "looks into uvicorn's own objects"
NO_CLOSE = (
    "uvicorn cuts the connection, which the client sees as 1006; we send a Close frame, as its docstring asks for"
)
KNOWN: dict[str, str] = {
    "test_frame_after_close_handshake_is_ignored": INTERNALS,
    "test_server_keepalive_ping_pong": INTERNALS,
    "test_server_keepalive_disabled": INTERNALS,
    "test_default_server_headers": "we send no Server header",
    "test_multiple_server_header": "we have no setting for headers of all answers",
    "test_no_date_header": "we always send Date, which an origin server with a clock must (RFC 9110 §6.6.1)",
    "test_duplicate_handshake": NO_CLOSE,
    "test_asgi_return_value": NO_CLOSE,
    "test_close_transport_on_asgi_return": NO_CLOSE,
    "test_send_close_on_server_shutdown": "we close with 1001, going away, and not with 1012",
    "test_server_reject_connection_with_invalid_status": "our 500 ends in a newline",
}


def main() -> int:
    """Run the tests."""
    found = outcomes(fetched("uvicorn"), "uvicorn_on_hubbub", TESTS, "--timeout=20", *sys.argv[1:])
    known = {f"{TESTS}::{name}": why for name, why in KNOWN.items()}
    return verdict(found, known)


if __name__ == "__main__":
    sys.exit(main())
