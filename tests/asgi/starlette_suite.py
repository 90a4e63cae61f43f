"""Judge our server with Starlette's tests, whose client talks to a real server: `python tests/asgi/starlette_suite.py`.

The tests were written for a client that calls the application directly, so some fail with any server. They run with
uvicorn too: only what passes there must pass here. Arguments are for pytest.
"""

import sys

from judging import compared, extras, fetched, verdict

# Tests that pass with uvicorn and fail here, by name, and why that is right.
HOSTS = "a Host that no address can have is refused before the application sees it"
FUTURE = "IPvFuture addresses, which do not exist, are refused as Host"
REDIRECT = "tests/middleware/test_https_redirect.py::test_https_redirect_middleware"
TRUSTED = "tests/middleware/test_trusted_host.py::test_trusted_host_middleware_ipv6"
ROUTING = "tests/test_routing.py::test_host_routing"
KNOWN: dict[str, str] = {
    REDIRECT: HOSTS,
    f"{REDIRECT}_without_server[asyncio-[:::]]": HOSTS,
    f"{REDIRECT}_without_server[asyncio-testserver:65536]": HOSTS,
    f"{TRUSTED}[asyncio-[v1.foo]-200]": FUTURE,
    f"{TRUSTED}[asyncio-api_service:100000-200]": HOSTS,
    f"{TRUSTED}[asyncio-api_service:65536-200]": HOSTS,
    f"{ROUTING}_ignores_port[asyncio-api.example.org:100000]": HOSTS,
    f"{ROUTING}_ignores_port[asyncio-api.example.org:65536]": HOSTS,
    f"{ROUTING}_ip_literals": FUTURE,
    f"{ROUTING}_rejects_invalid_hosts": HOSTS,
}

# They test the client itself, or nothing that needs a server.
LEFT_OUT = (
    "tests/test_testclient.py",
    "tests/test_config.py",
    "tests/test_datastructures.py",
    "tests/test__utils.py",
    "tests/middleware/test_opentelemetry.py",
)


def main() -> int:
    """Run the tests on both servers."""
    directory = fetched("starlette")
    arguments = ["tests", *[f"--ignore={each}" for each in LEFT_OUT], "--timeout=20", "--tb=no", *sys.argv[1:]]
    path = extras(
        "starlette", "python-multipart", "itsdangerous", "jinja2", "markupsafe", "httpx", "httpcore", "pyyaml"
    )
    return verdict(compared(directory, "starlette_live", *arguments, PYTHONPATH=path), KNOWN)


if __name__ == "__main__":
    sys.exit(main())
