"""The values: the parts of a request, and the allowed contents of an answer."""

import dataclasses
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.events import CloseCode, ConnectionInfo, Opcode, check_close
from hubbub.requests import Request
from hubbub.responses import Accept, Refuse, Response

PEER = ("192.0.2.7", 4711)


def request(
    *headers: tuple[str, str], path: str = "/", query: str = "", method: str = "GET", body: bytes = b""
) -> Request:
    return Request(method, path, query, list(headers), PEER, "http", body)


# Opcodes and close codes.


def test_opcodes_have_the_values_of_the_rfc() -> None:
    assert [(opcode.name, opcode.value) for opcode in Opcode] == [
        ("CONTINUATION", 0),
        ("TEXT", 1),
        ("BINARY", 2),
        ("CLOSE", 8),
        ("PING", 9),
        ("PONG", 10),
    ]


def test_close_codes_are_the_registered_ones() -> None:
    assert set(CloseCode) == set(range(1000, 1016)) - {1004}
    assert CloseCode(1001) is CloseCode.GOING_AWAY
    assert CloseCode(1005) is CloseCode.NO_STATUS_RCVD


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 3999, 4000, 4999, CloseCode.TRY_AGAIN_LATER])
def test_close_codes_that_may_be_sent(code: int) -> None:
    check_close(code, "")


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 2**70])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match="may not be sent"):
        check_close(code, "")


def test_a_close_reason_is_measured_in_bytes_of_utf8() -> None:
    check_close(1000, "é" * 61 + "x")
    with pytest.raises(ValueError, match="123 bytes"):
        check_close(1000, "é" * 62)


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (1000.0, ""), (1000, b"bye"), (1000, None)])
def test_a_close_code_is_an_int_and_a_reason_a_str(code: Any, reason: Any) -> None:
    with pytest.raises(TypeError):
        check_close(code, reason)


def test_connection_info_has_the_documented_fields() -> None:
    info = ConnectionInfo(1, 0, PEER, "/chat", 7, 10.0, 11.0, 0.5, 2, 3, 4, 5, 6)
    assert info._fields == (
        "fd",
        "worker_id",
        "client",
        "path",
        "topics",
        "opened_at",
        "last_received_at",
        "latency",
        "messages_in",
        "messages_out",
        "bytes_in",
        "bytes_out",
        "queued_bytes",
    )
    assert info.queued_bytes == 6


# Request.


def test_a_request_tells_its_parts() -> None:
    asked = Request("POST", "/form", "a=1", [("Host", "x")], PEER, "https", b"body")
    assert (asked.method, asked.path, asked.query_string) == ("POST", "/form", "a=1")
    assert (asked.client, asked.scheme, asked.body, asked.fd) == (PEER, "https", b"body", 0)


@pytest.mark.parametrize(
    "attribute",
    [
        "fd",
        "method",
        "path",
        "query_string",
        "query",
        "headers",
        "cookies",
        "client",
        "scheme",
        "origin",
        "body",
        "peer_certificate",
    ],
)
def test_a_request_is_read_only(attribute: str) -> None:
    with pytest.raises(AttributeError):
        setattr(request(), attribute, None)


def test_the_mappings_of_a_request_are_read_only_and_made_once() -> None:
    asked = request(("Cookie", "a=1"), query="b=2")
    for mapping in (asked.query, asked.headers, asked.cookies):
        with pytest.raises(TypeError):
            mapping["x"] = "y"  # type: ignore[index]
    assert asked.query is asked.query
    assert asked.headers is asked.headers
    assert asked.cookies is asked.cookies


