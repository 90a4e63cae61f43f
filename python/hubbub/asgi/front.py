"""Serves an ASGI application in one worker: a task for each request and each WebSocket."""

import asyncio
import contextvars
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any

from .._core import AppRequest, Reactor
from ..forwarding import forwarded
from ..logs import Throttle, shown
from .application import Application
from .http import PLAIN_TEXT, ClientDisconnected
from .websocket import Socket

__all__ = ["Front", "common_scope"]

log = logging.getLogger("hubbub")
access = logging.getLogger("hubbub.access")

Scope = MutableMapping[str, Any]

# Failures that are logged with their tracebacks in one interval.
FAILURES = 10
BUSY = (*PLAIN_TEXT, (b"retry-after", b"5"))


def common_scope(root_path: str, state: dict[str, Any], *, is_encrypted: bool) -> dict[str, Any]:
    """Return what the scopes of all requests have in common; values that are dicts are copied for each of them."""
    return {
        # With 2.4, Starlette notices only when it sends that the client has left, and then raises an error of its own.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "scheme": "https" if is_encrypted else "http",
        "root_path": root_path,
        "server": None,
        "state": state,
        "extensions": {
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "websocket.http.response": {},
        },
    }


class Front:
    """One application in one worker."""

    def __init__(
        self,
        app: Application,
        reactor: Reactor,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[int, str | bytes], Coroutine[Any, Any, bool]],
        running: set[Any],
        *,
        trusted_proxies: tuple[str, ...],
        limit_concurrency: int | None,
        access_log: bool,
    ) -> None:
        """Create it.

        Args:
            app: The application.
            reactor: The worker's reactor.
            loop: The worker's event loop.
            send: Queues a message for a connection once there is room.
            running: Gets the tasks of requests, as long as they run.
            trusted_proxies: The setting of that name.
            limit_concurrency: The setting of that name.
            access_log: The setting of that name.
        """
        self._app = app
        self._reactor = reactor
        self._loop = loop
        self._context: contextvars.Context | None = None
        self._send = send
        self._running = running
        self._trusted_proxies = trusted_proxies
        self._limit = limit_concurrency
        self._logs_access = access_log
        self._requests: dict[int, AppRequest | Socket] = {}
        # The tasks of WebSockets, which last as long as their connections.
        self.socket_tasks: set[asyncio.Task[None]] = set()
        self._throttle = Throttle(
            loop, FAILURES, lambda others: log.error("the application failed %d more times", others)
        )

    def begin(self, context: contextvars.Context, scope: dict[str, Any], *, is_direct: bool) -> None:
        """Take requests from here on; the application has started.

        Args:
            context: The context whose copies requests run in.
            scope: What the scopes of all requests have in common.
            is_direct: Whether the reactor may call the application for usual requests without asking the worker.
        """
        self._context = context
        app = self._app if _makes_coroutines(self._app) else self._await
        is_direct = is_direct and self._limit is None
        self._reactor.serve_application(app, self, context, scope, self._logs_access, is_direct)

    # ---- what the worker passes on -----------------------------------------------------------------------

    def request(self, token: int, scope: Scope, body: bytes | None, *, is_forwarded: bool) -> None:
        """Call the application for a request; without a body, it takes the body as it arrives."""
        if is_forwarded:
            self._forward(scope, "http", "https")
        if not self._refuses(token, scope):
            self._reactor.call_application(token, scope, body)

    def handshake(self, token: int, scope: Scope, *, is_forwarded: bool) -> None:
        """Call the application for a WebSocket."""
        if is_forwarded:
            self._forward(scope, "ws", "wss")
        if self._refuses(token, scope):
            return
        scope["asgi"]["spec_version"] = "2.4"
        scope["subprotocols"], _ = self._reactor.offered_subprotocols(token)
        socket = Socket(self._reactor, token, scope, self._send)
        self._requests[token] = socket
        context = self._context.copy() if self._context else None
        coroutine = self._serve_socket(token, scope, socket)
        task: asyncio.Task[None]
        if sys.version_info >= (3, 12):
            task = asyncio.Task(coroutine, loop=self._loop, context=context, eager_start=True)
        else:
            task = self._loop.create_task(coroutine, context=context)
        if not task.done():
            self.socket_tasks.add(task)
            task.add_done_callback(self.socket_tasks.discard)

    def progressed(self, token: int) -> None:
        """Have the application look at a request again."""
        if request := self._requests.get(token):
            request.tell()

    def disconnect_all(self) -> None:
        """Tell all requests that their clients have disconnected: the server stops."""
        for request in list(self._requests.values()):
            if isinstance(request, AppRequest):
                request.disconnect()

    def refuse_handshakes(self) -> None:
        """Refuse the handshakes that wait for the application: the server stops."""
        for request in list(self._requests.values()):
            if isinstance(request, Socket):
                request.stop()

    def cancel_sockets(self) -> None:
        """Cancel the tasks of all WebSockets."""
        for task in list(self.socket_tasks):
            task.cancel()

    def dispose(self) -> None:
        """Release everything."""
        self._throttle.close()

    # ---- tasks -------------------------------------------------------------------------------------------

    def _refuses(self, token: int, scope: Scope) -> bool:
        """Answer with 503 if there are too many requests; return whether that was so."""
        if self._limit is None or len(self._requests) < self._limit:
            return False
        self._reactor.respond(token, 503, BUSY, b"too many requests at the same time\n")
        self._log_access(scope, 503)
        return True

    async def _await(self, scope: Scope, receive: Any, send: Any) -> None:
        """Call an application that makes something else than coroutines."""
        await self._app(scope, receive, send)

    def follow(self, request: AppRequest, task: asyncio.Task[None]) -> None:
        """Take over a request whose task goes on."""
        self._requests[request.token] = request
        self._running.add(task)
        task.add_done_callback(functools.partial(self._task_ended, request))

    def _task_ended(self, request: AppRequest, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        del self._requests[request.token]
        self.ended(request, asyncio.CancelledError() if task.cancelled() else task.exception())

    def ended(self, request: AppRequest, error: BaseException | None) -> None:
        """Do what is left to do for a request when the application's call has ended."""
        if error is None:
            if not request.is_answered:
                log.error("the application returned without %s", "a whole answer" if request.status else "an answer")
                self._fail(request)
        elif isinstance(error, ClientDisconnected):
            request.give_up()
        else:
            if isinstance(error, Exception):
                self._failed(error, request.scope)
            self._fail(request)
        request.finish()
        self._log_access(request.scope, request.status)

    def _fail(self, request: AppRequest) -> None:
        if request.status or request.is_answered:
            request.give_up()
        else:
            request.answer(500, b"Internal Server Error\n")

    async def _serve_socket(self, token: int, scope: Scope, socket: Socket) -> None:
        try:
            await self._app(scope, socket.channel.receive, socket.channel.send)
            if not socket.end():
                log.error("the application returned without an answer to the handshake")
        except ClientDisconnected:
            socket.end()
        except Exception as error:
            self._failed(error, scope)
            socket.fail()
        except BaseException:
            socket.fail()
            raise
        finally:
            del self._requests[token]
            self._reactor.done(token)
            self._log_access(scope, socket.status)

    def _failed(self, error: Exception, scope: Scope) -> None:
        if not self._throttle.passes():
            return
        if _follows_disconnect(error):
            # Frameworks raise exceptions of their own when sending fails.
            log.info("the client disconnected before the end (%s): %s", shown(str(scope["path"])), shown(repr(error)))
        else:
            log.error("the application failed (%s)", shown(str(scope["path"])), exc_info=error)

    # ---- scopes and the log ------------------------------------------------------------------------------

    def _forward(self, scope: Scope, plain: str, encrypted: str) -> None:
        """Take the client and the scheme from the headers of a trusted proxy."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        scheme = "https" if scope["scheme"] == encrypted else "http"
        scope["client"], scheme = forwarded(headers, scope["client"], scheme, self._trusted_proxies)
        scope["scheme"] = encrypted if scheme == "https" else plain

    def _log_access(self, scope: Scope, status: int) -> None:
        """Log a request with the fields of uvicorn's access log."""
        if not self._logs_access:
            return
        host, port = scope["client"] or ("", 0)
        path = scope["raw_path"].decode("latin-1")
        if query := scope["query_string"]:
            path += "?" + query.decode("latin-1")
        method = scope.get("method", "WebSocket")
        access.info('%s:%d - "%s %s HTTP/%s" %s', host, port, method, shown(path), scope["http_version"], status or "-")


def _makes_coroutines(app: Application) -> bool:
    """Return whether calling the application only creates a coroutine, so that all of it runs in its task."""
    function = app if inspect.isfunction(app) or inspect.ismethod(app) else type(app).__call__
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_COROUTINE)


def _follows_disconnect(error: BaseException, followed: frozenset[int] = frozenset()) -> bool:
    """Return whether an exception was raised because sending to a client that has left had failed.

    `followed` are the ids of the exceptions that this one came before: a group may be the context of its own members.
    """
    if isinstance(error, ClientDisconnected):
        return True
    followed |= {id(error)}
    if isinstance(error, BaseExceptionGroup):
        return all(_follows_disconnect(each, followed) for each in error.exceptions)
    before = error.__cause__ or error.__context__
    return before is not None and id(before) not in followed and _follows_disconnect(before, followed)
