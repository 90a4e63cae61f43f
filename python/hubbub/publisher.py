"""Send to a running server, and query it, from other processes, through its control socket.

`Publisher` and `AsyncPublisher` differ in how they wait. Both have a `_Line`, which holds the current `_Connection` to
the server and opens a new one when it breaks. Nearly every call can use the connection at once. A call has to wait only
if there is no connection yet, or the server reads more slowly than data is sent.
"""

import asyncio
import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _core, control, listing
from .cluster import Answers, Cluster, Host
from .errors import check_ids, check_seconds, short_number, wrong_type
from .events import ConnectionInfo, Data, Sendable, Stats
from .history import History, Reading
from .jsons import as_text
from .listing import Listing
from .presence import decoded, present

__all__ = ["AsyncPublisher", "Publisher"]

T = TypeVar("T")

Ticket = tuple[int, float]
"""A question's number, and the seconds that the server gives its workers to answer."""
Question = Callable[[_core.Publisher, Ticket, float], None]
"""A function that asks through the core; it gets the ticket, and the seconds to wait for space to send."""

# There may be space to send even if the time is up, so each call gets at least this long to try.
SHORTEST_WAIT = 0.001
# Practically forever; locks cannot wait for an infinite time.
MAX_WAIT = 365 * 24 * 3600.0
# Only the server knows which worker is silent. So that its report arrives in time, it gives the workers less than the
# whole timeout: this part of it is kept for the report, but at most this many seconds.
REPORT_PART, MAX_REPORT = 0.2, 0.5
MAX_PORT = 65535
# The longest time for draining, in seconds.
MAX_DRAIN = 86_400
# The number of a worker that no server has.
NO_WORKER = 255
# Seconds to wait for the reader thread of a connection that has ended.
END_OF_THREAD = 1.0


