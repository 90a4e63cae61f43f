"""Cookies in answers: which can be set, and that none breaks out of its header."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Accept, Response
from hubbub.headers import pairs_of


def cookies(response: Response) -> list[str]:
    return [value for name, value in pairs_of(response.headers) if name == "Set-Cookie"]


def test_a_cookie_is_for_the_whole_site_and_hidden_from_scripts() -> None:
    assert cookies(Response("x").set_cookie("session", "a1")) == ["session=a1; Path=/; HttpOnly; SameSite=Lax"]


def test_a_cookie_with_everything() -> None:
    response = Response().set_cookie(
        "a", "", max_age=60, path="/app", domain="example.com", secure=True, httponly=False, samesite="none"
    )
    assert cookies(response) == ["a=; Max-Age=60; Path=/app; Domain=example.com; Secure; SameSite=None"]
    assert cookies(Response().set_cookie("a", "b", samesite=None, httponly=False)) == ["a=b; Path=/"]


def test_cookies_are_added_to_the_response_itself() -> None:
    response = Response("page", headers={"X-Tag": "1"})
    assert response.set_cookie("a", "1") is response
    response.set_cookie("b", "2")
    response.delete_cookie("c")
    assert [cookie.partition(";")[0] for cookie in cookies(response)] == ["a=1", "b=2", "c="]
    assert (response.body, response.headers["X-Tag"]) == (b"page", "1")


def test_cookies_of_one_response_are_not_in_another() -> None:
    headers = {"X-Tag": "1"}
    first, second = Response(headers=headers), Response(headers=headers)
    first.set_cookie("a", "1")
    assert (cookies(second), headers) == ([], {"X-Tag": "1"})


def test_a_deleted_cookie_ends_at_once() -> None:
    assert cookies(Response().delete_cookie("a")) == ["a=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"]
    (deleted,) = cookies(Response().delete_cookie("a", path="/app", domain="example.com"))
    assert "Path=/app; Domain=example.com" in deleted
    for name in ("__Secure-a", "__Host-a"):
        assert "Secure" in cookies(Response().delete_cookie(name))[0].split("; ")


def test_a_redirect_may_set_a_cookie() -> None:
    response = Response.redirect("/", headers={"X-Tag": "1"}).set_cookie("a", "1")
    assert (response.status, response.headers["Location"], response.headers["X-Tag"]) == (303, "/", "1")
    assert len(cookies(response)) == 1


def test_headers_may_be_pairs_with_a_name_twice() -> None:
    pairs = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Tag", "1")]
    for answer in (Response("x", headers=pairs), Accept(headers=pairs)):
        assert pairs_of(answer.headers)[:3] == pairs
        assert answer.headers["X-Tag"] == "1"
    assert pairs_of(Response.json(1, headers=iter(pairs)).headers)[:3] == pairs
    assert pairs_of(Response(headers=Response(headers=pairs).headers).headers) == pairs


BREAKS = ["\r\n", "\n", "\r", "\0", "\x7f", ";", "\r\nSet-Cookie: b=2"]


@pytest.mark.parametrize("text", [*BREAKS, " ", ",", '"', "\\", "é", "\t", "\u2028"])
def test_a_value_cannot_break_out(text: str) -> None:
    for value in (text, f"a{text}b"):
        with pytest.raises(ValueError, match=r"the value of the cookie a .* urllib.parse.quote"):
            Response().set_cookie("a", value)


@pytest.mark.parametrize("text", [*BREAKS, " ", ",", '"', "=", "é", ""])
def test_a_name_cannot_break_out(text: str) -> None:
    name = f"a{text}b" if text else ""
    with pytest.raises(ValueError, match="is not the name of a cookie"):
        Response().set_cookie(name, "1")
    with pytest.raises(ValueError, match="is not the name of a cookie"):
        Response().delete_cookie(name)


@pytest.mark.parametrize("text", [*BREAKS, "é"])
def test_an_attribute_cannot_break_out(text: str) -> None:
    wrong: list[dict[str, Any]] = [{"path": f"/{text}"}, {"domain": f"a{text}b"}]
    for attribute in wrong:
        with pytest.raises(ValueError, match="of a cookie must"):
            Response().set_cookie("a", "1", **attribute)
        with pytest.raises(ValueError, match="of a cookie must"):
            Response().delete_cookie("a", **attribute)
    with pytest.raises(ValueError, match="samesite must be"):
        Response().set_cookie("a", "1", samesite=f"lax{text}")


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("a", {"samesite": "none"}, "samesite='none' that is not secure"),
        ("__Secure-a", {}, "not secure"),
        ("__host-a", {}, "not secure"),
        ("__Host-a", {"secure": True, "path": "/app"}, "a path other than /"),
        ("__Host-a", {"secure": True, "domain": "example.com"}, "has a domain"),
        ("a", {"path": "app"}, "begin with /"),
        ("a", {"path": ""}, "begin with /"),
        ("a", {"path": "/" * 2000}, "begin with /"),
        ("a", {"domain": ""}, "host name"),
        ("a", {"domain": "a..b"}, "host name"),
        ("a", {"max_age": -1}, "from 0 to"),
        ("a", {"max_age": 10**5000}, "from 0 to"),
        ("a", {"samesite": "no"}, "samesite must be"),
    ],
)
def test_what_browsers_would_ignore_is_refused(name: str, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        Response().set_cookie(name, "1", **settings)


def test_a_cookie_has_at_most_4096_bytes() -> None:
    Response().set_cookie("ab", "x" * 4094)
    with pytest.raises(ValueError, match="longer than 4096 bytes"):
        Response().set_cookie("ab", "x" * 4095)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": 1},
        {"name": b"a"},
        {"value": 1},
        {"value": None},
        {"max_age": "60"},
        {"max_age": True},
        {"max_age": 1.5},
        {"path": None},
        {"domain": 1},
        {"secure": 1},
        {"httponly": None},
        {"samesite": True},
    ],
)
def test_arguments_of_other_types_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(settings))} must be "):
        Response().set_cookie(**{"name": "a", "value": "1", **settings})


@settings(deadline=None)
@given(name=st.text(max_size=20), value=st.text(max_size=50), path=st.text(max_size=20))
def test_what_is_accepted_comes_back_as_it_was(name: str, value: str, path: str) -> None:
    try:
        (text,) = cookies(Response().set_cookie(name, value, path=path))
    except ValueError:
        return
    pair, *attributes = text.split("; ")
    assert pair == f"{name}={value}"
    assert [attribute.partition("=")[0] for attribute in attributes] == ["Path", "HttpOnly", "SameSite"]


def test_redirect_takes_no_other_location() -> None:
    with pytest.raises(ValueError, match="redirect itself sets the header Location"):
        Response.redirect("/", headers={"location": "/other"})
    with pytest.raises(ValueError, match="control character"):
        Response.redirect("/", headers={"X-Tag": "a\r\nb: c"})
