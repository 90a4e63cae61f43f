"""The server: what an application sees."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from types import BuiltinMethodType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, Self, TypeVar, Unpack, overload

from . import environment, listing, logs, program
from ._core import Reactor, bind_push, unbind_push
from .asgi.application import Application, check_application
from .certificates import check_certificates
from .cluster import Answers, Cluster, Host
from .embedded import Embedded
from .endpoints import EVENTS as ENDPOINT_EVENTS
from .endpoints import Endpoint, Included, Route
from .errors import CannotServe, NotRunning, SettingsError, as_seconds, wrong_type
from .events import ConnectionInfo, Data, Sendable, Stats
from .handlers import Handler, arguments_of, register
from .history import History, Joined, Position, Reading, as_after, as_last
from .jsons import Json
from .master import PROGRAM_FAILED, Master
from .presence import as_info, decoded, present
from .program import Assignment
from .questions import PATIENCE
from .settings import WITH_APPLICATION, ServerSettings, Settings
from .terminal import Terminal, discard_lost_output
from .timers import Timer
from .topic_options import SlowConsumer, TopicOptions
from .worker import Worker
from .worker_process import WorkerProcess

__all__ = ["Connections", "Server", "current_server"]

log = logging.getLogger("hubbub")

# A question asked from another event loop times out this many seconds earlier in the worker's own event loop, so that
# the worker's error arrives before the other loop gives up.
LOOP_MARGIN = 0.25
LOG_LEVEL = next(setting.default for setting in Settings.describe() if setting.name == "log_level")

if TYPE_CHECKING:
    from ._core import Frame
    from .handler_types import Four, One, Three, Two
    from .requests import Request

# The handlers of an event, or of several with the same arguments.
RequestF = TypeVar("RequestF", bound="Two[Server, Request]")
MessageF = TypeVar("MessageF", bound="Two[Server, Frame]")
CloseF = TypeVar("CloseF", bound="Four[Server, int, int, str]")
NumberF = TypeVar("NumberF", bound="Two[Server, int]")
ServerF = TypeVar("ServerF", bound="One[Server]")
PipeMessageF = TypeVar("PipeMessageF", bound="Three[Server, int | None, Any]")
MemberF = TypeVar("MemberF", bound="Four[Server, str, int, Any]")
T = TypeVar("T")

# A forked child has the sockets but must not use them; its copy of a server is not running.
_running: "weakref.WeakSet[Server]" = weakref.WeakSet()


class Role(Protocol):
    """The role of this process in a running server: the whole server, its master, or one of its workers."""

    @property
    def port(self) -> int: ...
    @property
    def worker(self) -> Worker | None: ...
    def shutdown(self) -> None: ...
    def reload(self) -> None: ...


class Connections(Collection[int]):
    """The ids of all open WebSockets, in all workers: use `fd in …` or `len(…)`, or iterate over a snapshot."""

    def __init__(self, server: "Server") -> None:
        """Create the view; each use asks `server` for its current connections."""
        self._server = server

    def __contains__(self, fd: object) -> bool:
        return isinstance(fd, int) and self._server.exists(fd)

    def __iter__(self) -> Iterator[int]:
        return iter(self._server._worker_of("connections").reactor.open_ids())

    def __len__(self) -> int:
        return self._server._worker_of("connections").reactor.connections()

    def __repr__(self) -> str:
        return f"<Connections of {self._server!r}>"


class Server:
    """A WebSocket server: event handlers, and methods to send from any handler, task, timer or thread."""

    settings: Settings
    """The settings in effect. A command-line option beats an environment variable, which beats a keyword."""
    connections: Connections
    """The ids of all open WebSockets, in all workers. Raises `NotRunning` if used while the server is not running."""
    cluster: Cluster
    """The same questions to all hosts, if the server has a `broker`."""

    def __init__(
        self,
        host: str | Sequence[str] = "127.0.0.1",
        port: int = 9501,
        *,
        workers: int | None = None,
        json: Any = None,
        app: Application | None = None,
        **settings: Unpack[ServerSettings],
    ) -> None:
        """Create a server; it does nothing until `start`, `serve` or `async with`.

        Args:
            host: The name or address to listen on, or a list of them. `0.0.0.0` means all interfaces over IPv4, `::`
                all interfaces over IPv6 only.
            port: 0 picks any free port; the `port` property then returns it.
            workers: The number of worker processes; `None` starts one per core.
            json: A module or object with `dumps` (returning `str` or `bytes`) and `loads`, such as `orjson`: encodes
                each `dict` or `list` that is sent, and decodes for `Frame.json` and `Request.json`. `None` means the
                standard library's, with compact text that is not ASCII-escaped, and without NaN.
            app: An ASGI 3 application, such as that of FastAPI, Starlette, Litestar or Django: it gets the requests and
                WebSockets that no included `Endpoint` matches. Some defaults differ then, because the application
                decides these things: `origins="*"`, `health_path=None`, `max_body_size=None`, `max_header_size=65536`.
            **settings: See `Settings`. An environment variable `HUBBUB_…` beats a keyword.

        Raises:
            SettingsError: A setting is unknown, of the wrong type or out of range.
            TypeError: `json` lacks `dumps` or `loads`, or `app` is not an ASGI 3 application.
        """
        self._app = None if app is None else _checked(app)
        self._defaults = {} if app is None else WITH_APPLICATION
        self._keywords = {"host": host, "port": port, "workers": workers, **settings}
        self.settings = Settings.load(self._keywords, defaults=self._defaults)
        self._handlers: dict[str, Handler] = {}
        self._included = Included()
        self._topics: list[TopicOptions] = []
        self._json = Json(json)
        self._number = program.count_server()
        self._starts = 0
        self._role: Role | None = None
        self._embedded: Embedded | None = None
        self._closing: asyncio.Task[None] | None = None
        self.connections = Connections(self)
        self.cluster = Cluster(self._ask_hosts)

    def __repr__(self) -> str:
        state = "running" if self._role else "not running"
        settings = self.settings
        where = settings.uds or f"{','.join(settings.hosts)} port {self.port}"
        return f"<Server {where if settings.fd is None else f'fd {settings.fd}'}, {state}>"

    # ---- handlers ----------------------------------------------------------------------------------------

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
        self, event: Literal["drain", "worker_start", "worker_stop"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[NumberF], NumberF]: ...

    @overload
    def on(
        self, event: Literal["drain", "worker_start", "worker_stop"], handler: NumberF, *, threaded: bool = False
    ) -> NumberF: ...

    @overload
    def on(
        self, event: Literal["start", "shutdown"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[ServerF], ServerF]: ...

    @overload
    def on(self, event: Literal["start", "shutdown"], handler: ServerF, *, threaded: bool = False) -> ServerF: ...

    @overload
    def on(
        self, event: Literal["pipe_message"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[PipeMessageF], PipeMessageF]: ...

    @overload
    def on(self, event: Literal["pipe_message"], handler: PipeMessageF, *, threaded: bool = False) -> PipeMessageF: ...

    @overload
    def on(
        self, event: Literal["join", "leave"], handler: None = None, *, threaded: bool = False
    ) -> Callable[[MemberF], MemberF]: ...

    @overload
    def on(self, event: Literal["join", "leave"], handler: MemberF, *, threaded: bool = False) -> MemberF: ...

    def on(self, event: Any, handler: Any = None, *, threaded: bool = False) -> Any:
        """Register the handler of an event; without `handler`, return a decorator that registers one.

        A handler may be `def` or `async def`. If it declares n positional parameters, it gets the first n of the
        event's arguments. From Python 3.12 on, an `async def` handler starts immediately, in an `asyncio.Task`; the
        loop's task factory is not used. The handlers of one connection never overlap: first `open`, then each message
        in order, then `close`. An exception in `open` or `message` closes the connection with 1011; one in `handshake`
        or `request` is answered with 500; all are logged. For `worker_start`, see below.

        - `handshake` (server, request): a client asks for a WebSocket. Return `None` or `True` to accept it, or
          `Accept` to accept it with options; `False` to refuse it with 403, a `Response` to refuse it with that
          answer, or `Refuse` to refuse it with a close code.
        - `open` (server, request): the handshake is done, and `request.fd` is the connection's id. `request` is the
          same object as in `handshake`.
        - `message` (server, frame): a whole message arrived; see `Frame`.
        - `close` (server, fd, code, reason): runs once for each `open`, unless the worker was killed. `code` is the
          peer's close code (RFC 6455 §7.1.5): 1005 if the peer gave none, 1006 if the connection broke. If the server
          closed the connection and the peer never answered, `code` is 1006 and `reason` contains the server's code.
        - `drain` (server, fd): the outbox was more than half full and is now empty again, or the connection has ended
          while its `open` or `message` handler is still running. It does not wait for that handler.
        - `join`, `leave` (server, topic, fd, info): the connection `fd` has joined or left a topic with presence (see
          `topic_options`); `info` is what `subscribe` or `join` was given. Each runs exactly once, in one worker: the
          connection's own or, if that worker was killed, any other. The two of one member never overlap, and `leave`
          comes after `join`, unless a killed worker takes a running handler along. They are outside the order of the
          connection's own events.
        - `request` (server, request): plain HTTP. Return a `Response`, `str` (sent as text/html), `bytes`, or `None`
          for 404. Without a handler, requests get 426.
        - `worker_start`, `worker_stop` (server, worker_id): run first and last in each worker, in its event loop (the
          lifespan of an `app` begins before and ends after them). If `worker_start` raises, the worker accepts no
          connections and its `worker_stop` does not run: the first start of the server exits with status 3, a reload
          keeps the old workers, and a worker that replaces a dead one is started again later. `serve` and `async with`
          raise the exception.
        - `start`, `shutdown` (server): run once, in the master or the embedding process: `start` when all workers
          accept connections, `shutdown` when all have ended.
        - `pipe_message` (server, worker_id, data): that worker called `send_message`, or another program did
          (`Publisher.send_message`), and `worker_id` is `None`.

        Args:
            event: The event's name.
            handler: The callable.
            threaded: Run a `def` handler in the worker's pool of `threads`; use it for code that blocks. The order
                within a connection is kept.

        Returns:
            `handler` itself, or the decorator.

        Raises:
            ValueError: The event is unknown or already has a handler, or it is one of an `Endpoint` and this server has
                an `app`, which gets everything that no endpoint matches.
            TypeError: The callable cannot be called with these arguments, or is both `async def` and `threaded`.
            RuntimeError: The server is running.
        """
        arguments_of(event)
        if self._app is not None and event in ENDPOINT_EVENTS:
            raise ValueError(
                f"the app gets everything that no endpoint matches, so a {event!r} handler needs an Endpoint: "
                "register it there, and include the endpoint"
            )
        if self._role:
            raise RuntimeError(f"the {event!r} handler must be registered before the server starts")
        if handler is None:
            return lambda handler: self.on(event, handler, threaded=threaded)
        register(self._handlers, event, handler, threaded=threaded)
        return handler

    def include(self, endpoint: Endpoint) -> None:
        """Serve an endpoint: its handlers and settings are used for the paths that it matches.

        Of all included endpoints, the first one that matches a path serves it. If none matches, the server's `app` or
        its own handlers are called. If the server has neither an `app` nor handlers for WebSockets, handshakes get 404;
        if it has no handlers at all, plain requests get 404 too. `health_path` comes before the endpoints. An endpoint
        may get further handlers until the server starts, and may be included in several servers.

        Args:
            endpoint: The endpoint.

        Raises:
            ValueError: The path is malformed (an unknown kind of parameter, or two of the same name, for example), or
                the endpoints included before it match every path that it matches.
            SettingsError: A setting of the endpoint contradicts one of the server.
            TypeError: `endpoint` is not an `Endpoint`.
            RuntimeError: The server is running.
        """
        if self._role:
            raise RuntimeError("endpoints must be included before the server starts")
        self._included.add(endpoint, self, self.settings)

    def topic_options(
        self,
        pattern: str,
        *,
        history: int = 0,
        seconds: float = 300,
        presence: bool = False,
        envelope: bool = False,
        slow_consumer: SlowConsumer | None = None,
        ttl: float | None = None,
    ) -> None:
        """Set options for all topics that match a pattern.

        If several patterns match a topic, the one that was given first counts. A topic that no pattern matches keeps
        nothing, and costs least. The options of the master count; changed options take effect when it starts again.

        Args:
            pattern: The name of a topic or, with a `*` at its end, the beginning of names; 1 to 255 bytes of UTF-8.
            history: How many messages to keep, for `history` and `join`. Each of them gets an *offset*, its number in
                the topic, and all subscribers in all workers get them in the order of the offsets. So such a message
                may arrive later, relative to what the same caller pushes, than it was published. The setting
                `history_memory` limits the history of all topics together.
            seconds: How long a message is kept.
            presence: Whether `presence` tells who is subscribed, and `join` and `leave` handlers run.
            envelope: Whether subscribers get each message as the JSON text
                `{"topic": …, "epoch": …, "offset": …, "data": …}`, so that a client knows the position to resume from.
                `data` is the `dict`, `list` or `str` that was published; bytes cannot be published then.
            slow_consumer: What happens to a message if an outbox is full. `"close"` closes the connection with 1013,
                and `"drop"` drops the message. With `"latest"`, of the messages with one `key` that wait in an outbox
                only the newest is kept (and of those without a key); if the outbox is full nevertheless, the message is
                dropped. `None` means what the setting `slow_consumer` says.
            ttl: How many seconds a message may wait in an outbox; if it has waited longer, it is left out and counted.
                `None` sets no limit.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A value is out of range; or the pattern is malformed, the same as an earlier one, or can match
                no topic that an earlier one does not match.
            RuntimeError: The server is running.
        """
        options = TopicOptions.checked(pattern, history, seconds, presence, envelope, slow_consumer, ttl)
        if self._role:
            raise RuntimeError("the options of topics must be set before the server starts")
        options.check_is_reached(self._topics)
        self._topics.append(options)

    def _routes(self) -> list[Route]:
        return self._included.routes(self.settings)

    # ---- sending -----------------------------------------------------------------------------------------

    def push(self, fd: int, data: Sendable, opcode: int | None = None, finish: bool = True) -> bool:
        """Queue one message for the connection `fd`, in any worker.

        Returns at once. Messages from one caller to one connection arrive in the order of the calls.

        Args:
            fd: The connection's id, from `Request.fd` or `Frame.fd`.
            data: `str` is sent as a text frame, bytes-like as a binary frame (RFC 6455 §5.6), a `dict` or `list` as
                JSON text.
            opcode: Overrides that choice: `Opcode.CONTINUATION`, `TEXT` or `BINARY`.
            finish: `False` sends a fragment; the next one must be a continuation (RFC 6455 §5.4). Everything else
                sent to that connection waits until the message is complete.

        Returns:
            `True` if the message was queued. For another worker's connection, or from another thread, `True` means
                that the connection was open, its outbox had space, and the message is on its way. `False` if there is
                no such open connection, or its outbox of `send_queue_size` bytes is full.

        Raises:
            TypeError: `data` is of another type or cannot be encoded as JSON, or `fd` is not an `int`.
            ValueError: `opcode` is none of these three, a text message is not UTF-8, or the message is longer than
                `send_queue_size`.
            NotRunning: The server is not running.
        """
        return self._worker_of("push").reactor.push(fd, data, opcode, finish)

    def ping(self, fd: int, data: Data = b"") -> bool:
        """Queue a ping (RFC 6455 §5.5.2); the pong is not reported.

        Args:
            fd: The connection's id.
            data: At most 125 bytes; `str` is sent as UTF-8.

        Returns:
            `True` if the ping was queued; `False` if there is no such open connection, or its outbox is full.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like, or `fd` is not an `int`.
            ValueError: `data` has more than 125 bytes.
            NotRunning: The server is not running.
        """
        return self._worker_of("ping").reactor.ping(fd, data)

    def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Start the closing handshake (RFC 6455 §7.1.2): queue a Close frame after the messages already pushed.

        The connection is kept until the peer has taken these messages, provided that it takes at least 16 KiB in each
        `close_timeout` seconds. Then the peer has `close_timeout` seconds to answer the Close frame. The `close`
        handler runs once the peer answers or this time has passed.

        If a message begun with `finish=False` is incomplete, the Close frame waits for its end, for at most
        `close_timeout` seconds; meanwhile only fragments of that message are accepted. After that time the Close frame
        is sent, and the message stays unfinished.

        Args:
            fd: The connection's id.
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: At most 123 bytes of UTF-8.

        Returns:
            `True` if the closing handshake has begun or, for another worker's connection or from another thread, the
                request is on its way; `False` if there is no such open connection.

        Raises:
            TypeError: `fd` or `code` is not an `int`, or `reason` is not a `str`.
            ValueError: The code may not be sent, or the reason is too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("disconnect").reactor.disconnect(fd, code, reason)

    def broadcast(self, data: Sendable, *, exclude: Iterable[int] = ()) -> None:
        """Queue one message for every open WebSocket of the server, except the ids in `exclude`.

        The frame is built once and shared by all outboxes. If an outbox is full, the setting `slow_consumer` decides
        what happens to that connection.

        Args:
            data: `str` is sent as a text message, bytes-like as a binary message, a `dict` or `list` as JSON text.
            exclude: Ids of connections that should not get the message.

        Raises:
            TypeError: `data` is of another type or cannot be encoded as JSON, or an id is not an `int`.
            ValueError: The message is longer than `send_queue_size`.
            NotRunning: The server is not running.
        """
        self._worker_of("broadcast").reactor.broadcast(data, exclude=exclude)

    def subscribe(self, fd: int, topic: str, *, info: Any = None) -> bool:
        """Subscribe a connection to a topic until `unsubscribe` or the end of the connection.

        Subscribing again changes nothing, unless a new `info` is given.

        Args:
            fd: The connection's id.
            topic: A name of 1 to 255 bytes of UTF-8.
            info: For a topic with presence: what `presence` and the handlers of `join` and `leave` tell about this
                subscriber. Anything that JSON can express, at most 1,024 bytes as JSON; other topics ignore it.

        Returns:
            `True` if the connection is subscribed. For another worker's connection, or from another thread, `True`
                means that the connection was open, could take one more topic, and the subscription is on its way.
                `False` if there is no such open connection, or it already has `max_topics` topics (from another worker
                or thread, even if `topic` is one of them).

        Raises:
            TypeError: `fd` is not an `int`, `topic` is not a `str`, or JSON cannot express `info`.
            ValueError: The topic is empty or too long, or `info` is too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("subscribe").reactor.subscribe(fd, topic, as_info(info))

    def unsubscribe(self, fd: int, topic: str) -> bool:
        """Unsubscribe a connection from a topic. Does nothing if the connection is not subscribed.

        Args:
            fd: The connection's id.
            topic: A name of 1 to 255 bytes of UTF-8.

        Returns:
            `True` if the connection is no longer subscribed; `False` if there is no such open connection.

        Raises:
            TypeError: `fd` is not an `int`, or `topic` is not a `str`.
            ValueError: The topic is empty or too long.
            NotRunning: The server is not running.
        """
        return self._worker_of("unsubscribe").reactor.unsubscribe(fd, topic)

    def publish(self, topic: str, data: Sendable, *, exclude: Iterable[int] = (), key: str | None = None) -> None:
        """Queue one message for every subscriber of a topic, in all workers; see `broadcast`.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8. A topic without subscribers is fine.
            data: `str` is sent as a text message, bytes-like as a binary message, a `dict` or `list` as JSON text.
            exclude: Ids of subscribers that should not get the message.
            key: For a topic with `slow_consumer="latest"` (see `topic_options`): a subscriber that lags gets only the
                newest message with this key, or without one; at most 255 bytes of UTF-8. Other topics ignore it.

        Raises:
            TypeError: `topic` or `key` is not a `str`, `data` is of another type or cannot be encoded as JSON, an id is
                not an `int`, or `data` is bytes-like and the topic has envelopes.
            ValueError: The topic is empty or too long, `key` is too long, or the message is longer than
                `send_queue_size`.
            NotRunning: The server is not running.
        """
        self._worker_of("publish").reactor.publish(topic, data, exclude=exclude, key=key)

    async def join(self, fd: int, topic: str, *, last: int = 0, since: object = None, info: Any = None) -> Joined:
        """Subscribe a connection to a topic with history and, before any new message, send it old ones.

        The connection gets the messages since a position, or the last ones, and then the new ones: all in order, none
        twice, and none in between left out. If it is subscribed already, it gets no old messages, which would come too
        late, and `recovered` is `False`.

        Args:
            fd: The connection's id, in any worker.
            topic: A name of 1 to 255 bytes of UTF-8.
            last: How many old messages to send, unless all since `since` can be sent; fewer if fewer are kept, or the
                outbox has no room for more.
            since: A `Position`, or the `[epoch, offset]` that a client has kept: send every message after it. If some
                of them are no longer kept, the outbox has no room for all of them, or it is no position of this topic
                (or no position at all, whatever the client has sent), the result says so, and only the `last` messages
                are sent.
            info: As in `subscribe`.

        Returns:
            Whether nothing since `since` is missing, how many old messages were sent, and the position behind them. If
                there is no such open connection, it ends meanwhile, or it has `max_topics` topics, nothing was sent,
                and the position has an empty epoch. That of a topic without history is empty too.

        Raises:
            TypeError: `fd` or `last` is not an `int`, `topic` is not a `str`, or JSON cannot express `info`.
            ValueError: The topic is empty or too long, `last` is below 0, or `info` is too long.
            TimeoutError: The worker that has the connection, or the master, did not answer within 5 s.
            RuntimeError: Too many questions are waiting for answers.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("join")
        ask = partial(worker.join, fd, topic, as_last(last), as_after(since), as_info(info))
        recovered, count, epoch, offset = await _answer(worker, ask)
        return Joined(recovered, count, Position(epoch, offset))

    async def send(self, fd: int, data: Sendable, opcode: int | None = None) -> bool:
        """Send one message to the connection `fd`, in any worker, as fast as its client takes messages.

        Like `push`, but while more than half of `send_queue_size` is queued for that connection, or the message does
        not fit into the rest, it waits until there is less. So it never fills the outbox, and `slow_consumer` has
        nothing to decide. If several callers wait for one connection, their messages are sent in the order of the
        calls. A `push` does not wait for them.

        A client that takes nothing keeps a caller waiting until the pings detect it (`ping_timeout`); use
        `asyncio.timeout` to wait for less time. If the call is cancelled while it waits, nothing is sent.

        A handler that waits here delays a graceful stop until `shutdown_timeout` expires and the handler is cancelled.

        Args:
            fd: The connection's id.
            data: `str` is sent as a text message, bytes-like as a binary message, a `dict` or `list` as JSON text.
            opcode: Overrides that choice, as in `push`. The message is always complete, or ends one begun by `push`.

        Returns:
            `True` if the message was queued; for another worker's connection: it is on its way. `False` if there is no
                such open connection, or it ended while you waited.

        Raises:
            TypeError: As in `push`.
            ValueError: As in `push`.
            NotRunning: The server is not running, or stops running in this worker while you wait.
        """
        worker = self._worker_of("send")
        content: Any = self._json.encode(data) if isinstance(data, (dict, list)) else data
        if asyncio.get_running_loop() is not worker.loop:
            content = _unchanging(content)
        return await _in_loop_of(worker, worker.send(fd, content, opcode))

    async def wait_closed(self, fd: int) -> None:
        """Wait until the connection `fd`, in any worker, is closed; return at once if there is no such connection.

        A connection counts as closed from the moment when `exists(fd)` is false and `push` has no effect: the peer has
        begun to close or is gone, or this server has begun to close (`disconnect`, a failed handler, a stop). The
        `close` handler runs later, so a handler of that connection may wait here; and if the server has begun to close,
        its Close frame may still be on its way. Connections of a worker that has died count as closed.

        A handler that waits here delays a graceful stop until `shutdown_timeout` expires and the handler is cancelled.

        Args:
            fd: The connection's id.

        Raises:
            TypeError: `fd` is not an `int`.
            RuntimeError: This worker is already waiting for 65,536 connections.
            NotRunning: The server is not running, or stops running in this worker while you wait.
        """
        worker = self._worker_of("wait_closed")
        await _in_loop_of(worker, worker.wait_closed(fd))

    # ---- looking -----------------------------------------------------------------------------------------

    def exists(self, fd: int) -> bool:
        """Return whether `fd` is an open WebSocket: its handshake is done, and neither side has begun to close.

        Raises:
            NotRunning: The server is not running.
        """
        return self._worker_of("exists").reactor.exists(fd)

    def info(self, fd: int) -> ConnectionInfo | None:
        """Return details of a connection, or `None` if there is no such connection; still works inside `close`.

        Raises:
            NotRunning: The server is not running.
        """
        values = self._worker_of("info").reactor.info(fd)
        return values and ConnectionInfo(*values)

    def state(self, fd: int) -> Any:
        """Return the state of a connection of this worker: an object in which the application keeps data of its own.

        This is the same object as `Request.state` in `handshake` and `open`, and `Frame.state` in `message`: an empty
        `SimpleNamespace`, created when it is first used, unless you assign another object to `Request.state`. Tasks,
        timers and threads of this worker can use it too, until the `close` handler has ended. Other workers cannot.

        Args:
            fd: The connection's id.

        Raises:
            KeyError: There is no such connection, or it belongs to another worker, which the message then names.
            TypeError: `fd` is not an `int`.
            NotRunning: The server is not running.
        """
        return self._worker_of("state").reactor.state(fd)

    async def subscribers(self, topic: str) -> int:
        """Count the connections, in all workers, that are subscribed to a topic.

        The count includes the effect of your own earlier calls.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.

        Raises:
            TypeError: `topic` is not a `str`.
            ValueError: The topic is empty or too long.
            TimeoutError: A worker with subscribers did not answer within 5 s; the message names the worker.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("subscribers")
        return await _answer(worker, partial(worker.subscribers, topic))

    async def topics(self, *, prefix: str = "", limit: int = 1000) -> dict[str, int]:
        """Return the topics that have subscribers, in all workers, with their numbers of subscribers.

        They are in the order of their names' bytes; a longer list is cut after `limit` topics. It includes the effect
        of your own earlier calls. Each worker looks through all of its topics, and a long list needs several questions.
        So call this to look at a server, not for each message.

        Args:
            prefix: Return only topics whose names begin with this, at most 255 bytes of UTF-8.
            limit: The largest number of topics to return, 1 or above.

        Raises:
            TypeError: `prefix` is not a `str`, or `limit` is not an `int`.
            ValueError: `prefix` is too long, or `limit` is below 1.
            TimeoutError: A worker with subscribers did not answer a question within 5 s; the message names the worker.
            RuntimeError: Too many questions are waiting for answers.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("topics")
        found = listing.topics(limit)
        while found.wanted:
            found.add(await _answer(worker, partial(worker.topics, prefix, found.after, found.wanted)))
        return dict(found.entries)

    async def members(self, topic: str, *, limit: int = 1000) -> list[int]:
        """Return the ids of the connections, in all workers, that are subscribed to a topic.

        They are in ascending order; a longer list is cut after `limit` ids. It includes the effect of your own earlier
        calls.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of ids to return, 1 or above.

        Raises:
            TypeError: `topic` is not a `str`, or `limit` is not an `int`.
            ValueError: The topic is empty or too long, or `limit` is below 1.
            TimeoutError: A worker with subscribers did not answer a question within 5 s; the message names the worker.
            RuntimeError: Too many questions are waiting for answers.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("members")
        found = listing.members(limit)
        while found.wanted:
            found.add(await _answer(worker, partial(worker.members, topic, found.after, found.wanted)))
        return found.entries

    async def history(
        self, topic: str, *, limit: int = 100, since: object = None, newest_first: bool = False
    ) -> History:
        """Return messages that a topic with history keeps.

        It includes what you published before. A long list needs several questions.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of messages to return, 1 or above.
            since: Return only messages after this `Position` (or `[epoch, offset]`). If it is no position of this
                topic, because the history was removed or lost, all are returned; its epoch then differs from that of
                the result.
            newest_first: Begin with the newest message instead of the oldest.

        Returns:
            The messages, and the position behind the topic's newest message. A topic without history has none.

        Raises:
            TypeError: `topic` is not a `str`, `limit` is not an `int`, or `newest_first` is not a `bool`.
            ValueError: The topic is empty or too long, or `limit` is below 1.
            TimeoutError: The master did not answer within 5 s.
            RuntimeError: Too many questions are waiting for answers.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("history")
        found = Reading(limit, since, newest_first=newest_first, json=self._json)
        while found.wanted:
            ask = partial(worker.history, topic, found.after, found.before, found.wanted, newest_first)
            found.add(await _answer(worker, ask))
        return found.result()

    async def forget(self, topic: str) -> None:
        """Remove the history of a topic. Its offsets begin anew, in a new epoch; subscribers stay subscribed.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8. A topic without history is fine.

        Raises:
            TypeError: `topic` is not a `str`.
            ValueError: The topic is empty or too long.
            TimeoutError: The master did not answer within 5 s.
            RuntimeError: Too many questions are waiting for answers.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("forget")
        await _answer(worker, partial(worker.forget, topic))

    async def presence(self, topic: str, *, limit: int = 1000) -> dict[int, Any]:
        """Return who is subscribed to a topic with presence: the ids, in ascending order, each with its `info`.

        A longer list is cut after `limit` members. It includes the effect of your own earlier calls. A long list needs
        several questions.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of members to return, 1 or above.

        Returns:
            What `subscribe` or `join` was given as `info`, by id; `None` if nothing was given. Empty for a topic
                without presence.

        Raises:
            TypeError: `topic` is not a `str`, or `limit` is not an `int`.
            ValueError: The topic is empty or too long, or `limit` is below 1.
            TimeoutError: The master or a worker did not answer a question within 5 s; the message names the worker.
            RuntimeError: Too many questions are waiting for answers.
            NotRunning: The server is not running.
        """
        worker = self._worker_of("presence")
        found = present(limit)
        while found.wanted:
            found.add(await _answer(worker, partial(worker.presence, topic, found.after, found.wanted)))
        return {fd: decoded(info) for fd, info in found.entries}

    def stats(self) -> Stats:
        """Return totals since the start; the key `workers` holds a list with the same numbers for each worker.

        Keys: `connections` (open now), `accepted`, `refused`, `closed` (handshakes and WebSockets), `messages_in`,
        `messages_out`, `bytes_in`, `bytes_out` (payload), `queued_bytes` (in outboxes now), `outliving` (connections
        whose client has left while a handler is still running, now), `held_bytes` (memory for queued output and
        unfinished input, now), `slow_consumers_closed`, `memory_closed` (beyond `max_memory`), `messages_dropped` (by
        `slow_consumer="drop"`), `messages_expired` (beyond a topic's `ttl`), `messages_replaced` (by a later one with
        the same key), `history_evicted` (messages removed from histories beyond `history_memory`),
        `subscriptions_refused` (beyond `max_topics`), `commands_dropped` (calls from other threads and workers that did
        not fit into the queue), `restarts` (of workers), `started_at` (Unix seconds). The entries of
        `workers` also have `worker_id`.

        Raises:
            NotRunning: The server is not running.
        """
        return self._worker_of("stats").reactor.stats()

    def hosts(self) -> list[Host]:
        """Return the hosts that are alive, this one included, in the order of their numbers; none without a `broker`.

        Each host tells the others about itself every second. One that was not heard from for 15 seconds is left out.

        Raises:
            NotRunning: The server is not running.
        """
        return [Host(*values) for values in self._worker_of("hosts").reactor.hosts()]

    async def _ask_hosts(self, what: str, **arguments: Any) -> Answers:
        """Ask all hosts; without a broker, this one is all there is."""
        worker = self._worker_of("cluster")
        if self.settings.broker is None:
            return [(0, await _answer(worker, partial(worker.look, what, **arguments)))], []
        return await _answer(worker, partial(worker.ask_hosts, what, **arguments))

    @property
    def worker_id(self) -> int | None:
        """The number of this worker; `None` in the master, and while no worker runs in this process."""
        worker = self._role and self._role.worker
        return worker.worker_id if worker else None

    @property
    def port(self) -> int:
        """The port that the server listens on; before it listens, the port from `settings`."""
        return self._role.port if self._role else self.settings.port

    # ---- time --------------------------------------------------------------------------------------------

    def tick(self, seconds: float, fn: Callable[..., Any], *args: Any) -> Timer:
        """Call `fn(*args)` every `seconds` seconds, in this worker; `fn` may be `async def`.

        A call that is due while the previous one is still running is skipped. Exceptions from `fn` are logged.

        Returns:
            A `Timer`; its `cancel` stops the calls.

        Raises:
            TypeError: `seconds` is not a number, or `fn` is not callable.
            ValueError: `seconds` is not above 0, or too large for a `float`.
            NotRunning: The server is not running.
        """
        seconds = as_seconds("seconds", seconds)
        if not seconds > 0:
            raise ValueError(f"seconds must be above 0, not {seconds}")
        if not callable(fn):
            raise wrong_type("fn", "callable", fn)
        return self._worker_of("tick").add_timer(seconds, True, partial(fn, *args))

    def after(self, seconds: float, fn: Callable[..., Any], *args: Any) -> Timer:
        """Call `fn(*args)` once, after `seconds` seconds, in this worker; `fn` may be `async def`.

        Exceptions from `fn` are logged.

        Returns:
            A `Timer`; its `cancel` stops the call.

        Raises:
            TypeError: `seconds` is not a number, or `fn` is not callable.
            ValueError: `seconds` is below 0, or too large for a `float`.
            NotRunning: The server is not running.
        """
        seconds = as_seconds("seconds", seconds)
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or above, not {seconds}")
        if not callable(fn):
            raise wrong_type("fn", "callable", fn)
        return self._worker_of("after").add_timer(seconds, False, partial(fn, *args))

    def send_message(self, data: str | bytes, worker_id: int) -> None:
        """Run `pipe_message` in another worker, or in this one, with this worker's number and `data`.

        Messages from one caller to one worker arrive in the order of the calls. Messages to a worker that has just
        died are lost.

        Args:
            data: Arrives unchanged, as `str` or `bytes`; at most 32 MiB.
            worker_id: The receiving worker: 0 or above, below `settings.worker_count`.

        Raises:
            TypeError: `data` is neither `str` nor `bytes`, or `worker_id` is not an `int`.
            ValueError: There is no such worker, or `data` is too long.
            NotRunning: The server is not running.
        """
        self._worker_of("send_message").send_message(data, worker_id)

    # ---- running -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve until SIGTERM, SIGINT or `shutdown()`, then stop gracefully; a second signal ends the process at once.

        This process is the master. The workers run the same program again, in fresh interpreters, up to this call,
        which does not return in them. SIGHUP reloads, as `reload()` does. Closing the terminal in which the program was
        started also sends SIGHUP, but stops the server gracefully. A program that cannot be run again (typed
        in, or read from standard input) can serve only with `workers=1`, and does so in this one process.

        If the server cannot start at all (the port is in use, the host is unknown), one line on standard error says
        why, and the exit status is 1. If the program fails in a worker before it reaches this call, in `worker_start`,
        or in the startup of its `app`, the traceback is shown, and the exit status is 3.

        Raises:
            RuntimeError: An event loop is running in this thread, the server is already running, this process is a
                worker that serves, or the program is being typed in.
        """
        if program.mark(self):
            return
        # Check this first, in workers too: a call that fails must not be counted in any process.
        self._refuse_if_running()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("start() runs an event loop of its own: within one, use `await server.serve()`")
        self._starts += 1
        assignment = program.assignment
        if assignment and (self._number, self._starts) != (assignment.server, assignment.start):
            if program.is_called_by_worker():
                raise RuntimeError("a worker cannot start a server: within its event loop, use `await server.serve()`")
            # This process is a worker of another server, or of a later start: nothing to do here.
            return
        if not log.hasHandlers():
            logs.to_standard_error()
        if assignment:
            self._start_worker(assignment)
        else:
            self._start_master()

    def _start_master(self) -> None:
        """Run the master, or the whole server in this one process."""
        refusal = program.why_not_again()
        if refusal and self.settings.workers != 1:
            refusal += "; with workers=1 all runs in this process"
            if program.is_typed_in():
                # Raise instead of exiting: the user's interactive session should go on.
                raise RuntimeError(refusal)
            sys.exit(f"hubbub: {refusal}")
        logs.set_level(self.settings.log_level, default=LOG_LEVEL)
        _warn_of_unknown_variables()
        status = 0
        try:
            check_certificates(self.settings)
            if refusal:
                asyncio.run(self._run_embedded())
            else:
                self._role = master = Master(
                    self, self.settings, self._topics, self._handlers, (self._number, self._starts)
                )
                _running.add(self)
                status = asyncio.run(master.run())
        except SettingsError as error:
            sys.exit(f"hubbub: {error}")
        except CannotServe as error:
            sys.exit(f"hubbub: {error.strerror}")
        finally:
            self._leave()
        if status:
            sys.exit(status)

    async def _run_embedded(self) -> None:
        loop = asyncio.get_running_loop()
        embedded = self._make_embedded(self.settings.control)

        def stop(number: signal.Signals) -> None:
            log.info("%s: stopping", number.name)
            loop.call_soon_threadsafe(embedded.shutdown)

        def on_hangup(number: int, frame: FrameType | None) -> None:
            if terminal.is_closed():
                discard_lost_output()
                log.info("the terminal was closed: stopping")
                loop.call_soon_threadsafe(embedded.shutdown)
            else:
                log.error("SIGHUP: cannot reload a server that runs in one process")

        terminal = Terminal()
        handlers = program.stops(stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = on_hangup
        with program.handling_signals(handlers):
            await self._open(embedded)
            try:
                await self._begin(embedded)
            except BaseException:
                if not embedded.failure or program.is_typed_in():
                    raise
                embedded.failure.log()
                raise SystemExit(PROGRAM_FAILED) from None
            try:
                await embedded.until_left()
            except BaseException:
                # For example, a handler raised SystemExit, which ended the event loop.
                embedded.let_go()
                raise
            await embedded.close()

    def _start_worker(self, assignment: Assignment) -> NoReturn:
        """Run a worker, with the master's settings."""
        ours, self.settings = self.settings, Settings(**assignment.settings)
        our_topics, self._topics = self._topics, [TopicOptions(**options) for options in assignment.topics]
        logs.set_level(self.settings.log_level, default=LOG_LEVEL)
        names = [each.name for each in fields(ours) if getattr(ours, each.name) != getattr(self.settings, each.name)]
        if our_topics != self._topics:
            names.append("topic_options")
        # Only worker 0 logs this, for all workers.
        if names and assignment.worker_id == 0 and assignment.is_reload:
            log.warning("changed in the code; restart the server to apply: %s", ", ".join(names))
        routes = self._routes()
        process = WorkerProcess(
            self,
            self.settings,
            self._topics,
            self._handlers,
            routes,
            self._json,
            self._app,
            assignment,
            self._entered,
            self._leave,
        )
        self._role = process
        process.run()

    async def serve(self) -> None:
        """Serve in the running event loop until `shutdown()` or cancellation, then stop gracefully.

        `async with server:` serves until the end of its block; the server is already listening when the block begins.
        There is one worker, in this process, whatever `workers` says. Handling signals is left to the program, and
        there is no control socket unless `control` names one. Afterwards the server may be started again, even in
        another loop.

        Raises:
            SettingsError: A file that a setting names does not exist, or there is a `broker`.
            OSError: The port is in use, or the host is unknown.
            Exception: The exception that `worker_start` raised, or the startup of the `app`.
            RuntimeError: The server is already running.
        """
        embedded = await self._open_embedded()
        try:
            await embedded.until_left()
        finally:
            await self._close(embedded)

    async def __aenter__(self) -> Self:
        self._embedded = await self._open_embedded()
        self._closing = asyncio.get_running_loop().create_task(self._close_when_left(self._embedded))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # `shutdown()` may have started the stop already; calling it again is harmless.
        if self._embedded and self._closing:
            self._embedded.shutdown()
            try:
                await self._closing
            except BaseException:
                # The task may have been cancelled before it began to close.
                self._embedded.let_go()
                self._leave()
                raise

    def shutdown(self) -> None:
        """Stop the whole server gracefully.

        May be called in the master, any worker and any thread, any number of times. The server stops accepting
        connections, running handlers finish, every connection is closed with 1001 and its `close` handler runs, then
        `worker_stop`. Anything still running after `shutdown_timeout` is cancelled.

        Raises:
            NotRunning: The server is not running.
        """
        self._role_of("shutdown").shutdown()

    def reload(self) -> None:
        """Replace the workers, one at a time, by new ones that load the program again.

        May be called from anywhere, at any time. Each new worker accepts connections before the old one stops accepting
        them. The old worker's connections are closed with 1012, about 1,000 per second. If the new program fails, the
        old workers keep running. A reload requested during another one runs after it.

        Raises:
            RuntimeError: The server runs in one process.
            NotRunning: The server is not running.
        """
        self._role_of("reload").reload()

    async def _open_embedded(self) -> Embedded:
        check_certificates(self.settings)
        if (self.settings.workers or 1) > 1:
            log.warning("workers=%d is ignored: an embedded server has one worker", self.settings.workers)
        logs.set_level(self.settings.log_level, default=LOG_LEVEL)
        _warn_of_unknown_variables()
        control = None if self.settings.control == "auto" else self.settings.control
        embedded = self._make_embedded(control)
        await self._open(embedded)
        await self._begin(embedded)
        return embedded

    def _make_embedded(self, control: str | None) -> Embedded:
        """Make the whole server for this one process.

        Raises:
            SettingsError: There is a `broker`: the master talks to it, and there is none.
        """
        if self.settings.broker is not None:
            raise SettingsError(
                "broker: set, but this server runs in one process; a server among several hosts needs the master that "
                "`server.start()` and `hubbub run` have"
            )
        return Embedded(
            self, self.settings, self._topics, self._handlers, self._routes(), self._json, self._app, control
        )

    async def _open(self, embedded: Embedded) -> None:
        """Open the listening sockets and create the worker, which accepts no connections yet."""
        self._refuse_if_running()
        self._role = embedded
        try:
            await embedded.open()
            self._entered()
        except BaseException:
            embedded.let_go()
            self._leave()
            raise

    async def _begin(self, embedded: Embedded) -> None:
        """Begin to serve; returns early if `shutdown()` is called meanwhile. Raises what `worker_start` raises."""
        try:
            await embedded.begin()
        except BaseException:
            embedded.let_go()
            self._leave()
            raise

    async def _close_when_left(self, embedded: Embedded) -> None:
        await embedded.until_left()
        await self._close(embedded)

    async def _close(self, embedded: Embedded) -> None:
        try:
            await embedded.close()
        finally:
            self._leave()

    def _entered(self) -> None:
        """Note that this process now has a worker."""
        _running.add(self)
        _bind_push(self, self._worker_of("push").reactor)

    def _leave(self) -> None:
        """Return to the state before the start."""
        _unbind_push(self)
        self._role = None

    def _refuse_if_running(self) -> None:
        if self._role:
            raise RuntimeError("the server is already running")

    def _role_of(self, call: str) -> Role:
        if self._role is None:
            raise NotRunning(f"{call} needs a running server: call it from a handler, or within `async with server`")
        return self._role

    def _worker_of(self, call: str) -> Worker:
        role = self._role_of(call)
        if role.worker is None:
            raise NotRunning(f"{call} needs a worker: it cannot be called in the master, nor before `worker_start`")
        return role.worker

    def _lay_over(self, options: Mapping[str, str], defaults: Mapping[str, object] = {}) -> None:
        """Apply the options of a command line, which beat environment variables and keywords.

        Args:
            options: The text of each option, by the name of the setting.
            defaults: Values for settings that are not given anywhere, by name.

        Raises:
            SettingsError: As in the constructor.
        """
        self.settings = Settings.load(self._keywords, options=options, defaults={**self._defaults, **defaults})
        # The settings of an endpoint may contradict them.
        self._routes()


