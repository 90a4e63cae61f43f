"""Forms in the body of a request."""

from typing import Any

import pytest

from hubbub import Request

URLENCODED = "application/x-www-form-urlencoded"


def posted(body: bytes, content_type: str | None = URLENCODED) -> Request:
    headers = [] if content_type is None else [("Content-Type", content_type)]
    return Request("POST", "/", "", headers, ("192.0.2.7", 4711), "http", body)


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"name=Ada&age=36", {"name": "Ada", "age": "36"}),
        (b"name=Ada+L%C3%B6v&empty=&=x", {"name": "Ada Löv", "empty": "", "": "x"}),
        (b"a=1&a=2", {"a": "2"}),
        (b"a", {"a": ""}),
        (b"&&a=1&&", {"a": "1"}),
        (b"a=%zz%", {"a": "%zz%"}),
        ("a=é".encode(), {"a": "é"}),
        (b"a=1;b=2", {"a": "1;b=2"}),
        (b"", {}),
    ],
)
def test_a_form_is_its_fields(body: bytes, form: dict[str, str]) -> None:
    request = posted(body)
    assert request.form == form
    assert request.form is request.form


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/X-WWW-Form-Urlencoded",
        f"{URLENCODED}; charset=UTF-8",
        f'{URLENCODED};charset="utf-8"',
        f"{URLENCODED} ; x=y",
    ],
)
def test_the_content_type_may_be_written_in_several_ways(content_type: str) -> None:
    assert posted(b"a=1", content_type).form == {"a": "1"}


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "multipart/form-data; boundary=x", "text/plain", ";", f"{URLENCODED}2"],
)
def test_another_body_is_no_form(content_type: str | None) -> None:
    with pytest.raises(ValueError, match="not an urlencoded form: its Content-Type is "):
        posted(b"a=1", content_type).form  # noqa: B018
    assert posted(b"", content_type).form == {}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"a=\xff", URLENCODED),
        (b"a=%ff", URLENCODED),
        (b"%C3=1", URLENCODED),
        (b"a=%ED%A0%80", URLENCODED),
        (b"a=1", f"{URLENCODED}; charset=iso-8859-1"),
    ],
)
def test_a_form_is_utf_8(body: bytes, content_type: str) -> None:
    with pytest.raises(ValueError, match="not in UTF-8"):
        posted(body, content_type).form  # noqa: B018


def test_a_form_has_at_most_1000_fields() -> None:
    assert len(posted(b"&".join(b"f%d=1" % number for number in range(1000))).form) == 1000
    for body in (b"&".join(b"f%d=1" % number for number in range(1001)), b"&" * 1_000_000):
        with pytest.raises(ValueError, match="more than 1,000 fields"):
            posted(body).form  # noqa: B018


def test_a_form_is_read_only() -> None:
    form: Any = posted(b"a=1").form
    with pytest.raises(TypeError):
        form["a"] = "2"
