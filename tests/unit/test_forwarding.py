"""The client of a request, as reported by proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.forwarding import ProxyItself, forwarded

LATIN1 = st.binary().map(lambda raw: raw.decode("latin-1"))
PROXIES = ("127.0.0.1", "::1", "10.0.0.0/8", "2001:db8:1::/48")


def seen_through(*headers: tuple[str, str], peer: str = "10.0.0.1") -> tuple[tuple[str, int], str]:
    return forwarded(headers, (peer, 4711), "http", PROXIES)


def test_a_trusted_proxy_is_believed() -> None:
    headers = (("x-forwarded-for", "192.0.2.9"), ("X-Forwarded-Proto", "https"))
    assert seen_through(*headers) == (("192.0.2.9", 0), "https")


def test_anybody_else_is_not() -> None:
    headers = (("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-Proto", "https"))
    assert seen_through(*headers, peer="198.51.100.1") == (("198.51.100.1", 4711), "http")


def test_a_proxy_that_names_no_client_vouches_for_no_headers() -> None:
    headers = (("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-Proto", "https"))
    proxy = ProxyItself(("10.0.0.1", 4711))
    assert forwarded(headers, proxy, "http", PROXIES) == (("10.0.0.1", 4711), "http")


def test_without_the_headers_the_peer_is_the_client() -> None:
    assert seen_through(("Host", "x")) == (("10.0.0.1", 4711), "http")


def test_nobody_is_trusted_if_nobody_is_listed() -> None:
    assert forwarded([("X-Forwarded-For", "192.0.2.9")], ("127.0.0.1", 1), "http", ()) == (
        ("127.0.0.1", 1),
        "http",
    )


def test_a_list_of_more_proxies_than_there_can_be_is_not_believed() -> None:
    peer = ("10.0.0.1", 4711)
    for_value = ", ".join(["192.0.2.9", *["10.0.0.2"] * 31])
    assert seen_through(("X-Forwarded-For", for_value))[0] == ("192.0.2.9", 0)
    assert seen_through(("X-Forwarded-For", f"{for_value}, 10.0.0.2"))[0] == peer
    assert seen_through(("X-Forwarded-For", ", ".join(["10.0.0.2"] * 33)))[0] == peer
    assert seen_through(*[("X-Forwarded-For", "10.0.0.2")] * 33)[0] == peer


def test_what_stands_left_of_the_client_is_not_read() -> None:
    for_value = ", ".join(["nonsense"] * 2000 + ["192.0.2.9", "10.0.0.2"])
    assert seen_through(("X-Forwarded-For", for_value))[0] == ("192.0.2.9", 0)


@pytest.mark.parametrize(
    ("header", "address", "port"),
    [
        ("203.0.113.5, 192.0.2.9", "192.0.2.9", 0),
        ("203.0.113.5, 192.0.2.9, 10.0.0.2, 10.0.0.3", "192.0.2.9", 0),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3", 0),
        ("192.0.2.9:1234", "192.0.2.9", 1234),
        ("192.0.2.9:99999", "192.0.2.9", 0),
        ("2001:db8::9", "2001:db8::9", 0),
        ("2001:DB8:0::9", "2001:db8::9", 0),
        ("[2001:db8::9]", "2001:db8::9", 0),
        ("[2001:db8::9]:1234, 2001:db8:1::7", "2001:db8::9", 1234),
        ("::ffff:192.0.2.9", "192.0.2.9", 0),
        ("garbage, 192.0.2.9", "192.0.2.9", 0),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(header: str, address: str, port: int) -> None:
    assert seen_through(("X-Forwarded-For", header))[0] == (address, port)


def test_repeated_headers_are_one_list() -> None:
    headers = (("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-For", "192.0.2.9, 10.0.0.2"))
    assert seen_through(*headers)[0] == ("192.0.2.9", 0)


@pytest.mark.parametrize(
    "header",
    ["", ",", "unknown", "192.0.2.9, unknown", "999.0.0.1", "[", "[]:1", "fe80::1%<script>", "x" * 9000],
)
def test_a_malformed_address_leaves_the_peer(header: str) -> None:
    assert seen_through(("X-Forwarded-For", header))[0] == ("10.0.0.1", 4711)


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        ("https", "https"),
        ("HTTPS ", "https"),
        ("wss", "https"),
        ("ws", "http"),
        ("http, https", "https"),
        ("https, http", "http"),
        ("javascript", "http"),
        ("", "http"),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(header: str, scheme: str) -> None:
    assert seen_through(("X-Forwarded-Proto", header))[1] == scheme


def test_a_proxy_is_recognized_on_a_listener_for_both_families() -> None:
    assert seen_through(("X-Forwarded-For", "192.0.2.9"), peer="::ffff:10.0.0.1")[0] == ("192.0.2.9", 0)


@given(for_value=LATIN1, proto=LATIN1, peer=st.ip_addresses().map(str) | st.text())
def test_whatever_was_forwarded_the_client_has_an_address(for_value: str, proto: str, peer: str) -> None:
    (address, port), scheme = seen_through(("X-Forwarded-For", for_value), ("X-Forwarded-Proto", proto), peer=peer)
    assert address == peer or address.isascii()
    assert 0 <= port <= 65535
    assert scheme in ("http", "https")
