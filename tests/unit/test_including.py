"""Endpoints: what can be included, and which handlers and settings they may have."""

import re
from typing import Any

import pytest

from hubbub import Endpoint, Server, SettingsError


def include_all(*paths: str) -> None:
    server = Server()
    for path in paths:
        server.include(Endpoint(path))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "does not begin with /"),
        ("chat", "does not begin with /"),
        ("/a//b", "empty segment"),
        ("/chat/..", '".."'),
        ("/chat?room=1", "without query"),
        ("/a%20b", "decoded path"),
        ("/{room", "braces"),
        ("/{room}.json", "braces"),
        ("/{}", "not an identifier"),
        ("/{room-id}", "not an identifier"),
        ("/{room:uuid}", 'unknown kind "uuid"; known kinds are int and path'),
        ("/{room}/{room:int}", 'two parameters called "room"'),
        ("/{all:path}/more", "goes on after {all:path}"),
        ("/a\ud800", "path must be text that UTF-8 can express, without lone surrogates"),
    ],
)
def test_a_path_that_makes_no_sense_is_refused_at_include(path: str, problem: str) -> None:
    endpoint = Endpoint(path)
    with pytest.raises(ValueError, match=re.escape(problem)):
        Server().include(endpoint)


@pytest.mark.parametrize(
    "paths",
    [
        ("/chat", "/chat"),
        ("/chat/{room}", "/chat/{name}"),
        ("/{all:path}", "/{every:path}"),
    ],
)
def test_the_same_path_twice_is_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"served already, by <Endpoint {paths[0]!r}>")):
        include_all(*paths)


@pytest.mark.parametrize(
    "paths",
    [
        ("/{name}", "/chat"),
        ("/{name}", "/{id:int}"),
        ("/{id:int}", "/42"),
        ("/{all:path}", "/chat/{room}"),
        ("/a", "/files/{name:path}", "/files/{name}/{version:int}"),
    ],
)
def test_a_path_that_would_never_be_served_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{paths[-1]!r} would never be served: <Endpoint {paths[-2]!r}>")):
        include_all(*paths)


def test_a_refused_endpoint_leaves_the_server_as_it_was() -> None:
    server = Server()
    server.include(Endpoint("/{name}"))
    with pytest.raises(ValueError, match="never be served"):
        server.include(Endpoint("/chat"))
    server.include(Endpoint("/chat/{room}"))


def test_paths_that_overlap_in_part_are_fine() -> None:
    include_all("/chat", "/42", "/{id:int}", "/{name}", "/", "/{a}/b", "/a/{b}", "/chat/", "/{all:path}")


def test_the_same_endpoint_twice_is_refused() -> None:
    server, endpoint = Server(), Endpoint("/chat")
    server.include(endpoint)
    with pytest.raises(ValueError, match="served already"):
        server.include(endpoint)


@pytest.mark.parametrize("value", [None, "/chat", Server])
def test_only_endpoints_can_be_included(value: Any) -> None:
    with pytest.raises(TypeError, match="endpoint must be an Endpoint"):
        Server().include(value)


@pytest.mark.parametrize("path", [None, b"/chat", 1])
def test_a_path_is_a_str(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be a str"):
        Endpoint(path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"origins": "https//example.com"}, "origins"),
        ({"origins": 5}, "origins"),
        ({"subprotocols": ["a b"]}, "subprotocols"),
        ({"subprotocols": "chat"}, "subprotocols"),
        ({"max_message_size": 0}, "max_message_size"),
        ({"max_message_size": "1"}, "max_message_size"),
        ({"max_message_size": True}, "max_message_size"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{problem}: .* \(keyword of Endpoint\('/chat'\)\) is not allowed"):
        Endpoint("/chat", **settings)


def test_a_setting_that_contradicts_the_servers_is_refused_at_include() -> None:
    server = Server(max_memory=2**20, max_message_size=1000)
    with pytest.raises(SettingsError, match="max_memory"):
        server.include(Endpoint("/chat", max_message_size=2**21))


def test_on_follows_the_rules_of_the_server() -> None:
    endpoint = Endpoint("/chat")

    async def later(server: Server) -> None: ...

    # Type checkers find these mistakes.
    on: Any = endpoint.on
    with pytest.raises(ValueError, match="unknown event 'massage'; known events: "):
        on("massage", lambda: None)
    for event in ("worker_start", "worker_stop", "start", "shutdown", "pipe_message", "join", "leave"):
        with pytest.raises(ValueError, match=f"an endpoint has no '{event}' event, only handshake, open, message, "):
            on(event, lambda: None)
    with pytest.raises(TypeError, match="'message' handler receives"):
        on("message", lambda server, frame, more: None)
    with pytest.raises(TypeError, match="async def"):
        on("message", later, threaded=True)
    assert endpoint.on("message")(later) is later
    with pytest.raises(ValueError, match="'message' already has a handler at '/chat'"):
        endpoint.on("message", later)


def test_it_says_what_it_is() -> None:
    endpoint = Endpoint("/chat/{room}")
    assert (repr(endpoint), endpoint.path) == ("<Endpoint '/chat/{room}'>", "/chat/{room}")


def test_options_that_contradict_an_endpoint_are_refused_before_the_start() -> None:
    server = Server(max_memory=2**30)
    server.include(Endpoint("/chat", max_message_size=2**22))
    with pytest.raises(SettingsError, match="max_message_size"):
        server._lay_over({"max_memory": str(2**21)})
