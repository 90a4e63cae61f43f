"""Handlers: which callables may be registered, and how they are called."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hubbub import Server
from hubbub.handlers import EVENTS, Handler


def two(server: Any, request: Any) -> None: ...


async def two_async(server: Any, request: Any) -> None: ...


class Callables:
    """Handlers that are not plain functions."""

    def method(self, server: Any, request: Any) -> None: ...

    async def async_method(self, server: Any, request: Any) -> None: ...

    @classmethod
    def class_method(cls, server: Any, request: Any) -> None: ...

    @staticmethod
    def static_method(server: Any, request: Any) -> None: ...

    def __call__(self, server: Any, request: Any) -> None: ...


class AsyncCallable:
    """An object that is called with `await`."""

    async def __call__(self, server: Any, request: Any) -> None: ...


# How many arguments.


@pytest.mark.parametrize(
    ("handler", "count"),
    [
        (lambda: None, 0),
        (lambda server: None, 1),
        (lambda server, fd: None, 2),
        (lambda server, fd, code: None, 3),
        (lambda server, fd, code, reason: None, 4),
        (lambda server, fd, code, reason, more=1: None, 4),
        (lambda server, fd=1: None, 2),
        (lambda *arguments: None, 4),
        (lambda server, *arguments: None, 4),
        (lambda server, **options: None, 1),
        (lambda server, *, option=1: None, 1),
        (lambda server, fd, /, code: None, 3),
    ],
)
def test_a_handler_takes_the_first_arguments_that_it_declares(handler: Callable[..., Any], count: int) -> None:
    assert Handler.of("close", handler).count == count


def test_self_and_what_is_bound_already_do_not_count() -> None:
    callables = Callables()
    for handler in (callables.method, callables.class_method, callables.static_method, callables):
        assert Handler.of("open", handler).count == 2
    assert Handler.of("open", functools.partial(two, "bound")).count == 1


def test_a_wrapper_that_adds_an_argument_is_called_by_its_own_signature() -> None:
    def with_session(handler: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(handler)
        def wrapper(server: Any, frame: Any) -> None:
            handler(server, frame, "session")

        return wrapper

    @with_session
    def on_message(server: Any, frame: Any, session: str) -> None: ...

    assert Handler.of("message", on_message).count == 2


def test_a_wrapper_that_adapts_the_arguments_is_called_by_its_own_signature() -> None:
    def data_only(handler: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(handler)
        def wrapper(server: Any, frame: Any) -> None:
            handler(frame.data)

        return wrapper

    @data_only
    def on_message(data: str) -> None: ...

    assert Handler.of("message", on_message).count == 2


def test_a_wrapper_that_passes_everything_on_is_called_as_what_it_wraps() -> None:
    def logged(handler: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(handler)
        def wrapper(*arguments: Any, **options: Any) -> None:
            handler(*arguments, **options)

        return wrapper

    @logged
    def on_close(server: Any, fd: int, code: int) -> None: ...

    @logged
    def needs_more(server: Any, fd: int, code: int, reason: str, fifth: str) -> None: ...

    assert Handler.of("close", on_close).count == 3
    with pytest.raises(TypeError, match="fifth"):
        Handler.of("close", needs_more)


def test_a_builtin_that_does_not_tell_is_given_all() -> None:
    assert Handler.of("open", max).count == 2


@pytest.mark.parametrize(
    ("event", "handler", "parameter"),
    [
        ("open", lambda server, request, third: None, "third"),
        ("close", lambda server, fd, code, reason, fifth: None, "fifth"),
        ("start", lambda server, worker_id: None, "worker_id"),
        ("message", lambda server, frame, *, option: None, "option"),
    ],
)
def test_a_parameter_that_nothing_is_there_for_is_a_type_error(
    event: str, handler: Callable[..., Any], parameter: str
) -> None:
    with pytest.raises(TypeError, match=parameter) as refused:
        Handler.of(event, handler)
    assert event in str(refused.value)


# The kind of a handler.


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (two, "sync"),
        (two_async, "async"),
        (Callables().method, "sync"),
        (Callables().async_method, "async"),
        (Callables(), "sync"),
        (AsyncCallable(), "async"),
        (functools.partial(two_async), "async"),
        (functools.partial(two), "sync"),
    ],
)
def test_the_kind_is_seen_from_the_callable(handler: Callable[..., Any], kind: str) -> None:
    assert Handler.of("open", handler).kind == kind


def test_a_def_may_be_threaded_and_an_async_def_may_not() -> None:
    assert Handler.of("open", two, threaded=True).kind == "threaded"
    for handler in (two_async, Callables().async_method, AsyncCallable()):
        with pytest.raises(TypeError, match="async def"):
            Handler.of("open", handler, threaded=True)


def test_a_generator_is_a_type_error() -> None:
    def generator(server: Any) -> Iterator[None]:
        yield

    async def async_generator(server: Any) -> AsyncIterator[None]:
        yield

    for handler in (generator, async_generator):
        with pytest.raises(TypeError, match="yield"):
            Handler.of("open", handler)


@pytest.mark.parametrize("handler", [1, "name", object(), []])
def test_what_cannot_be_called_is_a_type_error(handler: Any) -> None:
    with pytest.raises(TypeError, match="handler must be callable"):
        Handler.of("open", handler)


# Registration.


def test_an_unknown_event_is_a_value_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'opened'") as refused:
        Server().on("opened", two)  # type: ignore[call-overload]
    for event in EVENTS:
        assert event in str(refused.value)


def test_an_unknown_event_is_refused_before_there_is_a_handler() -> None:
    with pytest.raises(ValueError, match="'mesage'"):
        Server().on("mesage")  # type: ignore[call-overload]


def test_on_without_the_name_of_an_event_is_a_type_error() -> None:
    on: Any = Server().on
    with pytest.raises(TypeError, match=r'on\("message"\)'):
        on(two)


def test_on_is_a_decorator_that_leaves_the_function_as_it_is() -> None:
    server = Server()
    assert server.on("open")(two) is two
    assert server.on("close", two) is two
    assert server.on("message", threaded=True)(two) is two


def test_a_second_handler_for_an_event_is_a_value_error() -> None:
    server = Server()
    server.on("open", two)
    with pytest.raises(ValueError, match="already has a handler"):
        server.on("open", two_async)


def test_a_handler_that_was_refused_leaves_its_place_free() -> None:
    server = Server()
    with pytest.raises(TypeError):
        server.on("open", two_async, threaded=True)
    server.on("open", two_async)


def test_the_arguments_of_each_event() -> None:
    assert EVENTS == {
        "open": ("server", "request"),
        "message": ("server", "frame"),
        "close": ("server", "fd", "code", "reason"),
        "handshake": ("server", "request"),
        "request": ("server", "request"),
        "worker_start": ("server", "worker_id"),
        "worker_stop": ("server", "worker_id"),
        "start": ("server",),
        "shutdown": ("server",),
        "pipe_message": ("server", "worker_id", "data"),
        "drain": ("server", "fd"),
        "join": ("server", "topic", "fd", "info"),
        "leave": ("server", "topic", "fd", "info"),
    }