class _Connection:
    """One connection to the server, and the thread that reads its answers.

    It lives until it breaks or is closed, even if nothing refers to it any more: data may still be on its way.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self.is_broken = False
        self.has_published = False
        self.timeout = timeout
        self.core = _core.Publisher(path, timeout)
        self._answers: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._reader = threading.Thread(target=self._read, name="hubbub-publisher", daemon=True)
        try:
            self._reader.start()
        except RuntimeError:
            # There are too many threads, or the interpreter is shutting down.
            self.core.close()
            raise
        _connections.add(self)
        # A child of multiprocessing does not run atexit functions when it ends, only multiprocessing's finalizers.
        multiprocessing = sys.modules.get("multiprocessing.process")
        if multiprocessing and multiprocessing.parent_process():
            from multiprocessing.util import Finalize

            Finalize(None, _finish_all, exitpriority=0)

    def publish(
        self, topic: str, data: Data, is_json: bool, exclude: tuple[int, ...], key: str | None, wait: float
    ) -> None:
        self.core.publish(topic, data, is_json, exclude, key, wait)
        self.has_published = True

    def broadcast(self, data: Data, exclude: Iterable[int], wait: float) -> None:
        self.core.broadcast(data, exclude, wait)
        self.has_published = True

    def ask(self, question: Question, patience: float, wait: float) -> Future[Any]:
        """Ask, and return a future of the answer. Cancel it if the answer is no longer needed.

        Args:
            question: The function that asks through the core.
            patience: The seconds that the server gives its workers to answer.
            wait: The seconds to wait for space to send.
        """
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        answer.add_done_callback(lambda _: self._answers.pop(number, None))
        try:
            question(self.core, (number, patience), wait)
        except BaseException:
            answer.cancel()
            raise
        return answer

    def finish(self) -> Future[Any]:
        """Close once the server has taken everything sent; return a future that is done then, or fails."""
        taken = self.ask(lambda core, ticket, wait: core.flush(ticket[0]), 0, 0)
        taken.add_done_callback(lambda _: self.core.close())
        return taken

    def wait_until_broken(self) -> None:
        """Wait until the server ends the connection."""
        self._reader.join()

    def end(self) -> None:
        """Close at once."""
        self.core.close()
        self._reader.join(END_OF_THREAD)

    def _read(self) -> None:
        try:
            while True:
                number, value = self.core.next_answer()
                answer = self._answers.get(number)
                if answer and answer.set_running_or_notify_cancel():
                    if isinstance(value, Exception):
                        answer.set_exception(value)
                    else:
                        answer.set_result(value)
        except ConnectionError as error:
            self.is_broken = True
            _connections.discard(self)
            for answer in list(self._answers.values()):
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(ConnectionError(*error.args))


_connections: set[_Connection] = set()


class _Line:
    """The link to one server: holds the current connection, and replaces it when it breaks."""

    later: Future[Any] | None
    """The future of the last `call_later`."""
    _executor: ThreadPoolExecutor | None

    def __init__(self, path: str | os.PathLike[str] | None, port: int, timeout: float) -> None:
        if not isinstance(path, str | bytes | os.PathLike | None):
            raise wrong_type("path", "a str or os.PathLike", path)
        if not isinstance(port, int) or isinstance(port, bool):
            raise wrong_type("port", "an int", port)
        # No server listens on port 0, but that may be what its settings say; with a path it does not matter.
        min_port = 1 if path is None else 0
        if not min_port <= port <= MAX_PORT:
            raise ValueError(f"port must be {min_port} to {MAX_PORT}, not {short_number(port)}")
        self.path = None if path is None else os.fsdecode(path)
        self.port = port
        self.timeout = _checked(timeout)
        self._connection: _Connection | None = None
        self._be_new()
        _lines.add(self)

    def __repr__(self) -> str:
        return f"port {self.port}" if self.path is None else repr(self.path)

    @property
    def current(self) -> _Connection | None:
        """The connection, if there is one."""
        return self._connection

    def deadline(self, timeout: float | None) -> float:
        """Return when a call that starts now must end, by the monotonic clock."""
        return time.monotonic() + (self.timeout if timeout is None else _checked(timeout))

    def report_at(self, deadline: float, timeout: float | None) -> float:
        """Return the time when the server has to name the silent workers, so that its report arrives by a deadline."""
        return deadline - min((self.timeout if timeout is None else timeout) * REPORT_PART, MAX_REPORT)

    def call(self, act: Callable[[_Connection, float], T], deadline: float | None) -> T:
        """Return `act(connection, wait)`; if the connection turns out to be broken, retry once on a new one.

        Raises:
            BlockingIOError: The call would have to wait, and `deadline` is `None`.
            ConnectionError: There is no server.
            TimeoutError: The server has not responded by the deadline.
        """
        connection = self._connected(deadline)
        try:
            return act(connection, _left(deadline))
        except ConnectionError:
            # A call that raises this has sent nothing, so it can be repeated.
            connection.is_broken = True
        return act(self._connected(deadline), _left(deadline))

    def call_later(self, act: Callable[[_Connection, float], T], deadline: float) -> Future[T]:
        """Run `call` in a worker thread, after those submitted before; must be called from one thread only."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hubbub-publisher")
        later = self.later = self._executor.submit(self.call, act, deadline)
        return later

    def finish(self) -> Future[Any] | None:
        """Release the connection.

        Returns:
            A future that is done once the server has taken everything published; `None` if nothing was published.

        Raises:
            ConnectionError: The connection is broken, and published messages may not have arrived.
        """
        connection, self._connection = self._connection, None
        executor, self._executor = self._executor, None
        if executor:
            executor.shutdown(wait=False)
        if connection is None:
            return None
        if connection.has_published:
            return connection.finish()
        connection.core.close()
        return None

    def no_answer(self) -> TimeoutError:
        """Return the error for a question that was not answered in time."""
        return TimeoutError(f"the server at {self} did not answer in time")

    def forget(self) -> None:
        """Reset to the initial state, in a forked child."""
        self._connection = None
        self._be_new()

    def _be_new(self) -> None:
        self._lock = threading.Lock()
        self._executor = None
        self.later = None

    def _connected(self, deadline: float | None) -> _Connection:
        connection = self._connection
        if connection and not connection.is_broken:
            return connection
        if deadline is None:
            raise BlockingIOError
        if not self._lock.acquire(timeout=_left(deadline)):
            raise TimeoutError(f"cannot reach the server at {self}: another thread is still trying")
        try:
            # Another thread may have connected meanwhile.
            if self._connection is None or self._connection.is_broken:
                path = control.path_for(self.port) if self.path is None else self.path
                self._connection = _Connection(path, _left(deadline))
            return self._connection
        finally:
            self._lock.release()


