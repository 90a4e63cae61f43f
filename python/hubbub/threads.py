"""The pool of threads for `threaded` handlers."""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["Pool"]


class Pool:
    """At most `size` threads, started when needed.

    Unlike those of `concurrent.futures.ThreadPoolExecutor`, they are daemon threads: a handler that blocks forever
    does not keep the process from ending.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pid = os.getpid()
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """Call `job` in a thread of the pool; must be called from one thread only."""
        future: Future[Any] = Future()
        self._jobs.put((future, job))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
            name = f"hubbub-handler-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            future, job = work
            del work
            if future.set_running_or_notify_cancel():
                try:
                    result = self._call(job)
                except BaseException as error:
                    future.set_exception(error)
                    del error
                else:
                    future.set_result(result)
                    del result
            del future, job
            self._idle.release()

    def _call(self, job: Callable[[], Any]) -> Any:
        try:
            return job()
        finally:
            if os.getpid() != self._pid:
                # This is a child forked by the job; it has none of the other threads.
                os._exit(0)
