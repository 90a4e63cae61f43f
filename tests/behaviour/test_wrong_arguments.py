"""Arguments of a wrong type, each of every public method: the error names the argument and what it must be."""

import asyncio
import inspect
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hubbub
from hubbub import (
    Accept,
    AsyncPublisher,
    Cluster,
    Endpoint,
    Frame,
    Page,
    Publisher,
    Refuse,
    Response,
    Server,
    StaticFiles,
)

AN_INT = "an int"
A_STR = "a str"
DATA = "str or bytes-like"
SENDABLE = "str, bytes-like, a dict or a list"
IDS = "an iterable of ids (int)"
SECONDS = "a number of seconds"
ANYTHING = "anything"
HEADERS = "a mapping of str to str, or pairs of str"

# By argument: a good value, and how the error says what it must be.
Arguments = dict[str, tuple[object, str]]

PUSH: Arguments = {"fd": (1, AN_INT), "data": ("x", SENDABLE), "opcode": (1, AN_INT)}
DISCONNECT: Arguments = {"fd": (1, AN_INT), "code": (1000, AN_INT), "reason": ("", A_STR)}
PUBLISH: Arguments = {
    "topic": ("t", A_STR),
    "data": ("x", SENDABLE),
    "exclude": ((), IDS),
    "key": ("k", A_STR),
}
BROADCAST: Arguments = {"data": ("x", SENDABLE), "exclude": ((), IDS)}
ON: Arguments = {"event": ("message", A_STR), "handler": (print, "callable"), "threaded": (False, "a bool")}
TOPICS: Arguments = {"prefix": ("", A_STR), "limit": (1, AN_INT)}
MEMBERS: Arguments = {"topic": ("t", A_STR), "limit": (1, AN_INT)}
# What is no position is not an error.
HISTORY: Arguments = {**MEMBERS, "since": (None, ANYTHING), "newest_first": (True, "a bool")}
INFO: Arguments = {"info": ({"name": "Ada"}, "encodable as JSON")}
SEND_MESSAGE: Arguments = {"data": ("x", DATA), "worker_id": (0, AN_INT)}
# A day: the servers of these tests stop earlier.
DRAIN: Arguments = {"seconds": (86_400, SECONDS)}
TIMEOUT: Arguments = {"timeout": (5, SECONDS)}
PUBLISHER: Arguments = {"path": ("there.sock", "a str or os.PathLike"), "port": (9501, AN_INT), "timeout": (5, SECONDS)}

