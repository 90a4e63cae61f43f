"""What counts as an ASGI application, and what users are told about everything else."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.endpoints import HTTPEndpoint

from hubbub import Server
from hubbub.asgi.application import check_application, check_factory


async def function(scope: Any, receive: Any, send: Any) -> None:
    """An application."""


async def with_options(scope: Any, receive: Any, send: Any, option: int = 1) -> None:
    """An application with an argument that servers do not give."""


async def with_an_option_first(option: int, scope: Any, receive: Any, send: Any) -> None:
    """An application only for `partial`."""


def returning(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    """An application that is not itself async."""
    return function(scope, receive, send)


class Called:
    """Its instances are applications, and so are their methods."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An application."""

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        """An application."""

    @classmethod
    async def of_the_class(cls, scope: Any, receive: Any, send: Any) -> None:
        """An application."""

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None:
        """An application."""

    def __bool__(self) -> bool:
        """An application may be anything, so whether it is true says nothing."""
        return False


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    return wrapper


def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an ASGI 3 application of an ASGI 2 application."""

    @functools.wraps(function)
    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        await function(scope)(receive, send)

    return wrapper


def two_stages(scope: Any) -> Callable[..., Awaitable[None]]:
    """An ASGI 2 application."""

    async def instance(receive: Any, send: Any) -> None: ...

    return instance


class TwoStages:
    """An ASGI 2 application."""

    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class TwoStagesInstance:
    """Its instances are ASGI 2 applications, as old routers are."""

    def __call__(self, scope: Any) -> Callable[..., Awaitable[None]]:
        return two_stages(scope)


class Middleware:
    """Its instances are applications."""

    def __init__(self, app: Any) -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Empty:
    """A class that has nothing to do with ASGI."""


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """A WSGI application."""
    return []


def factory() -> FastAPI:
    """It makes an application."""
    return FastAPI()


def yielding(scope: Any, receive: Any, send: Any) -> Iterator[None]:
    yield


async def with_a_keyword(scope: Any, receive: Any, send: Any, *, needed: int) -> None: ...


@pytest.mark.parametrize(
    "app",
    [
        function,
        with_options,
        returning,
        lambda scope, receive, send: function(scope, receive, send),
        lambda *arguments: function(*arguments),
        functools.partial(with_options, option=2),
        functools.partial(with_an_option_first, 2),
        decorated(function),
        adapted(two_stages),
        Called(),
        Called().method,
        Called.of_the_class,
        Called.static,
        Middleware(function),
        functools.partial(Called()),
        FastAPI(),
        HTTPEndpoint,
    ],
)
def test_an_asgi_3_application_is_taken_as_it_is(app: Any) -> None:
    assert check_application(app) is app
    Server(app=app)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (1, "an object of type int is not callable"),
        ("app:app", "an object of type str is not callable"),
        (two_stages, "function two_stages takes one argument, as an ASGI 2 application does"),
        (decorated(two_stages), "function two_stages takes one argument, as an ASGI 2"),
        (functools.partial(two_stages), "an object of type partial takes one argument, as an ASGI 2"),
        (TwoStages, "class TwoStages takes one argument, as an ASGI 2"),
        (TwoStagesInstance(), "an object of type TwoStagesInstance takes one argument, as an ASGI 2"),
        (wsgi, "function wsgi takes two arguments, as a WSGI application does"),
        (factory, "function factory takes no arguments"),
        (Called, "class Called is a class, not an application; pass an instance of it"),
        (Middleware, "class Middleware is a class, not an application; pass an instance of it"),
        (Empty, "class Empty is a class, but an ASGI application is called with"),
        (yielding, "function yielding contains yield"),
        (with_a_keyword, "function with_a_keyword cannot be called with (scope, receive, send)"),
        (functools.partial(function, None), "takes two arguments"),
        (with_an_option_first, "cannot be called with"),
    ],
)
def test_everything_else_is_refused_with_one_line_that_says_what_it_is(given: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_application(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match=r"^app must be an ASGI application: "):
        Server(app=given)


@pytest.mark.parametrize("given", [factory, lambda: None, functools.partial(adapted, two_stages), FastAPI])
def test_a_factory_is_called_without_arguments(given: Any) -> None:
    assert check_factory(given) is given


async def coroutine_factory() -> FastAPI:
    return FastAPI()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (FastAPI(), "an object of type FastAPI needs arguments"),
        (Server(), "an object of type Server is not callable"),
        (adapted, "function adapted needs arguments"),
        (coroutine_factory, "function coroutine_factory is async"),
    ],
)
def test_what_is_no_factory_is_refused_with_one_line(given: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_factory(given)
    assert says in str(caught.value)
