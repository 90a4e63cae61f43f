"""Log lines about clients: each request in the access log, and refused clients in the server's log."""

import asyncio
import logging
import time

from .logs import Throttle, shown, shown_client
from .requests import Request

__all__ = ["Visitors"]

log = logging.getLogger("hubbub")
access = logging.getLogger("hubbub.access")

# Refusals that are logged in one interval.
REFUSALS = 10


class Visitors:
    """Logs the requests to one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, access_log: bool) -> None:
        """Create the log of one worker.

        Args:
            loop: The worker's event loop.
            access_log: The setting of that name.
        """
        self._logs_access = access_log
        # Unanswered requests and when they arrived, by the token of the answer; empty without an access log.
        self._asked: dict[int, tuple[Request, float]] = {}
        self._throttle = Throttle(loop, REFUSALS, lambda others: log.warning("... and refused %d more", others))

    def asked(self, token: int, request: Request) -> None:
        """Record a handshake or another request."""
        if self._logs_access:
            self._asked[token] = request, time.perf_counter()

    def answered(self, token: int, status: int, sent: int = 0) -> None:
        """Log that a request was answered with `status` and a body of `sent` bytes."""
        self._ended(token, status, sent)

    def hung_up(self, token: int) -> None:
        """Log that the client disconnected before it was answered."""
        self._ended(token, None, 0)

    def _ended(self, token: int, status: int | None, sent: int) -> None:
        if asked := self._asked.pop(token, None):
            request, begin = asked
            sent = 0 if request.method == "HEAD" else sent
            milliseconds = (time.perf_counter() - begin) * 1000
            _log_access(shown_client(request.client), request, status, sent, f"{milliseconds:.1f} ms")

    def left(self, token: int) -> None:
        """Forget a request whose client is gone, or was refused by the reactor, which reports that itself."""
        self._asked.pop(token, None)

    def refused(self, request: Request, what: str) -> None:
        """Log that a client was refused; `what` describes the answer."""
        self._tell(shown_client(request.client), request, what)

    @property
    def wants_details(self) -> bool:
        """Whether `turned_away` would log the request; if not, the reactor need not parse it."""
        return self._logs_access or not self._throttle.is_full

    def turned_away(
        self, client: tuple[str, int], request: Request | None, status: int | None, reason: str, sent: int, others: int
    ) -> None:
        """Log that the reactor refused a client.

        Args:
            client: The address of the socket's peer.
            request: The request, if it could be read and `wants_details` was true.
            status: The status of the answer, if there was one.
            reason: The reason for the refusal.
            sent: The number of bytes of the answer's body.
            others: The number of further refusals without details.
        """
        shown_as = shown_client(request.client if request else client)
        self._tell(shown_as, request, reason if status is None else f"{status} {reason}")
        self._throttle.count(others)
        if self._logs_access:
            _log_access(shown_as, request, status, sent, "-")

    def close(self) -> None:
        """Log what is still pending."""
        self._throttle.close()

    def _tell(self, client: str, request: Request | None, what: str) -> None:
        if not self._throttle.passes():
            return
        # Leave out the query, which may contain secrets that must not be logged.
        asked = f" {shown(f'{request.method} {request._parts.target_path}')}" if request else ""
        origin = f" (origin {shown(request.origin)})" if request and request.origin else ""
        log.warning("refused %s%s: %s%s", client, asked, shown(what), origin)


def _log_access(client: str, request: Request | None, status: int | None, sent: int, duration: str) -> None:
    if request is None:
        asked = origin = agent = "-"
    else:
        query = f"?{request.query_string}" if request.query_string else ""
        asked = shown(f"{request.method} {request._parts.target_path}{query}")
        origin = shown(request.origin or "-")
        agent = shown(request.headers.get("user-agent", "-"))
    access.info('%s "%s" %s %d %s "%s" "%s"', client, asked, status or "-", sent, duration, origin, agent)