def test_changing_a_list_of_pairs_does_not_change_the_request() -> None:
    asked = request(("Host", "x"), query="a=1")
    asked.headers_all.clear()
    asked.query_all.clear()
    assert asked.headers_all == [("host", "x")]
    assert asked.query_all == [("a", "1")]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/chat", "/chat"),
        ("/caf%C3%A9", "/café"),
        ("/a%2Fb%20c", "/a/b c"),
        ("/a+b", "/a+b"),
        ("/%ff", "/\ufffd"),
        ("/%", "/%"),
        ("/%zz", "/%zz"),
        ("*", "*"),
    ],
)
def test_the_path_is_decoded(target: str, path: str) -> None:
    assert request(path=target).path == path


def test_the_last_value_wins_in_the_query() -> None:
    asked = request(query="name=ann&name=bob&empty=&flag&space=a+b%20c&%C3%A9=%E2%82%AC")
    assert asked.query == {"name": "bob", "empty": "", "flag": "", "space": "a b c", "é": "€"}
    assert asked.query_all[:2] == [("name", "ann"), ("name", "bob")]


def test_names_of_headers_that_are_sent_have_no_case() -> None:
    sent = Response(headers=[("X-Tag", "1"), ("x-tag", "2")]).headers
    assert dict(sent) == {"X-Tag": "1, 2"}
    assert sent["x-TAG"] == "1, 2"
    assert "X-TAG" in sent
    assert "x-other" not in sent


def test_header_names_are_in_lower_case_and_repeated_ones_joined() -> None:
    asked = request(("Host", "x"), ("X-Tag", "a"), ("x-tag", "b"), ("COOKIE", "a=1"), ("cookie", "b=2"))
    assert asked.headers == {"host": "x", "x-tag": "a, b", "cookie": "a=1; b=2"}
    assert asked.headers_all[1:3] == [("x-tag", "a"), ("x-tag", "b")]


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        ('a="1"', {"a": "1"}),
        ('a="', {"a": '"'}),
        ("a=x=y", {"a": "x=y"}),
        ("a=", {"a": ""}),
        ("a={json: [1]}; b=2", {"a": "{json: [1]}", "b": "2"}),
        ("nameless; =x; ; b=2", {"b": "2"}),
        ("a=near; a=far", {"a": "near"}),
        ("", {}),
    ],
)
def test_cookies_are_read_leniently(header: str, cookies: dict[str, str]) -> None:
    assert request(("Cookie", header)).cookies == cookies


def test_without_a_cookie_header_there_are_no_cookies() -> None:
    assert request().cookies == {}


def test_the_origin_is_none_for_what_is_no_browser() -> None:
    assert request().origin is None
    assert request(("Origin", "https://a.example")).origin == "https://a.example"


def test_subprotocols_are_in_the_order_of_the_client() -> None:
    asked = request(("Sec-WebSocket-Protocol", "b, a"), ("Sec-WebSocket-Protocol", ",c"))
    assert asked.subprotocols == ["b", "a", "c"]
    assert request().subprotocols == []


def test_state_is_free() -> None:
    asked = request()
    asked.state.user = "ann"
    assert asked.state.user == "ann"
    asked.state = 5
    assert asked.state == 5
    asked.state = None
    assert asked.state is None


def test_the_repr_shows_no_secret() -> None:
    asked = request(
        ("Cookie", "session=secret"), ("Authorization", "Bearer secret"), path="/chat", query="token=secret"
    )
    assert repr(asked) == "<Request fd=0 GET '/chat' from 192.0.2.7 port 4711>"


def test_the_repr_stays_on_one_line() -> None:
    assert "\n" not in repr(request(path="/%0d%0a"))


latin1 = st.binary().map(lambda raw: raw.decode("latin-1"))


