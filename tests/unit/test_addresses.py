"""Names and addresses of a server."""

import pytest

from hubbub.addresses import loopback_names, urls_to_open


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "LOCALHOST.", "app.localhost"])
def test_a_loopback_address_has_the_loopback_names(host: str) -> None:
    names = loopback_names([host])
    assert names is not None
    assert names[:4] == ("localhost", "*.localhost", "127.0.0.1", "[::1]")


def test_other_loopback_addresses_are_served_too() -> None:
    assert loopback_names(["127.0.0.5"]) == ("localhost", "*.localhost", "127.0.0.1", "[::1]", "127.0.0.5")


@pytest.mark.parametrize("hosts", [["0.0.0.0"], ["::"], ["192.0.2.1"], ["app.example.com"], ["127.0.0.1", "::"]])
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