_lines: "weakref.WeakSet[_Line]" = weakref.WeakSet()


def _checked(timeout: float) -> float:
    """Check a timeout in seconds, and return it limited to `MAX_WAIT`.

    Raises:
        TypeError: The timeout is not a number.
        ValueError: The timeout is not above 0.
    """
    check_seconds("timeout", timeout)
    if not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, not {short_number(timeout)}")
    return min(timeout, MAX_WAIT)


def _left(deadline: float | None) -> float:
    """Return the seconds left; 0 only if there is no deadline, for calls that do not wait."""
    return 0 if deadline is None else max(deadline - time.monotonic(), SHORTEST_WAIT)


def _let_go(line: _Line) -> None:
    """Finish the link of a publisher that was garbage-collected, without waiting."""
    with contextlib.suppress(ConnectionError):
        line.finish()


class _Sender:
    """The common base of `Publisher` and `AsyncPublisher`."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, port: int = 9501, timeout: float = 5.0) -> None:
        """Name the server; for the arguments see `Publisher`. The first call, or `with`, connects to it."""
        self._line = _Line(path, port, timeout)
        weakref.finalize(self, _let_go, self._line).atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._line}>"

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        # Unpickled in another process, it is a publisher to the same server, with a connection of its own.
        return partial(type(self), self._line.path, port=self._line.port, timeout=self._line.timeout), ()


class Publisher(_Sender):
    """Sends to a running server's connections, and asks about them, from another process of the same user.

    A publisher may be used from any thread and after a fork, and reconnects after the server has been restarted. The
    calls of one thread, in any mix, reach any one connection in the order in which they were made. Messages that the
    server has not delivered when it ends are lost.

    `with Publisher(…) as hub:` connects at once, and closes at the end of its block. Every method raises
    `ConnectionError`, whose message names the socket, if there is no server or it ended before it answered; and
    `TimeoutError` if the server does not respond within `timeout` seconds (the call's own `timeout`, or else the
    publisher's). The message of a `TimeoutError` names the workers that did not answer; if the server itself is silent,
    the error comes up to a second later.

    Args:
        path: The server's control socket; if omitted, the socket for `port`.
        port: The port of a server of the same user on this host with `control="auto"`.
        timeout: The seconds that a call waits for the server, unless the call has its own `timeout`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `timeout` is not above 0, or `port` is not in 1 to 65535.
    """

    def push(self, fd: int, data: Sendable, opcode: int | None = None, *, timeout: float | None = None) -> bool:
        """Send one message to the connection `fd`, and wait for the answer of the worker that owns it.

        Args:
            fd: The connection's id.
            data: `str` is sent as a text message, bytes-like as a binary message (RFC 6455 §5.6), a `dict` or `list` as
                JSON text, by the standard library's `json`.
            opcode: Overrides that choice: text or binary.

        Returns:
            `True` if the message was queued; `False` if there is no such open connection, or its outbox is full.

        Raises:
            TypeError: `data` is of another type or cannot be encoded as JSON, or `fd` is not an `int`.
            ValueError: `opcode` is neither of these, a text message is not UTF-8, or the message is longer than the
                server's `send_queue_size`.
        """
        content = as_text(data)
        return bool(self._ask(lambda core, ticket, wait: core.push(ticket, fd, content, opcode, wait), timeout))

    def disconnect(self, fd: int, code: int = 1000, reason: str = "", *, timeout: float | None = None) -> bool:
        """Start the closing handshake with the connection `fd` (RFC 6455 §7.1.2), after the messages sent before.

        Args:
            fd: The connection's id.
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: At most 123 bytes of UTF-8.

        Returns:
            `True` if the closing handshake has begun; `False` if there is no such open connection.

        Raises:
            TypeError: `fd` or `code` is not an `int`, or `reason` is not a `str`.
            ValueError: The code may not be sent, or the reason is too long.
        """
        return bool(self._ask(lambda core, ticket, wait: core.disconnect(ticket, fd, code, reason, wait), timeout))

    def publish(
        self,
        topic: str,
        data: Sendable,
        *,
        exclude: Iterable[int] = (),
        key: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send one message to every subscriber of a topic, except the ids in `exclude`.

        The message is on its way when this returns; the server does not confirm it. The call waits only while the
        server reads more slowly than data is sent. A message that follows another at once may be held for about 0.1 ms,
        so that the messages of a loop are sent together.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            data: `str` is sent as a text message, bytes-like as a binary message, a `dict` or `list` as JSON text.
            exclude: Ids of subscribers that should not get the message.
            key: As in `Server.publish`: at most 255 bytes of UTF-8.

        Raises:
            TypeError: `topic` or `key` is not a `str`, `data` is of another type or cannot be encoded as JSON, an id is
                not an `int`, or `data` is bytes-like and the topic has envelopes.
            ValueError: The topic is empty or longer than 255 bytes, `key` is too long, or the message is longer than
                `send_queue_size`.
        """
        content, is_json, ids = as_text(data), isinstance(data, (dict, list)), check_ids(exclude)
        self._call(lambda connection, wait: connection.publish(topic, content, is_json, ids, key, wait), timeout)

    def broadcast(self, data: Sendable, *, exclude: Iterable[int] = (), timeout: float | None = None) -> None:
        """Send one message to every open WebSocket of the server, except the ids in `exclude`; see `publish`.

        Raises:
            TypeError: `data` is of another type or cannot be encoded as JSON, or an id is not an `int`.
            ValueError: The message is longer than `send_queue_size`.
        """
        ids, content = check_ids(exclude), as_text(data)
        self._call(lambda connection, wait: connection.broadcast(content, ids, wait), timeout)

    def send_message(self, data: str | bytes, worker_id: int, *, timeout: float | None = None) -> None:
        """Run `pipe_message` in a worker, with `data`, and with `None` as the number of the sending worker.

        Returns once the server has accepted the message and passed it on; the handler runs later. Messages from one
        thread to one worker arrive in the order of the calls. As with `Server.send_message`, messages to a worker that
        has just died, or does not keep up, are lost, and counted as `commands_dropped`.

        Args:
            data: Arrives unchanged, as `str` or `bytes`; at most 32 MiB.
            worker_id: The receiving worker: 0 or above, below the number of workers.

        Raises:
            TypeError: `data` is neither `str` nor `bytes`, or `worker_id` is not an `int`.
            ValueError: There is no such worker, or `data` is too long.
        """
        _check_sent(self._ask(_sending(data, worker_id), timeout), worker_id)

    def subscribers(self, topic: str, *, timeout: float | None = None) -> int:
        """Count the connections that are subscribed to a topic.

        Raises:
            TypeError: `topic` is not a `str`.
            ValueError: The topic is empty or longer than 255 bytes.
        """
        return int(self._ask(lambda core, ticket, wait: core.subscribers(ticket, topic, wait), timeout))

    def topics(self, *, prefix: str = "", limit: int = 1000, timeout: float | None = None) -> dict[str, int]:
        """Return the topics that have subscribers, with their numbers of subscribers; see `Server.topics`.

        A long list needs several questions, and `timeout` applies to each of them.

        Args:
            prefix: Return only topics whose names begin with this, at most 255 bytes of UTF-8.
            limit: The largest number of topics to return, 1 or above.

        Raises:
            TypeError: `prefix` is not a `str`, or `limit` is not an `int`.
            ValueError: `prefix` is too long, or `limit` is below 1.
            RuntimeError: Too many questions are waiting for answers.
        """
        return dict(self._list_topics(listing.topics(limit), prefix, timeout).entries)

    def _list_topics(
        self, found: Listing[str, tuple[str, int]], prefix: str, timeout: float | None = None
    ) -> Listing[str, tuple[str, int]]:
        """Fill a list."""
        while found.wanted:
            found.add(self._ask(partial(_ask_topics, prefix, found.after, found.wanted), timeout))
        return found

    def members(self, topic: str, *, limit: int = 1000, timeout: float | None = None) -> list[int]:
        """Return the ids of the connections that are subscribed to a topic, in ascending order.

        A long list needs several questions, and `timeout` applies to each of them.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of ids to return, 1 or above.

        Raises:
            TypeError: `topic` is not a `str`, or `limit` is not an `int`.
            ValueError: The topic is empty or longer than 255 bytes, or `limit` is below 1.
            RuntimeError: Too many questions are waiting for answers.
        """
        return self._list_members(listing.members(limit), topic, timeout).entries

    def _list_members(self, found: Listing[int, int], topic: str, timeout: float | None = None) -> Listing[int, int]:
        """Fill a list."""
        while found.wanted:
            found.add(self._ask(partial(_ask_members, topic, found.after, found.wanted), timeout))
        return found

    def history(
        self,
        topic: str,
        *,
        limit: int = 100,
        since: object = None,
        newest_first: bool = False,
        timeout: float | None = None,
    ) -> History:
        """Return messages that a topic with history keeps; see `Server.history`.

        `Message.json` decodes with the standard library's `json`. A long list needs several questions, and `timeout`
        applies to each of them.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of messages to return, 1 or above.
            since: Return only messages after this `Position` (or `[epoch, offset]`), if it is one of this topic.
            newest_first: Begin with the newest message instead of the oldest.

        Raises:
            TypeError: `topic` is not a `str`, `limit` is not an `int`, or `newest_first` is not a `bool`.
            ValueError: The topic is empty or longer than 255 bytes, or `limit` is below 1.
            RuntimeError: Too many questions are waiting for answers.
        """
        return self._read(Reading(limit, since, newest_first=newest_first), topic, timeout).result()

    def _read(self, found: Reading, topic: str, timeout: float | None = None) -> Reading:
        """Read a history."""
        while found.wanted:
            found.add(self._ask(_asking_history(topic, found), timeout))
        return found

    def presence(self, topic: str, *, limit: int = 1000, timeout: float | None = None) -> dict[int, Any]:
        """Return who is subscribed to a topic with presence, with the `info` of each; see `Server.presence`.

        A long list needs several questions, and `timeout` applies to each of them.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of members to return, 1 or above.

        Raises:
            TypeError: `topic` is not a `str`, or `limit` is not an `int`.
            ValueError: The topic is empty or longer than 255 bytes, or `limit` is below 1.
            RuntimeError: Too many questions are waiting for answers.
        """
        found = present(limit)
        while found.wanted:
            found.add(self._ask(partial(_ask_presence, topic, found.after, found.wanted), timeout))
        return {fd: decoded(info) for fd, info in found.entries}

    def connections(self, *, timeout: float | None = None) -> list[int]:
        """Return the ids of all open WebSockets."""
        return list(self._ask(lambda core, ticket, wait: core.connections(ticket, wait), timeout))

    def info(self, fd: int, *, timeout: float | None = None) -> ConnectionInfo | None:
        """Return what the server knows about a connection; `None` if there is no such connection."""
        return _as_info(self._ask(lambda core, ticket, wait: core.info(ticket, fd, wait), timeout))

    def stats(self, *, timeout: float | None = None) -> Stats:
        """Return the result of the server's `Server.stats`."""
        stats: Stats = self._ask(lambda core, ticket, wait: core.stats(ticket, wait), timeout)
        return stats

    def hosts(self, *, timeout: float | None = None) -> list[Host]:
        """Return the hosts that are alive, in the order of their numbers; see `Server.hosts`."""
        return _as_hosts(self._ask(lambda core, ticket, wait: core.hosts(ticket, wait), timeout))

    def drain(self, seconds: float = 30.0, *, timeout: float | None = None) -> None:
        """Have the server send its clients away, and stop.

        From now on handshakes get 503 with Retry-After, and so does `health_path`, so that load balancers choose other
        servers. All connections are closed with 1012, one after the other, evenly spread over `seconds`: so their
        clients come back, to other servers, one after the other too. After that time the server stops gracefully.
        Returns as soon as this has begun. Another call begins anew with its own time.

        Args:
            seconds: The time for all connections together, 0 to 86,400. The server stops only after this time, even if
                it has no connections: load balancers need a while to notice.

        Raises:
            TypeError: `seconds` is not a number.
            ValueError: `seconds` is out of range.
        """
        self._ask(_draining(seconds), timeout)

    def _wait_until_stopped(self) -> None:
        """Wait until the server ends the connection that this publisher has, if it has one."""
        if connection := self._line.current:
            connection.wait_until_broken()

    def close(self) -> None:
        """Wait until the server has taken everything published, then disconnect. A later call connects again.

        Raises:
            ConnectionError: The server ended first, and published messages may not have arrived.
        """
        if taken := self._line.finish():
            self._wait(taken, self._line.deadline(None))

    def __enter__(self) -> Self:
        self._call(lambda connection, wait: None, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _unless(error):
            self.close()

    def _call(self, act: Callable[[_Connection, float], T], timeout: float | None) -> T:
        if timeout is not None:
            # Check it even if the call turns out not to wait.
            timeout = _checked(timeout)
        try:
            return self._line.call(act, None)
        except BlockingIOError:
            return self._line.call(act, self._line.deadline(timeout))

    def _ask(self, question: Question, timeout: float | None) -> Any:
        deadline = self._line.deadline(timeout)
        answer = self._line.call(partial(_ask_by, question, self._line.report_at(deadline, timeout)), deadline)
        return self._wait(answer, deadline)

    def _wait(self, answer: Future[T], deadline: float) -> T:
        try:
            return answer.result(_left(deadline))
        except TimeoutError:
            if answer.cancel():
                raise self._line.no_answer() from None
            return answer.result()


class AsyncPublisher(_Sender):
    """A `Publisher` for asyncio: its methods are awaited, and never block the event loop; see `Publisher`.

    It takes the same arguments. Each call waits at most `timeout` seconds for the server.

    The calls reach any one connection in the order in which they were started. A call that is cancelled
    (`asyncio.timeout`) may or may not have been sent; other calls are not affected.
    """

    async def push(self, fd: int, data: Sendable, opcode: int | None = None) -> bool:
        """See `Publisher.push`."""
        content = as_text(data)
        return bool(await self._ask(lambda core, ticket, wait: core.push(ticket, fd, content, opcode, wait)))

    async def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """See `Publisher.disconnect`."""
        return bool(await self._ask(lambda core, ticket, wait: core.disconnect(ticket, fd, code, reason, wait)))

    async def publish(self, topic: str, data: Sendable, *, exclude: Iterable[int] = (), key: str | None = None) -> None:
        """See `Publisher.publish`."""
        content, is_json, ids = as_text(data), isinstance(data, (dict, list)), check_ids(exclude)
        await self._call(lambda connection, wait: connection.publish(topic, content, is_json, ids, key, wait))

    async def broadcast(self, data: Sendable, *, exclude: Iterable[int] = ()) -> None:
        """See `Publisher.broadcast`."""
        ids, content = check_ids(exclude), as_text(data)
        await self._call(lambda connection, wait: connection.broadcast(content, ids, wait))

    async def send_message(self, data: str | bytes, worker_id: int) -> None:
        """See `Publisher.send_message`."""
        _check_sent(await self._ask(_sending(data, worker_id)), worker_id)

    async def subscribers(self, topic: str) -> int:
        """See `Publisher.subscribers`."""
        return int(await self._ask(lambda core, ticket, wait: core.subscribers(ticket, topic, wait)))

    async def topics(self, *, prefix: str = "", limit: int = 1000) -> dict[str, int]:
        """See `Publisher.topics`."""
        found = listing.topics(limit)
        while found.wanted:
            found.add(await self._ask(partial(_ask_topics, prefix, found.after, found.wanted)))
        return dict(found.entries)

    async def members(self, topic: str, *, limit: int = 1000) -> list[int]:
        """See `Publisher.members`."""
        found = listing.members(limit)
        while found.wanted:
            found.add(await self._ask(partial(_ask_members, topic, found.after, found.wanted)))
        return found.entries

    async def history(
        self, topic: str, *, limit: int = 100, since: object = None, newest_first: bool = False
    ) -> History:
        """See `Publisher.history`."""
        found = Reading(limit, since, newest_first=newest_first)
        while found.wanted:
            found.add(await self._ask(_asking_history(topic, found)))
        return found.result()

    async def presence(self, topic: str, *, limit: int = 1000) -> dict[int, Any]:
        """See `Publisher.presence`."""
        found = present(limit)
        while found.wanted:
            found.add(await self._ask(partial(_ask_presence, topic, found.after, found.wanted)))
        return {fd: decoded(info) for fd, info in found.entries}

    async def connections(self) -> list[int]:
        """See `Publisher.connections`."""
        return list(await self._ask(lambda core, ticket, wait: core.connections(ticket, wait)))

    async def info(self, fd: int) -> ConnectionInfo | None:
        """See `Publisher.info`."""
        return _as_info(await self._ask(lambda core, ticket, wait: core.info(ticket, fd, wait)))

    async def stats(self) -> Stats:
        """See `Publisher.stats`."""
        stats: Stats = await self._ask(lambda core, ticket, wait: core.stats(ticket, wait))
        return stats

    async def hosts(self) -> list[Host]:
        """See `Publisher.hosts`."""
        return _as_hosts(await self._ask(lambda core, ticket, wait: core.hosts(ticket, wait)))

    @property
    def _cluster(self) -> Cluster:
        """All hosts together; see `Server.cluster`."""
        return Cluster(self._ask_hosts)

    async def _ask_hosts(self, what: str, **arguments: Any) -> Answers:
        def question(core: _core.Publisher, ticket: Ticket, wait: float) -> None:
            core.ask_everywhere(ticket, what, wait, **arguments)

        answers: Answers = await self._ask(question)
        return answers

    async def drain(self, seconds: float = 30.0) -> None:
        """See `Publisher.drain`."""
        await self._ask(_draining(seconds))

    async def close(self) -> None:
        """See `Publisher.close`."""
        deadline = self._line.deadline(None)
        if later := self._line.later:
            # Its result or error goes to the caller that waits for it.
            with contextlib.suppress(Exception):
                await asyncio.shield(asyncio.wrap_future(later))
        if taken := self._line.finish():
            await self._wait(taken, deadline)

    async def __aenter__(self) -> Self:
        await self._call(lambda connection, wait: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _unless(error):
            await self.close()

    async def _call(self, act: Callable[[_Connection, float], T]) -> T:
        # A call made after one that waits must wait too, or it would overtake it.
        if self._line.later is None or self._line.later.done():
            try:
                return self._line.call(act, None)
            except BlockingIOError:
                pass
        later = self._line.call_later(act, self._line.deadline(None))
        # A cancelled call still runs, so that once `later` is done, all calls before it are done too.
        return await asyncio.shield(asyncio.wrap_future(later))

    async def _ask(self, question: Question) -> Any:
        deadline = self._line.deadline(None)
        answer = await self._call(partial(_ask_by, question, self._line.report_at(deadline, None)))
        return await self._wait(answer, deadline)

    async def _wait(self, answer: Future[T], deadline: float) -> T:
        try:
            async with asyncio.timeout(_left(deadline)):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            if answer.cancelled():
                raise self._line.no_answer() from None
            raise


def _ask_by(question: Question, report_at: float, connection: _Connection, wait: float) -> Future[Any]:
    """Ask, and have the server name the workers that are still silent at `report_at`."""
    return connection.ask(question, _left(report_at), wait)


def _sending(data: str | bytes, worker_id: int) -> Question:
    """Return the question that sends a message to a worker; see `_check_sent` for its answer."""
    if not isinstance(worker_id, int) or isinstance(worker_id, bool):
        raise wrong_type("worker_id", "an int", worker_id)
    # The server has fewer workers than this, and says how many.
    to = worker_id if 0 <= worker_id < NO_WORKER else NO_WORKER
    return lambda core, ticket, wait: core.send_message(ticket, data, to, wait)


def _draining(seconds: float) -> Question:
    """Return the question that drains the server."""
    check_seconds("seconds", seconds)
    if not 0 <= seconds <= MAX_DRAIN:
        raise ValueError(f"seconds must be 0 to {MAX_DRAIN:,}, not {short_number(seconds)}")
    return lambda core, ticket, wait: core.drain(ticket, seconds, wait)


def _check_sent(answer: bool | int, worker_id: int) -> None:
    if answer is not True:
        raise ValueError(f"there is no worker {short_number(worker_id)}; the workers are 0 to {answer - 1}")


def _ask_topics(prefix: str, after: str, count: int, core: _core.Publisher, ticket: Ticket, wait: float) -> None:
    """Ask for a page of topics."""
    core.topics(ticket, prefix, after, count, wait)


def _ask_members(topic: str, after: int, count: int, core: _core.Publisher, ticket: Ticket, wait: float) -> None:
    """Ask for a page of ids."""
    core.members(ticket, topic, after, count, wait)


def _ask_presence(topic: str, after: int, count: int, core: _core.Publisher, ticket: Ticket, wait: float) -> None:
    """Ask for a page of members."""
    core.presence(ticket, topic, after, count, wait)


def _asking_history(topic: str, found: Reading) -> Question:
    """Return the question for the next page of a history."""
    after, before, count, newest_first = found.after, found.before, found.wanted, found.newest_first
    return lambda core, ticket, wait: core.history(ticket, topic, after, before, count, newest_first, wait)


def _as_info(values: Any) -> ConnectionInfo | None:
    """Convert the core's answer to the type that users see."""
    return None if values is None else ConnectionInfo(*values)


def _as_hosts(values: Any) -> list[Host]:
    """Convert the core's answer to the type that users see."""
    return [Host(*each) for each in values]


def _unless(error: BaseException | None) -> contextlib.AbstractContextManager[None]:
    """Suppress errors of closing if another error ends the block: it says more, and may have caused them."""
    return contextlib.suppress(*(() if error is None else (ConnectionError, TimeoutError)))


def _finish_all() -> None:
    """Before this process ends, wait until servers have taken everything it has sent."""
    ending = list(_connections)
    finishing = []
    for connection in ending:
        with contextlib.suppress(ConnectionError):
            finishing.append(connection.finish())
    wait_for_futures(finishing, max((connection.timeout for connection in ending), default=0))
    for connection in ending:
        connection.end()


def _after_fork() -> None:
    # The connections are the parent's. Its threads, which may have held any lock, do not exist in the child.
    for connection in _connections:
        connection.core.abandon()
    _connections.clear()
    for line in list(_lines):
        line.forget()


atexit.register(_finish_all)
os.register_at_fork(after_in_child=_after_fork)