# By class and method.
TABLE: dict[type, dict[str, Arguments]] = {
    Server: {
        "on": ON,
        "include": {"endpoint": (Endpoint("/chat"), "an Endpoint")},
        "topic_options": {
            "pattern": ("room:*", A_STR),
            "history": (1, AN_INT),
            "seconds": (1, SECONDS),
            "presence": (True, "a bool"),
            "envelope": (True, "a bool"),
            "slow_consumer": ("latest", "a str or None"),
            "ttl": (1, "a number of seconds or None"),
        },
        "push": {**PUSH, "finish": (True, "a bool")},
        "ping": {"fd": (1, AN_INT), "data": (b"", DATA)},
        "disconnect": DISCONNECT,
        "send": PUSH,
        "broadcast": BROADCAST,
        "wait_closed": {"fd": (1, AN_INT)},
        "subscribe": {"fd": (1, AN_INT), "topic": ("t", A_STR), **INFO},
        "unsubscribe": {"fd": (1, AN_INT), "topic": ("t", A_STR)},
        "publish": PUBLISH,
        "join": {
            "fd": (1, AN_INT),
            "topic": ("t", A_STR),
            "last": (1, AN_INT),
            "since": (None, ANYTHING),
            **INFO,
        },
        "history": HISTORY,
        "forget": {"topic": ("t", A_STR)},
        "presence": MEMBERS,
        "exists": {"fd": (1, AN_INT)},
        "info": {"fd": (1, AN_INT)},
        "subscribers": {"topic": ("t", A_STR)},
        "topics": TOPICS,
        "members": MEMBERS,
        "tick": {"seconds": (1, SECONDS), "fn": (print, "callable")},
        "after": {"seconds": (1, SECONDS), "fn": (print, "callable")},
        "send_message": SEND_MESSAGE,
    },
    Publisher: {
        "__init__": PUBLISHER,
        "push": PUSH | TIMEOUT,
        "disconnect": DISCONNECT | TIMEOUT,
        "publish": PUBLISH | TIMEOUT,
        "broadcast": BROADCAST | TIMEOUT,
        "subscribers": {"topic": ("t", A_STR)} | TIMEOUT,
        "topics": TOPICS | TIMEOUT,
        "members": MEMBERS | TIMEOUT,
        "history": HISTORY | TIMEOUT,
        "presence": MEMBERS | TIMEOUT,
        "send_message": SEND_MESSAGE | TIMEOUT,
        "connections": TIMEOUT,
        "info": {"fd": (1, AN_INT)} | TIMEOUT,
        "stats": TIMEOUT,
        "hosts": TIMEOUT,
        "drain": DRAIN | TIMEOUT,
    },
    AsyncPublisher: {
        "__init__": PUBLISHER,
        "push": PUSH,
        "disconnect": DISCONNECT,
        "publish": PUBLISH,
        "broadcast": BROADCAST,
        "subscribers": {"topic": ("t", A_STR)},
        "topics": TOPICS,
        "members": MEMBERS,
        "history": HISTORY,
        "presence": MEMBERS,
        "send_message": SEND_MESSAGE,
        "info": {"fd": (1, AN_INT)},
        "drain": DRAIN,
    },
    Cluster: {
        "exists": {"fd": (1, AN_INT)},
        "info": {"fd": (1, AN_INT)},
        "subscribers": {"topic": ("t", A_STR)},
        "members": MEMBERS,
        "topics": TOPICS,
    },
    Endpoint: {"__init__": {"path": ("/chat", A_STR)}, "on": ON},
    Response: {
        "__init__": {
            "body": ("x", DATA),
            "status": (200, AN_INT),
            "headers": ({}, HEADERS),
            "content_type": ("text/plain", "a str or None"),
        },
        "json": {"value": (1, "encodable as JSON"), "status": (200, AN_INT), "headers": ({}, HEADERS)},
        "redirect": {"url": ("/", A_STR), "status": (302, AN_INT), "headers": ({}, HEADERS)},
        "set_cookie": {
            "name": ("id", A_STR),
            "value": ("x", A_STR),
            "max_age": (60, "an int or None"),
            "path": ("/", A_STR),
            "domain": ("example.com", "a str or None"),
            "secure": (True, "a bool"),
            "httponly": (True, "a bool"),
            "samesite": ("lax", "a str or None"),
        },
        "delete_cookie": {"name": ("id", A_STR), "path": ("/", A_STR), "domain": ("example.com", "a str or None")},
    },
    Accept: {"__init__": {"subprotocol": ("chat", "a str or None"), "headers": ({}, HEADERS)}},
    Refuse: {"__init__": {"code": (4000, AN_INT), "reason": ("", A_STR)}},
    StaticFiles: {
        "__init__": {
            "directory": (".", "a str or os.PathLike"),
            "index": ("index.html", A_STR),
            "headers": ({}, HEADERS),
        },
    },
    Page: {"__init__": {"path": (__file__, "a str or os.PathLike"), "client": (True, "a bool")}},
    Frame: {
        "__new__": {
            "fd": (1, AN_INT),
            "data": ("x", "str or bytes"),
            "opcode": (1, AN_INT),
            "finish": (True, "a bool"),
        },
    },
}
# Methods whose arguments are not checked, or that raise SettingsError for wrong ones.
# `state` has no answer for these good values; see test_state.py.
NOT_HERE = {
    (Server, "__init__"),
    (Server, "state"),
    (Cluster, "__init__"),
    (Endpoint, "__init__"),
    (StaticFiles, "__call__"),
    (Page, "__call__"),
}


