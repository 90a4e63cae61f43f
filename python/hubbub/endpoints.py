"""Endpoints: paths with handlers and settings of their own."""

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from ._core import PathPattern
from .errors import wrong_type
from .handlers import Handler, arguments_of, register
from .settings import Settings
from .static import CLIENT_NAME, Page

__all__ = ["Endpoint", "Included", "Route", "handle_websockets"]

WEBSOCKET_EVENTS = ("handshake", "open", "message", "close", "drain")
EVENTS = (*WEBSOCKET_EVENTS, "request")

if TYPE_CHECKING:
    from ._core import Frame
    from .handler_types import Four, Two
    from .requests import Request

# The handlers of an event, or of several with the same arguments. The first argument is the server, whose type is not
# known here.
RequestF = TypeVar("RequestF", bound="Two[Any, Request]")
MessageF = TypeVar("MessageF", bound="Two[Any, Frame]")
CloseF = TypeVar("CloseF", bound="Four[Any, int, int, str]")
NumberF = TypeVar("NumberF", bound="Two[Any, int]")


class Includes(Protocol):
    """The part of a server that its endpoints use."""

    @property
    def _role(self) -> object:
        """The role of this process in the server; `None` if the server is not running."""


class Endpoint:
    """Handlers for one path, or for all paths that match a pattern; `Server.include` adds it to a server.

    ```python
    chat = Endpoint("/chat/{room}", max_message_size=4096)

    @chat.on("open")
    def on_open(server, request):
        server.subscribe(request.fd, f"room {request.path_params['room']}")

    server.include(chat)
    ```

    Of the endpoints that a server includes, the first one that matches the path of a handshake or request serves it.
    The endpoint of a WebSocket stays the same until it closes.
    """

    def __init__(
        self,
        path: str,
        *,
        origins: str | Sequence[str] | None = None,
        subprotocols: Sequence[str] | None = None,
        max_message_size: int | None = None,
    ) -> None:
        """Create an endpoint without handlers.

        Args:
            path: The path to match with `Request.path`. It may contain parameters in braces, each a whole segment:
                `{name}` matches any segment that is not empty, `{name:int}` 1 to 20 ASCII digits (a number below 2^64),
                and `{name:path}`, at the end, the rest of the path, which may contain slashes or be empty. Their values
                are in `Request.path_params`. Upper and lower case differ, and so do `/chat` and `/chat/`. A path with
                a segment `.` or `..`, or one that is not UTF-8, matches no endpoint.
            origins: Overrides this setting of the server; `None` keeps the server's value.
            subprotocols: Likewise.
            max_message_size: Likewise, in bytes.

        Raises:
            TypeError: `path` is not a `str`.
            SettingsError: A setting is of the wrong type or out of range.
        """
        if not isinstance(path, str):
            raise wrong_type("path", 'a str, as in "/chat/{room}"', path)
        given = {"origins": origins, "subprotocols": subprotocols, "max_message_size": max_message_size}
        kinds = {setting.name: setting for setting in Settings.describe()}
        source = f"keyword of Endpoint({path!r})"
        self._path = path
        self._settings: dict[str, Any] = {
            name: kinds[name].read(value, source) for name, value in given.items() if value is not None
        }
        self._handlers: dict[str, Handler] = {}
        self._servers: weakref.WeakSet[Includes] = weakref.WeakSet()

    @property
    def path(self) -> str:
        """The path, with its parameters in braces."""
        return self._path

    def __repr__(self) -> str:
        return f"<Endpoint {self._path!r}>"

    @overload
    def on(
        self, event: Literal["handshake", "open", "request"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[RequestF], RequestF]: ...

    @overload
    def on(
        self, event: Literal["handshake", "open", "request"], handler: RequestF, *, threaded: bool = False
    ) -> RequestF: ...

    @overload
    def on(
        self, event: Literal["message"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[MessageF], MessageF]: ...

    @overload
    def on(self, event: Literal["message"], handler: MessageF, *, threaded: bool = False) -> MessageF: ...

    @overload
    def on(
        self, event: Literal["close"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[CloseF], CloseF]: ...

    @overload
    def on(self, event: Literal["close"], handler: CloseF, *, threaded: bool = False) -> CloseF: ...

    @overload
    def on(
        self, event: Literal["drain"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[NumberF], NumberF]: ...

    @overload
    def on(self, event: Literal["drain"], handler: NumberF, *, threaded: bool = False) -> NumberF: ...

    def on(self, event: Any, handler: Any = None, *, threaded: bool = False) -> Any:
        """Register the handler of an event at this path; without `handler`, return a decorator that registers one.

        The events are `handshake`, `open`, `message`, `close`, `drain` and `request`, with the arguments, results and
        rules of `Server.on`. At this path the server's own handlers of these events are not called, even if the
        endpoint has no handler for the event. Without `request`, plain requests get 426. An endpoint whose only handler
        is `request` serves no WebSockets: handshakes get 404.

        Args:
            event: The event's name.
            handler: The callable.
            threaded: Run a `def` handler in the worker's pool of `threads`.

        Returns:
            `handler` itself, or the decorator.

        Raises:
            ValueError: The event is unknown, is not one of an endpoint, or already has a handler.
            TypeError: The callable cannot be called with these arguments, or is both `async def` and `threaded`.
            RuntimeError: A server that includes this endpoint is running.
        """
        arguments_of(event)
        if event not in EVENTS:
            raise ValueError(
                f"an endpoint has no {event!r} event, only {', '.join(EVENTS)}; the others belong to Server.on"
            )
        if any(server._role for server in self._servers):
            raise RuntimeError(f"the {event!r} handler must be registered before the server starts")
        if handler is None:
            return lambda handler: self.on(event, handler, threaded=threaded)
        register(self._handlers, event, handler, threaded=threaded, place=f" at {self._path!r}")
        return handler


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """An endpoint in the form that a worker uses."""

    pattern: PathPattern
    settings: Settings
    """The server's settings, overridden by those of the endpoint."""
    handlers: Mapping[str, Handler]

    @property
    def serves_websockets(self) -> bool:
        """Whether it accepts handshakes: not if its only handler is `request`."""
        return handle_websockets(self.handlers) or "request" not in self.handlers


class Included:
    """The endpoints that a server includes, in their order."""

    def __init__(self) -> None:
        """Start without endpoints."""
        self._endpoints: list[tuple[Endpoint, PathPattern]] = []

    def add(self, endpoint: Endpoint, server: Includes, settings: Settings) -> None:
        """Add an endpoint; see `Server.include`."""
        if not isinstance(endpoint, Endpoint):
            raise wrong_type("endpoint", "an Endpoint", endpoint)
        pattern = PathPattern(endpoint.path)
        for other, earlier in self._endpoints:
            if earlier.covers(pattern):
                if pattern.covers(earlier):
                    raise ValueError(f"the path {endpoint.path!r} is served already, by {other!r}")
                raise ValueError(
                    f"the path {endpoint.path!r} would never be served: {other!r}, which is included before it, "
                    "matches everything that it matches"
                )
        dataclasses.replace(settings, **endpoint._settings)
        self._endpoints.append((endpoint, pattern))
        endpoint._servers.add(server)

    def routes(self, settings: Settings) -> list[Route]:
        """Return the endpoints in the form that a worker uses; `settings` are the server's."""
        return list(self._routes(settings))

    def _routes(self, settings: Settings) -> Iterator[Route]:
        # The route of a page's `hubbub.js` comes after the program's own endpoints for that path.
        tried: list[PathPattern] = []
        beside: list[Route] = []
        for endpoint, pattern in self._endpoints:
            due = [route for route in beside if pattern.covers(route.pattern)]
            beside = [route for route in beside if not pattern.covers(route.pattern)]
            yield from (route for route in due if not route.pattern.covers(pattern))
            yield Route(pattern, dataclasses.replace(settings, **endpoint._settings), dict(endpoint._handlers))
            tried.append(pattern)
            client = _client_route(endpoint, settings)
            others = (*tried, *(route.pattern for route in beside))
            if client and not any(other.covers(client.pattern) for other in others):
                beside.append(client)
        yield from beside


def _client_route(endpoint: Endpoint, settings: Settings) -> Route | None:
    """Return what serves the browser client beside the page of an endpoint, if its page is one with the client."""
    handler = endpoint._handlers.get("request")
    if not handler or not isinstance(handler.callable, Page) or not handler.callable.client:
        return None
    directory = endpoint.path.rpartition("/")[0]
    return Route(PathPattern(f"{directory}/{CLIENT_NAME}"), settings, {"request": handler})


def handle_websockets(handlers: Mapping[str, Handler]) -> bool:
    """Return whether any of these handlers is for WebSockets."""
    return any(event in handlers for event in WEBSOCKET_EVENTS)