@given(
    path=latin1,
    query=latin1,
    headers=st.lists(st.tuples(latin1 | st.just("Cookie"), latin1)),
    body=st.binary(),
)
def test_whatever_bytes_came_a_request_can_be_read(
    path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    asked = request(*headers, path=path, query=query, body=body)
    read = (asked.path, asked.query, asked.query_all, asked.headers, asked.headers_all, asked.cookies)
    assert all(part is not None for part in read)
    assert set(asked.headers) == {name.lower() for name, _ in headers}
    assert isinstance(asked.subprotocols, list)
    assert "\n" not in repr(asked)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_path_comes_back(path: str) -> None:
    assert request(path=quote(path)).path == path


# Response.


def test_an_empty_response() -> None:
    response = Response()
    assert (response.body, response.status, response.headers, response.content_type) == (b"", 200, {}, None)


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ("grüß", "grüß".encode(), "text/html; charset=utf-8"),
        (b"\x00", b"\x00", "application/octet-stream"),
        (bytearray(b"x"), b"x", "application/octet-stream"),
        (memoryview(b"xyz")[::2], b"xz", "application/octet-stream"),
    ],
)
def test_the_body_decides_the_content_type(
    body: str | bytes | bytearray | memoryview, sent: bytes, content_type: str
) -> None:
    response = Response(body)
    assert response.body == sent
    assert response.content_type == content_type
    assert response.headers == {"Content-Type": content_type}


def test_a_given_content_type_is_kept() -> None:
    assert Response("x", content_type="text/plain").headers == {"Content-Type": "text/plain"}
    response = Response("x", headers={"content-type": "text/css"})
    assert response.headers == {"content-type": "text/css"}
    assert response.content_type == "text/css"


def test_two_content_types_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="differs"):
        Response("x", headers={"Content-Type": "text/css"}, content_type="text/plain")


def test_a_response_does_not_change() -> None:
    headers = {"X-Tag": "a"}
    response = Response(headers=headers)
    headers["X-Tag"] = "b\r\nInjected: yes"
    assert response.headers == {"X-Tag": "a"}
    with pytest.raises(TypeError):
        response.headers["X-Tag"] = "c"  # type: ignore[index]
    with pytest.raises(AttributeError):
        response.status = 500  # type: ignore[misc]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Tag": "a\r\nInjected: yes"},
        {"X-Tag": "a\nb"},
        {"X-Tag": "a\0b"},
        {"X-Tag": "a\x7fb"},
        {"X-Tag": "€"},
        {"X-Tag\r\nInjected": "yes"},
        {"X Tag": "a"},
        {"X-Tag:": "a"},
        {"": "a"},
        {"Content-Length": "5"},
        {"transfer-encoding": "chunked"},
        {"Connection": "close"},
    ],
)
def test_headers_cannot_break_out_of_the_response(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        Response(headers=headers)
    with pytest.raises(ValueError, match="header"):
        Accept(headers=headers)


def test_a_content_type_cannot_break_out_either() -> None:
    with pytest.raises(ValueError, match="Content-Type"):
        Response("x", content_type="text/html\r\nInjected: yes")


@given(name=st.text(), value=st.text())
def test_a_header_that_is_accepted_is_one_line_of_latin1(name: str, value: str) -> None:
    try:
        response = Response(headers={name: value})
    except ValueError:
        return
    for accepted_name, accepted_value in response.headers.items():
        line = f"{accepted_name}: {accepted_value}".encode("latin-1")
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "headers",
    [
        "X-Tag",
        b"X-Tag",
        ["X-Tag"],
        [("X-Tag",)],
        [("X-Tag", 1)],
        [("a", "b", "c")],
        {"X-Tag": 1},
        {b"X-Tag": "a"},
        5,
        None,
    ],
)
def test_headers_are_a_mapping_or_pairs_of_str(headers: Any) -> None:
    with pytest.raises(TypeError):
        Response(headers=headers)


@pytest.mark.parametrize("status", [101, 199, 600, -1, 0])
def test_a_status_out_of_range(status: int) -> None:
    with pytest.raises(ValueError, match="allowed are 200 to 599"):
        Response(status=status)


@pytest.mark.parametrize("status", ["200", 200.0, True, None])
def test_a_status_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError):
        Response(status=status)


@pytest.mark.parametrize("body", [5, None, ["x"]])
def test_a_body_is_text_or_bytes(body: Any) -> None:
    with pytest.raises(TypeError):
        Response(body)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    assert Response(status=status).body == b""
    with pytest.raises(ValueError, match="cannot have a body"):
        Response("x", status)


