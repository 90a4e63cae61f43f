"""A server in the process of the test, and in its event loop."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator
from typing import Any

from application import Application, Job, Note, new_server
from running import Log, Notes, Running


class Embedded:
    """A server in the running event loop."""

    workers = 1

    def __init__(self, settings: dict[str, Any]) -> None:
        self.notes = Notes()
        self.log = Log()
        self.note = Note(self._tell)
        self.server = new_server(self.note, settings)
        self._loop = asyncio.get_running_loop()
        self._stack = contextlib.AsyncExitStack()

    @property
    def port(self) -> int:
        return self.server.port

    async def start(self) -> None:
        handler = _Handler(self.log, self._loop)
        logging.getLogger().addHandler(handler)
        self._stack.callback(logging.getLogger().removeHandler, handler)
        await self._stack.enter_async_context(self.server)

    async def run(self, worker_id: int, job: Job) -> Any:
        # Let earlier requests take effect first, as they do before a call from another process.
        await asyncio.sleep(0)
        result = job(self.server, self.note)
        return await result if inspect.isawaitable(result) else result

    async def stop(self) -> None:
        await self._stack.aclose()

    def _tell(self, values: tuple[Any, ...]) -> None:
        self._loop.call_soon_threadsafe(self.notes.add, values)


@contextlib.asynccontextmanager
async def serve_embedded(application: Application, settings: dict[str, Any]) -> AsyncIterator[Running]:
    """Serve here. The event loop must not report any error outside the handlers."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    embedded = Embedded(settings)
    application(embedded.server, embedded.note)
    try:
        await embedded.start()
        yield Running(embedded)
    finally:
        await embedded.stop()
    assert failures == [], failures


class _Handler(logging.Handler):
    """Adds to a `Log`."""

    def __init__(self, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._log = log
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._log.add, self.format(record) + "\n")
