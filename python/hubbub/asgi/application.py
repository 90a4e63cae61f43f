"""ASGI applications: the type, and the checks that a server can call what it was given.

An ASGI 3 application is anything that can be called with `(scope, receive, send)` and whose result can be awaited. Only
a call shows whether the result can be, so the checks look at the arguments: they tell apart what users confuse with an
application, and say what to do instead.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Application", "Factory", "check_application", "check_factory"]

Application = Callable[[Any, Any, Any], Awaitable[Any]]
"""An ASGI 3 application. The arguments are not typed further, because frameworks type them differently."""

Factory = Callable[[], object]
"""Makes an application or a server, which is not checked yet."""

ARGUMENTS = "(scope, receive, send)"


def check_application(given: object) -> Application:
    """Return `given` if it is an ASGI 3 application.

    Raises:
        TypeError: It is not. The message is one line that says what it is instead, and begins with its type.
    """
    if not callable(given):
        raise TypeError(f"{_name(given)} is not callable; an ASGI application is called with {ARGUMENTS}")
    if _contains_yield(given):
        raise TypeError(f"{_name(given)} contains yield, so calling it would do nothing; an ASGI application is async")
    if inspect.isclass(given):
        _check_class(given)
    elif not _takes(given, 3):
        raise TypeError(f"{_name(given)} {_why_not(given)}")
    return given


def check_factory(given: object) -> Factory:
    """Return `given` if it can make an application: a plain function without arguments.

    Raises:
        TypeError: It cannot. The message is one line that says what it is instead.
    """
    if not callable(given):
        raise TypeError(f"{_name(given)} is not callable; a factory is a function without arguments")
    if not _takes(given, 0):
        raise TypeError(f"{_name(given)} needs arguments; a factory is a function without any")
    if _is(inspect.iscoroutinefunction, given):
        raise TypeError(f"{_name(given)} is async; a factory is a plain function, which runs before the event loop")
    return given


def _check_class(given: type) -> None:
    """Check a class that is called itself; its instances must be awaitable, as Starlette's endpoints are."""
    is_called_itself = hasattr(given, "__await__")
    if is_called_itself and _takes(given, 3):
        return
    if not is_called_itself and _instance_takes_three(given):
        raise TypeError(f"{_name(given)} is a class, not an application; pass an instance of it")
    if _takes(given, 1):
        raise TypeError(f"{_name(given)} {_ASGI_2}")
    raise TypeError(f"{_name(given)} is a class, but an ASGI application is called with {ARGUMENTS}")


def _instance_takes_three(given: type) -> bool:
    call = getattr(given, "__call__", None)  # noqa: B004 - not whether it is callable, but its signature
    return inspect.isfunction(call) and _takes(call, 4)


_ASGI_2 = (
    f"takes one argument, as an ASGI 2 application does; Hubbub serves ASGI 3, which is called with {ARGUMENTS} "
    "(asgiref.compatibility.guarantee_single_callable converts it)"
)


def _why_not(given: Callable[..., Any]) -> str:
    """Return what a callable is that does not take three arguments, as the end of a sentence."""
    if _takes(given, 1):
        return _ASGI_2
    if _takes(given, 2):
        return f"takes two arguments, as a WSGI application does; an ASGI application is called with {ARGUMENTS}"
    if _takes(given, 0):
        return f"takes no arguments; an ASGI application is called with {ARGUMENTS}, a factory needs --factory"
    return f"cannot be called with {ARGUMENTS}, as an ASGI application is"


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Return whether a callable can be called with so many positional arguments, as far as can be known."""
    try:
        # Look at the function that a decorator wrapped only if the wrapper accepts any arguments.
        signature = inspect.signature(function, follow_wrapped=False)
        if any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values()):
            signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Some built-in callables have no signature.
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _contains_yield(given: Callable[..., Any]) -> bool:
    return _is(inspect.isgeneratorfunction, given) or _is(inspect.isasyncgenfunction, given)


def _is(test: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Return whether `test` holds for a function, or for the `__call__` of an object."""
    return test(function) or (not inspect.isclass(function) and test(type(function).__call__))


def _name(given: object) -> str:
    """Return how an error message calls it: `def app`, `class App`, or by the class of an object."""
    if inspect.isclass(given):
        return f"class {given.__name__}"
    if inspect.isfunction(given) or inspect.ismethod(given):
        return f"function {given.__name__}"
    return f"an object of type {type(given).__name__}"
