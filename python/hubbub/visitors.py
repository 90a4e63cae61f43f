"""Telling of clients: who came, in the access log; who was turned away, in the log of the server."""

import asyncio
import logging
import time

from .events import Request
from .logs import Throttle, shown, shown_client

__all__ = ["Visitors"]

log = logging.getLogger("hubbub")
access = logging.getLogger("hubbub.access")

# Lines of refusals in an interval.
REFUSALS = 10


class Visitors:
    """The lines about those who ask one worker for something."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, access_log: bool) -> None:
        """Make it.

        Args:
            loop: The worker's event loop.
            access_log: The setting of that name.
        """
        self._logs_access = access_log
        # What was asked, and when, by the token of its answer; empty without an access log.
        self._asked: dict[int, tuple[Request, float]] = {}
        self._throttle = Throttle(loop, REFUSALS, lambda others: log.warning("... and refused %d more", others))

    def asked(self, token: int, request: Request) -> None:
        """Somebody asks for a WebSocket, or for something else."""
        if self._logs_access:
            self._asked[token] = request, time.perf_counter()

    def answered(self, token: int, status: int, sent: int = 0) -> None:
        """Whoever has asked was given that answer, with so many bytes of a body."""
        self._ended(token, status, sent)

    def hung_up(self, token: int) -> None:
        """Whoever has asked had hung up before there was an answer."""
        self._ended(token, None, 0)

    def _ended(self, token: int, status: int | None, sent: int) -> None:
        if asked := self._asked.pop(token, None):
            request, begin = asked
            sent = 0 if request.method == "HEAD" else sent
            milliseconds = (time.perf_counter() - begin) * 1000
            _log_access(shown_client(request.client), request, status, sent, f"{milliseconds:.1f} ms")

    def left(self, token: int) -> None:
        """Whoever has asked is gone, or was turned away by the reactor, which tells of it."""
        self._asked.pop(token, None)

    def refused(self, request: Request, what: str) -> None:
        """The `handshake` handler has refused a handshake; `what` is what the client was told."""
        self._tell(shown_client(request.client), request, what)

    @property
    def wants_details(self) -> bool:
        """Whether `turned_away` would tell what was asked for: else nobody need find that out."""
        return self._logs_access or not self._throttle.is_full

    def turned_away(
        self, client: tuple[str, int], request: Request | None, status: int | None, reason: str, sent: int, others: int
    ) -> None:
        """The reactor has turned somebody away.

        Args:
            client: The peer of the socket.
            request: What was asked for, if that could be read and somebody wants to know.
            status: Of the answer, if there was one.
            reason: Why.
            sent: Bytes of the answer's body.
            others: How many more there were that nothing is known of.
        """
        shown_as = shown_client(request.client if request else client)
        self._tell(shown_as, request, reason if status is None else f"{status} {reason}")
        self._throttle.count(others)
        if self._logs_access:
            _log_access(shown_as, request, status, sent, "-")

    def close(self) -> None:
        """Tell what is left to be told."""
        self._throttle.close()

    def _tell(self, client: str, request: Request | None, what: str) -> None:
        if not self._throttle.passes():
            return
        # Without the query, which may carry what must not be in a log.
        asked = f" {shown(f'{request.method} {request._target_path}')}" if request else ""
        origin = f" (origin {shown(request.origin)})" if request and request.origin else ""
        log.warning("refused %s%s: %s%s", client, asked, shown(what), origin)


def _log_access(client: str, request: Request | None, status: int | None, sent: int, duration: str) -> None:
    if request is None:
        asked = origin = agent = "-"
    else:
        query = f"?{request.query_string}" if request.query_string else ""
        asked = shown(f"{request.method} {request._target_path}{query}")
        origin = shown(request.origin or "-")
        agent = shown(request.headers.get("user-agent", "-"))
    access.info('%s "%s" %s %d %s "%s" "%s"', client, asked, status or "-", sent, duration, origin, agent)
