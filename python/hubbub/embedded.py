"""A server in one process: one worker in the running event loop, and no master."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ._core import Hub
from .asgi.application import Application
from .caller import CANCEL_GRACE
from .control import Control, open_control
from .endpoints import Route
from .handlers import Handler
from .hub import open_hub
from .jsons import Json
from .listening import Listeners, open_listeners, raise_file_limit
from .metrics import Exposition
from .settings import Settings
from .topic_options import TopicOptions
from .worker import FailedStart, Worker

__all__ = ["Embedded"]

log = logging.getLogger("hubbub")


class Embedded:
    """One worker that accepts connections itself, and a hub for other programs if there is a control socket."""

    def __init__(
        self,
        server: object,
        settings: Settings,
        topics: Sequence[TopicOptions],
        handlers: Mapping[str, Handler],
        routes: Sequence[Route],
        json: Json,
        app: Application | None,
        control: str | None,
    ) -> None:
        """Create it; `open` must be called in a running event loop.

        Args:
            server: Passed to handlers as `server`.
            settings: The server's settings.
            topics: The options of topics.
            handlers: The handlers, by event.
            routes: The endpoints.
            json: Encodes what is sent, and decodes what is received.
            app: The ASGI application, if there is one.
            control: Replaces the setting of that name.
        """
        self.port = settings.port
        self.worker: Worker | None = None
        self._server = server
        self._settings = settings
        self._topics = topics
        self._handlers = handlers
        self._routes = routes
        self._json = json
        self._app = app
        self._control_setting = control
        self._control: Control | None = None
        self._listeners: Listeners | None = None
        self._hub: Hub | None = None
        self._exposition: Exposition | None = None
        # The last measurements. Scrapes run in threads of their own, and one may still be running when the worker is
        # gone.
        self._measured: dict[str, Any] | None = None
        self._measuring = threading.Lock()
        self._is_to_leave = False
        # Set while the server is being drained: stops it.
        self._drained: asyncio.TimerHandle | None = None
        # Why the worker could not start.
        self.failure: FailedStart | None = None

    async def open(self) -> None:
        """Open the listening sockets, and create `worker`.

        Raises:
            CannotServe: The system refuses something that the server needs.
        """
        settings = self._settings
        self._listeners = await open_listeners(
            settings.hosts, settings.port, settings.backlog, uds=settings.uds, fd=settings.fd
        )
        try:
            self.port = self._listeners.port
            self._control = open_control(
                self._control_setting, self.port, is_temporary=settings.port == 0 and not self._listeners.are_shared
            )
            raise_file_limit(settings.max_connections)
            if self._control:
                self._hub = hub = open_hub(settings, self._topics, self._control, self.port)
                slot, link = hub.add_worker(0)
                self.worker = Worker(
                    self._server,
                    settings,
                    self._handlers,
                    topics=self._topics,
                    routes=self._routes,
                    json=self._json,
                    app=self._app,
                    slot=slot,
                    link=link,
                    registry=hub.registry,
                )
                self.worker.loop.add_reader(hub.fileno(), self._hear)
            else:
                self.worker = Worker(
                    self._server,
                    settings,
                    self._handlers,
                    topics=self._topics,
                    routes=self._routes,
                    json=self._json,
                    app=self._app,
                )
            if settings.metrics_port:
                self._exposition = Exposition(settings.metrics_port, self._measure)
        except BaseException:
            self._close_listeners()
            raise

    async def begin(self) -> None:
        """Start the worker, accept connections, run `start`; return early if `shutdown` is called meanwhile.

        Raises the exception with which the worker could not start, if any, and keeps it in `failure`.
        """
        assert self.worker
        if self._is_to_leave:
            self.worker.leave("stop")
        opening = asyncio.ensure_future(self._begin(self.worker))
        leaving = asyncio.ensure_future(self.worker.is_to_leave.wait())
        try:
            await asyncio.wait({opening, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                self.failure = opening.result()
            if self.failure:
                raise self.failure.error
        except BaseException:
            await self._cancel_handlers(self.worker)
            raise
        finally:
            if opening.done() and not opening.cancelled():
                opening.exception()  # Known already: it is raised here, or has ended the event loop.
            opening.cancel()
            leaving.cancel()

    async def _cancel_handlers(self, worker: Worker) -> None:
        """Cancel running handlers, and give them time to clean up."""
        worker.caller.is_stopping = True
        worker.caller.cancel()
        await worker.caller.until_idle(worker.loop.time() + CANCEL_GRACE)

    async def _begin(self, worker: Worker) -> FailedStart | None:
        """Start the worker, accept connections, run `start`; return why the worker could not start, if so."""
        assert self._listeners
        try:
            failure = await worker.start(self._listeners)
        except BaseException:
            self._close_listeners()
            raise
        if failure:
            self._close_listeners()
            return failure
        tls = " (TLS)" if self._settings.ssl_certfile else ""
        # From here on the hub passes on messages for `pipe_message`.
        worker.reactor.ready()
        log.info("listening on %s%s", self._listeners.where, tls)
        await worker.caller.call("start", self._server)
        return None

    async def until_left(self) -> None:
        """Wait until the server has to stop."""
        assert self.worker
        await self.worker.is_to_leave.wait()

    def shutdown(self) -> None:
        """Ask the server to stop; may be called from any thread."""
        self._is_to_leave = True
        if self.worker:
            self.worker.loop.call_soon_threadsafe(self.worker.leave, "stop")

    def reload(self) -> None:
        """Refuse to reload: this process's own program cannot be loaded again.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("cannot reload a server that runs in one process: restart it instead")

    async def close(self) -> None:
        """Stop gracefully, run the `shutdown` handler, and release everything."""
        try:
            if self.worker:
                if self._listeners:
                    self._listeners.remove_file()
                await self.worker.stop()
                deadline = self.worker.loop.time() + self._settings.shutdown_timeout
                await self.worker.caller.call_until(deadline, "shutdown", self._server)
                log.info("stopped")
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Release everything at once, without a graceful stop; may be called again."""
        self._close_listeners()
        if self._drained:
            self._drained.cancel()
            self._drained = None
        if self._exposition:
            self._measure()
            self._exposition.close()
            self._exposition = None
        with self._measuring:
            worker, self.worker = self.worker, None
        if worker:
            worker.close()
            worker.dispose()
            if self._hub:
                worker.loop.remove_reader(self._hub.fileno())
        if self._control:
            self._control.remove()
        if self._hub:
            self._hub.close()
        self._control = self._hub = None

    def _measure(self) -> dict[str, Any]:
        with self._measuring:
            if self.worker:
                self._measured = self.worker.reactor.metrics()
            assert self._measured
            return self._measured

    def _hear(self) -> None:
        """Handle what concerns a server without worker processes."""
        assert self._hub
        for kind, level, text in self._hub.events():
            if kind == "log":
                log.log(level, "%s", text)
            elif kind == "drain" and self.worker:
                self._drain(self.worker, float(text))

    def _drain(self, worker: Worker, seconds: float) -> None:
        """Send all clients away within this time; then stop."""
        log.info("draining: all clients are sent away within %g s; then the server stops", seconds)
        worker.drain(seconds)
        if self._drained:
            self._drained.cancel()
        self._drained = worker.loop.call_later(seconds, self.shutdown)

    def _close_listeners(self) -> None:
        if self._listeners:
            self._listeners.close()
