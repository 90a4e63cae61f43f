"""The events, and the checks that a callable can handle one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

from .errors import wrong_type

__all__ = ["EVENTS", "Handler", "arguments_of", "register"]

EVENTS = {
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
"""The arguments of each event's handler."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A callable, and how it is called."""

    callable: Callable[..., Any]
    count: int
    """How many of the event's arguments it takes."""
    kind: Literal["sync", "async", "threaded"]

    @classmethod
    def of(cls, event: str, function: Callable[..., Any], *, threaded: bool = False) -> Self:
        """Check that `function` can handle `event`.

        Raises:
            ValueError: There is no such event.
            TypeError: `function` is not callable with the first of the event's arguments, is a generator, or is
                `async def` although `threaded` is set.
        """
        arguments = arguments_of(event)
        if not callable(function):
            raise wrong_type("handler", f"callable with the arguments of {event!r}", function)
        if not isinstance(threaded, bool):
            raise wrong_type("threaded", "a bool", threaded)
        if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
            raise TypeError(f"the {event!r} handler contains yield, so calling it would do nothing")
        is_async = _is(inspect.iscoroutinefunction, function)
        if threaded and is_async:
            raise TypeError(f"the {event!r} handler is async def: it cannot run in a thread")
        count = _count(event, function, arguments)
        return cls(function, count, "async" if is_async else "threaded" if threaded else "sync")


def register(
    handlers: dict[str, Handler], event: str, function: Callable[..., Any], *, threaded: bool, place: str = ""
) -> None:
    """Add a handler to those of a server or an endpoint; `place` is where an endpoint's handlers serve.

    Raises:
        ValueError: There is no such event, or it already has a handler.
        TypeError: See `Handler.of`.
    """
    checked = Handler.of(event, function, threaded=threaded)
    if event in handlers:
        raise ValueError(f"{event!r} already has a handler{place}: {handlers[event].callable!r}")
    handlers[event] = checked


def arguments_of(event: str) -> tuple[str, ...]:
    """Return the names of an event's arguments.

    Raises:
        TypeError: `event` is not a `str`: `on` was used without the event's name.
        ValueError: There is no such event.
    """
    if not isinstance(event, str):
        raise wrong_type("event", 'a str, as in on("message")', event)
    if event not in EVENTS:
        raise ValueError(f"unknown event {event!r}; known events: {', '.join(EVENTS)}")
    return EVENTS[event]


def _is(test: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Return whether `test` holds for a function, or for the `__call__` of an object."""
    return test(function) or test(type(function).__call__)


def _count(event: str, function: Callable[..., Any], arguments: tuple[str, ...]) -> int:
    try:
        # Look at the function that a decorator wrapped only if the wrapper accepts any arguments.
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            parameters = inspect.signature(function).parameters.values()
    except ValueError:
        # Some built-in functions have no signature; they get all arguments.
        return len(arguments)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    count = len(arguments) if takes_any else min(len(positional), len(arguments))
    missing = [p for p in positional[len(arguments) :] if p.default is p.empty]
    missing += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if missing:
        raise TypeError(
            f"the {event!r} handler receives ({', '.join(arguments)}) or the first of these; "
            f"there is no argument for its parameter {missing[0].name!r}"
        )
    return count
