"""A worker process: a master has run the program again, and it has reached its `start()`."""

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NoReturn

from . import program
from .asgi.application import Application
from .certificates import check_certificates
from .endpoints import Route
from .errors import SettingsError
from .event_loop import Selector, new_event_loop
from .handlers import Handler
from .jsons import Json
from .listening import raise_file_limit
from .program import Assignment
from .settings import Settings
from .terminal import discard_lost_output
from .topic_options import TopicOptions
from .worker import Worker

__all__ = ["WorkerProcess"]

log = logging.getLogger("hubbub")


class WorkerProcess:
    """This process's worker, linked to the master's hub."""

    def __init__(
        self,
        server: object,
        settings: Settings,
        topics: Sequence[TopicOptions],
        handlers: Mapping[str, Handler],
        routes: Sequence[Route],
        json: Json,
        app: Application | None,
        assignment: Assignment,
        entered: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        """Create it; `run` serves.

        Args:
            server: Passed to handlers as `server`.
            settings: The master's settings.
            topics: The master's options of topics.
            handlers: The handlers, by event.
            routes: The endpoints.
            json: Encodes what is sent, and decodes what is received.
            app: The ASGI application, if there is one.
            assignment: The master's assignment for this process.
            entered: Called as soon as there is a `worker`.
            left: Called when it has stopped serving; threads of the program may continue.
        """
        self.port = assignment.port
        self.worker: Worker | None = None
        self._server = server
        self._settings = settings
        self._topics = topics
        self._handlers = handlers
        self._routes = routes
        self._json = json
        self._app = app
        self._assignment = assignment
        # Requests to the master, in the order of the calls; until there is a worker, they wait here.
        self._asked: deque[str] = deque()
        self._entered = entered
        self._left = left

    def run(self) -> NoReturn:
        """Serve until the master stops this worker or a handler raises SystemExit; then end the process."""
        raise_file_limit()
        try:
            # The master has checked it too, but this worker may start much later.
            check_certificates(self._settings)
        except SettingsError as error:
            program.leave(SystemExit(f"hubbub: {error}"))
        # The program may have installed its own signal handlers meanwhile.
        program.leave_signals_to_master()
        try:
            with program.titled(f"worker {self._assignment.worker_id}", self._assignment.title):
                self._run_event_loop()
        except BaseException as error:
            program.leave(error)
        program.leave()

    def _run_event_loop(self) -> None:
        loop, selector = new_event_loop()
        # `asyncio.run` does this for the event loops that it creates itself.
        asyncio.set_event_loop(loop)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(selector))

    def shutdown(self) -> None:
        """Ask the master to stop the server; may be called from any thread."""
        self._ask("shutdown")

    def reload(self) -> None:
        """Ask the master to replace all workers; may be called from any thread."""
        self._ask("reload")

    def _ask(self, what: str) -> None:
        self._asked.append(what)
        # If the event loop is closed, this worker has left already.
        with contextlib.suppress(RuntimeError):
            if self.worker:
                self.worker.loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        assert self.worker
        while self._asked:
            self.worker.reactor.ask(self._asked.popleft())

    async def _serve(self, selector: Selector | None) -> None:
        assignment = self._assignment
        worker = self.worker = Worker(
            self._server,
            self._settings,
            self._handlers,
            assignment.worker_id,
            topics=self._topics,
            routes=self._routes,
            json=self._json,
            app=self._app,
            workers=assignment.workers,
            slot=assignment.slot,
            link=assignment.link,
            registry=assignment.registry,
            selector=selector,
        )
        program.has_become_worker()
        self._entered()
        self._pass_on()
        try:
            await self._start(worker)
            with program.handling_signals({signal.SIGTERM: self._on_terminate}):
                worker.reactor.ready()
                await worker.is_to_leave.wait()
                # The server may be stopping because the terminal was closed, which this process may not notice.
                discard_lost_output()
                await worker.stop()
        except BaseException:
            worker.close()
            raise
        finally:
            self._left()
            worker.dispose()

    async def _start(self, worker: Worker) -> None:
        """Start the worker; if that fails, end this process, so that the master sees a failed start."""
        if failure := await worker.start(None):
            failure.log()
            raise SystemExit(1)
        if self._settings.max_requests is not None:
            worker.renew_after(self._settings.max_requests)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        # Tell the hub at once, even while a handler blocks the event loop: it then passes on no more connections.
        assert self.worker
        self.worker.reactor.ask_to_leave()