def test_json_is_compact_and_utf8() -> None:
    response = Response.json({"name": "Zoë", "ids": [1, 2]}, status=201, headers={"X-Tag": "a"})
    assert response.body == '{"name":"Zoë","ids":[1,2]}'.encode()
    assert response.status == 201
    assert response.headers == {"X-Tag": "a", "Content-Type": "application/json"}


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError):
        Response.json({1, 2})
    with pytest.raises(ValueError, match="JSON"):
        Response.json(float("nan"))


def test_redirect_names_the_place() -> None:
    response = Response.redirect("/login?next=/a b&x=é%20")
    assert response.status == 303
    assert response.headers == {"Location": "/login?next=/a%20b&x=%C3%A9%20"}
    assert response.body == b""
    assert Response.redirect("https://[::1]:8443/#top", 308).headers == {"Location": "https://[::1]:8443/#top"}


@pytest.mark.parametrize("character", ["\u3000", "\u200d", "\xa0", "\xad", "駅"])
def test_redirect_encodes_what_is_no_control_character(character: str) -> None:
    assert Response.redirect(f"/s?q={character}").headers == {"Location": f"/s?q={quote(character)}"}


@pytest.mark.parametrize("character", ["\0", "\t", "\x7f", "\x85", "\ud800"])
def test_redirect_refuses_what_no_url_can_have(character: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate" if character > "\xff" else "control character"):
        Response.redirect(f"/{character}")


def test_redirect_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match="control character"):
        Response.redirect("/\r\nInjected: yes")
    with pytest.raises(ValueError, match="not a redirect"):
        Response.redirect("/", 200)


def test_the_repr_of_a_response_shows_neither_body_nor_headers() -> None:
    shown = repr(Response("secret", headers={"Set-Cookie": "secret"}))
    assert "secret" not in shown
    assert "status=200" in shown


@pytest.mark.parametrize("body", [{"a": 1}, None, 1])
def test_a_body_that_is_none_is_refused_with_what_it_may_be(body: object) -> None:
    with pytest.raises(TypeError, match=f"str or bytes-like .*Response.json.*, not {type(body).__name__}"):
        Response(body)  # type: ignore[arg-type]


def test_a_response_can_be_made_of_another_one() -> None:
    response = Response("page", headers={"X-Other": "1"})
    replaced = dataclasses.replace(response, status=201, headers={**response.headers, "X-More": "2"})
    assert (replaced.body, replaced.status) == (b"page", 201)
    assert dict(replaced.headers) == {**response.headers, "X-More": "2"}


# The answers to a handshake.


def test_accept_holds_subprotocol_and_headers() -> None:
    assert Accept().subprotocol is None
    accept = Accept("chat", {"Set-Cookie": "a=1"})
    assert (accept.subprotocol, accept.headers) == ("chat", {"Set-Cookie": "a=1"})


@pytest.mark.parametrize("subprotocol", ["", "two words", "a,b", "a\r\n", "é"])
def test_accept_refuses_what_is_no_subprotocol(subprotocol: str) -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        Accept(subprotocol)


@pytest.mark.parametrize("name", ["Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"])
def test_accept_leaves_the_handshake_to_the_server(name: str) -> None:
    with pytest.raises(ValueError, match="the server itself sets"):
        Accept(headers={name: "x"})


def test_refuse_holds_code_and_reason() -> None:
    refuse = Refuse(4001, "no such room")
    assert (refuse.code, refuse.reason) == (4001, "no such room")
    assert Refuse(1008).reason == ""


def test_refuse_is_checked_as_a_close_frame() -> None:
    with pytest.raises(ValueError, match="may not be sent"):
        Refuse(1006)
    with pytest.raises(ValueError, match="123 bytes"):
        Refuse(4001, "x" * 124)