class Strange:
    """A type that no argument accepts."""


def cases() -> Iterator[Any]:
    for kind, methods in TABLE.items():
        for method, arguments in methods.items():
            for argument, (_, wanted) in arguments.items():
                if wanted is not ANYTHING:
                    yield pytest.param(kind, method, argument, wanted, id=f"{kind.__name__}.{method}-{argument}")


@pytest.fixture
async def called(tmp_path: Path) -> AsyncIterator[Callable[[type, str, dict[str, object]], Any]]:
    """Return a function that calls a method of a class, on an object that belongs to a running server."""
    # Not pytest's directory, which may be too long for the address of a socket.
    with tempfile.TemporaryDirectory() as directory:
        control = os.path.join(directory, "here.sock")
        async with Server(port=0, control=control) as server, AsyncPublisher(control) as asynchronous:
            publisher = Publisher(control)
            objects: dict[type, object] = {
                Server: server,
                Publisher: publisher,
                AsyncPublisher: asynchronous,
                Cluster: server.cluster,
                Response: Response(),
            }
            await asyncio.to_thread(publisher.__enter__)

            async def call(kind: type, method: str, arguments: dict[str, object]) -> None:
                if method in ("__init__", "__new__"):
                    kind(**arguments)
                    return
                if method == "on":
                    maker = Server() if kind is Server else Endpoint("/chat")
                    maker.on(**arguments)  # type: ignore[call-overload]
                    return
                if method in ("include", "topic_options"):
                    getattr(Server(), method)(**arguments)
                    return
                function = getattr(objects.get(kind, kind), method)
                if kind is Publisher:
                    await asyncio.to_thread(function, **arguments)
                elif inspect.isawaitable(result := function(**arguments)):
                    await result

            yield call
            await asyncio.to_thread(publisher.close)


@pytest.mark.parametrize(("kind", "method", "argument", "wanted"), list(cases()))
async def test_the_error_names_it_and_what_it_must_be(
    called: Callable[..., Any], kind: type, method: str, argument: str, wanted: str
) -> None:
    good = {name: value for name, (value, _) in TABLE[kind][method].items()}
    await called(kind, method, good)
    for wrong in (Strange(), [Strange()]):
        with pytest.raises(TypeError) as caught:
            await called(kind, method, good | {argument: wrong})
        message = str(caught.value)
        assert message.startswith(f"{argument} must be "), message
        # A list may be right as such, but not what is in it.
        if argument not in ("exclude", "data") or isinstance(wrong, Strange):
            assert message.startswith(f"{argument} must be {wanted}"), message
        assert "Strange" in message or "list" in message


@pytest.mark.parametrize("kind", TABLE)
def test_no_public_method_is_forgotten(kind: type) -> None:
    for name, function in inspect.getmembers(kind, callable):
        if (name.startswith("_") and name not in ("__init__", "__new__", "__call__")) or (kind, name) in NOT_HERE:
            continue
        if name not in ("__init__", "__new__") or name in vars(kind) or kind in (Publisher, AsyncPublisher):
            check_all_arguments_are_there(kind, name, function)


def check_all_arguments_are_there(kind: type, name: str, function: Callable[..., Any]) -> None:
    if name in ("__init__", "__new__") and name not in TABLE[kind]:
        # A dataclass has only `__init__`, and a class of the core only `__new__`.
        return
    parameters = list(inspect.signature(kind if name in ("__init__", "__new__") else function).parameters.values())
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "self"}
    assert named == set(TABLE[kind].get(name, {})), (kind.__name__, name)