def current_server() -> Server:
    """Return the server that runs in this process: for code that is given no `server`, such as an ASGI application.

    That is the server of this worker, or an embedded one. If several are embedded, it is the one of the running event
    loop.

    Raises:
        NotRunning: No server runs in this process, only the master of one, or several and none of them in this loop.
    """
    found = [(server, worker) for server in list(_running) if server._role and (worker := server._role.worker)]
    if len(found) > 1:
        loop = asyncio._get_running_loop()
        found = [(server, worker) for server, worker in found if worker.loop is loop]
    if len(found) != 1:
        raise NotRunning("there is no current server: only a worker process and an embedded server have one")
    return found[0][0]


def _checked(app: object) -> Application:
    try:
        return check_application(app)
    except TypeError as error:
        raise TypeError(f"app must be an ASGI application: {error}") from None


async def _in_loop_of(worker: Worker, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine of the worker in its event loop, from there or from another one."""
    if asyncio.get_running_loop() is worker.loop:
        return await coroutine
    try:
        running = asyncio.run_coroutine_threadsafe(_unless_disposed(worker, coroutine), worker.loop)
    except RuntimeError:
        coroutine.close()
        raise NotRunning("the server has stopped") from None
    return await asyncio.wrap_future(running)


async def _unless_disposed(worker: Worker, coroutine: Coroutine[Any, Any, T]) -> T:
    if worker.is_disposed:
        coroutine.close()
        raise NotRunning("the server has stopped")
    return await coroutine


async def _answer(worker: Worker, ask: Callable[[float], Coroutine[Any, Any, T]]) -> T:
    """Ask in the worker's event loop, from there or from another one; `ask` is given the seconds to wait."""
    if asyncio.get_running_loop() is worker.loop:
        return await ask(PATIENCE)
    # The worker's own report names the silent worker, so give it time to arrive before this loop gives up.
    timer = asyncio.timeout(PATIENCE)
    try:
        async with timer:
            return await _in_loop_of(worker, ask(PATIENCE - LOOP_MARGIN))
    except TimeoutError:
        if not timer.expired():
            raise
        raise TimeoutError(f"the event loop of this worker did not answer within {PATIENCE:g} s") from None


# `push` is on the path of every message, so while a worker runs, calls go to its reactor directly: for one server of
# this process through a native method of the class, which Python finds faster, and for others through an attribute.
_python_push = Server.push
_native_push: object = None
_pushing: "weakref.ref[Server] | None" = None


def _bind_push(server: Server, reactor: Reactor) -> None:
    global _native_push, _pushing
    own = (_python_push, _native_push)
    if Server.push in own and (method := bind_push(reactor, Server, _python_push)):
        _pushing, _native_push = weakref.ref(server), method
        type.__setattr__(Server, "push", method)
    elif type(server).push in own and "push" not in server.__dict__:
        server.__dict__["push"] = reactor.push


def _unbind_push(server: Server) -> None:
    global _pushing
    if _pushing and _pushing() is server:
        _pushing = None
        unbind_push(server)
        if Server.push is _native_push:
            type.__setattr__(Server, "push", _python_push)
    if isinstance(server.__dict__.get("push"), BuiltinMethodType):
        del server.__dict__["push"]


def _unchanging(data: Data) -> Data:
    """Return what another thread can read: a copy, unless it cannot change, or cannot be sent."""
    with contextlib.suppress(TypeError):
        return data if isinstance(data, (str, bytes)) else bytes(memoryview(data))
    return data


def _warn_of_unknown_variables() -> None:
    for complaint in environment.complaints():
        log.warning("%s", complaint)


def _after_fork() -> None:
    for server in list(_running):
        if server._role and (worker := server._role.worker):
            # If a thread other than the event loop's has forked, this is skipped: the event loop's thread may have been
            # doing anything.
            with contextlib.suppress(RuntimeError):
                worker.reactor.abandon()
            # If a task of the child returns to the event loop, end the child: the loop belongs to the parent.
            worker.loop.call_soon(worker.end_child)
        server._leave()


os.register_at_fork(after_in_child=_after_fork)
