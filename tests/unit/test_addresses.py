"""Names and addresses of a server."""

import socket
import threading
from typing import Any

import pytest

from hubbub.addresses import loopback_names, urls_to_open
from hubbub.settings import Settings


@pytest.fixture
def hosts_file(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of some names; a test adds them, and they take precedence over the system's."""
    names: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def resolve_too(host: str, *arguments: Any, **options: Any) -> list[Any]:
        return [each for name in names.get(host, [host]) for each in resolve(name, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_too)
    return names


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "LOCALHOST.", "app.localhost"])
def test_a_loopback_address_has_the_loopback_names(host: str) -> None:
    names = loopback_names([host])
    assert names is not None
    assert names[:4] == ("localhost", "*.localhost", "127.0.0.1", "[::1]")


def test_other_loopback_addresses_are_served_too() -> None:
    assert loopback_names(["127.0.0.5"]) == ("localhost", "*.localhost", "127.0.0.1", "[::1]", "127.0.0.5")


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("127.1", ["127.1", "127.0.0.1"]),
        ("0x7f000005", ["0x7f000005", "127.0.0.5"]),
        ("0:0:0:0:0:0:0:1", ["[::1]"]),
    ],
)
def test_a_loopback_address_in_another_spelling_is_served_too(host: str, listed: list[str]) -> None:
    names = loopback_names([host])
    assert names is not None
    assert set(names) == {"localhost", "*.localhost", "127.0.0.1", "[::1]", *listed}


@pytest.mark.parametrize("name", ["machine", "machine.lan.", "bücher"])
def test_a_name_is_judged_by_all_that_it_resolves_to(hosts_file: dict[str, list[str]], name: str) -> None:
    hosts_file[name] = ["127.0.1.1", "::1"]
    names = loopback_names([name])
    assert names is not None
    as_in_header = {"bücher": "xn--bcher-kva"}.get(name, name)
    assert set(names) == {"localhost", "*.localhost", "127.0.0.1", "[::1]", "127.0.1.1", as_in_header}
    # `Settings` accepts these names.
    assert Settings.load({}, environ={}, defaults={"allowed_hosts": names}).allowed_hosts == names
    hosts_file[name] = ["127.0.1.1", "192.0.2.1"]
    assert loopback_names([name]) is None


def test_a_name_that_cannot_be_resolved_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()

    def resolve(host: str, *arguments: Any, **options: Any) -> list[Any]:
        ends.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "in vain")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        # The server accepts its own name, and no foreign one.
        assert loopback_names(["machine"]) == ("localhost", "*.localhost", "127.0.0.1", "[::1]", "machine")
    finally:
        ends.set()
    assert loopback_names(["machine"]) is None


@pytest.mark.parametrize("hosts", [["0.0.0.0"], ["0"], ["::"], ["192.0.2.1"], ["app.example.com"], ["127.0.0.1", "::"]])
def test_what_others_can_reach_has_none(hosts: list[str]) -> None:
    assert loopback_names(hosts) is None


@pytest.mark.parametrize(
    ("hosts", "urls"),
    [
        (["127.0.0.1"], ["http://127.0.0.1:9501/"]),
        (["::1"], ["http://[::1]:9501/"]),
        (["app.example.com"], ["http://app.example.com:9501/"]),
        (["localhost", "192.0.2.7", "::1"], ["http://localhost:9501/", "http://192.0.2.7:9501/", "http://[::1]:9501/"]),
    ],
)
def test_an_address_is_opened_as_it_is(hosts: list[str], urls: list[str]) -> None:
    assert urls_to_open(hosts, 9501, tls=False) == urls
    assert urls_to_open(hosts, 9501, tls=True) == [url.replace("http", "https") for url in urls]


@pytest.mark.parametrize("host", ["0", "0x0", "0.0"])
def test_a_wildcard_in_another_spelling_is_none_either(host: str) -> None:
    assert urls_to_open([host], 9501, tls=False) == urls_to_open(["0.0.0.0"], 9501, tls=False)
    assert not any(host in url.split("//")[1].split(":") for url in urls_to_open([host], 9501, tls=False))


def test_a_name_that_stands_for_a_wildcard_too_is_opened_as_it_is(hosts_file: dict[str, list[str]]) -> None:
    hosts_file["everywhere"] = ["192.0.2.7", "0.0.0.0"]
    urls = urls_to_open(["everywhere"], 9501, tls=False)
    assert urls == ["http://everywhere:9501/", *urls_to_open(["0.0.0.0"], 9501, tls=False)]