def test_no_public_class_is_forgotten() -> None:
    classes = {value for value in vars(hubbub).values() if inspect.isclass(value)}
    makers = {kind for kind in classes if not issubclass(kind, Exception | int | tuple | dict)}
    # Users do not create these, except for the settings, which have their own checks.
    received = {hubbub.Request, hubbub.Timer, hubbub.History, hubbub.Message, hubbub.Joined, hubbub.Host, hubbub.Ids}
    assert makers - set(TABLE) == {*received, hubbub.Settings}


# The part of 10**400 that an error shows.
HUGE = f"1{'0' * 96}[.]{{3}}"


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("subscribe", (1, ""), "topic must have 1 to 255 bytes"),
        ("subscribe", (1, "x" * 256), "topic must have 1 to 255 bytes"),
        ("publish", ("\ud800", "x"), "topic must be text that UTF-8 can express"),
        ("disconnect", (1, 1000, "\ud800"), "reason must be text that UTF-8 can express"),
        ("disconnect", (1, 1000, "x" * 124), "reason must have at most 123 bytes"),
        ("push", (1, "x", 9), "opcode must be 0"),
        ("tick", (0, print), "seconds must be above 0"),
        ("after", (-1, print), "seconds must be 0 or above"),
        ("tick", (10**400, print), f"seconds must be a number that fits into a float, not {HUGE}"),
        ("after", (10**400, print), f"seconds must be a number that fits into a float, not {HUGE}"),
        ("after", (-(10**5000), print), "seconds must be .*, not a number with thousands of digits"),
        ("push", (1, "x", 2**63 - 1), "opcode must be .*, not 9223372036854775807\\b"),
        ("push", (1, "x", 10**30), "opcode must be .*, not 1000000000000000000000000000000\\b"),
        ("push", (1, "x", -(10**30)), "opcode must be .*, not -1000000000000000000000000000000\\b"),
        ("push", (1, "x", 10**400), f"opcode must be .*, not {HUGE}"),
        ("push", (1, "x", 10**5000), "opcode must be .*, not a number with thousands of digits\\b"),
        ("disconnect", (1, 10**30), "close code 1000000000000000000000000000000 may not be sent"),
        ("disconnect", (1, 10**400), f"close code {HUGE} may not be sent"),
        ("send_message", ("x", 10**400), f"there is no worker {HUGE};"),
        ("send_message", ("x", 10**5000), "there is no worker a number with thousands of digits;"),
    ],
)
async def test_so_does_that_of_a_value_out_of_range(method: str, arguments: tuple[Any, ...], words: str) -> None:
    async with Server(port=0) as server:
        with pytest.raises(ValueError, match=words):
            getattr(server, method)(*arguments)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Frame(1, "x", 10**30), "opcode must be .*, not 1000000000000000000000000000000\\b"),
        (lambda: Refuse(10**400), f"close code {HUGE} may not be sent"),
        (lambda: Response(status=10**5000), "status a number with thousands of digits is out of range"),
        *(
            (lambda kind=kind, port=port: kind(port=port), f"port must be 1 to 65535, not {port}$")
            for kind in (Publisher, AsyncPublisher)
            for port in (-1, 0, 65536, 70000)
        ),
        (lambda: Publisher(port=10**400), f"port must be 1 to 65535, not {HUGE}"),
        (lambda: Publisher("there.sock", port=70000), "port must be 0 to 65535, not 70000$"),
        (lambda: Publisher(timeout=-(10**5000)), "timeout must be .*, not a number with thousands of digits\\b"),
    ],
)
def test_so_does_that_of_what_cannot_be_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_publisher_takes_every_port_that_a_server_may_have() -> None:
    for kind in (Publisher, AsyncPublisher):
        for port in (1, 65535):
            assert repr(kind(port=port)) == f"<{kind.__name__} to port {port}>"
        # With a path, the port does not matter, and may be 0, as in settings.
        kind("there.sock", port=0)
