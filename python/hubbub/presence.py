"""Who is subscribed to a topic with presence: the `info` about each member, and the handlers of `join` and `leave`."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from .jsons import STANDARD
from .listing import Listing

__all__ = ["Attendance", "as_info", "decoded", "present"]

# As JSON, in UTF-8.
MAX_INFO_BYTES = 1024
# Events of one member that may wait for a handler to end.
MAX_WAITING = 1000

Member = tuple[int, str]
"""The id of a connection, and its info as JSON; empty if it has none."""


def as_info(info: object) -> str | None:
    """Return what is to be known about a member as JSON; `None` if nothing is given.

    Raises:
        TypeError: JSON cannot express it.
        ValueError: It has more than 1,024 bytes as JSON.
    """
    if info is None:
        return None
    try:
        text = STANDARD.encode(info)
    except TypeError as error:
        raise TypeError(f"info must be encodable as JSON: {error.__cause__}") from error
    if len(text) * 4 > MAX_INFO_BYTES and (length := len(text.encode())) > MAX_INFO_BYTES:
        raise ValueError(f"info must have at most {MAX_INFO_BYTES:,} bytes as JSON, not {length:,}")
    return text


def decoded(info: str) -> Any:
    """Return what `as_info` has encoded."""
    return STANDARD.decode(info) if info else None


def present(limit: int) -> Listing[int, Member]:
    """Begin a list of at most `limit` members."""
    return Listing(limit, 0, lambda member: member[0])


class Attendance:
    """Calls the `join` and `leave` handlers: those of one member of one topic one after the other."""

    def __init__(self, begin: Callable[..., None], skip: Callable[[str, int, int], None]) -> None:
        """Start without members.

        Args:
            begin: Is given the event, a function, and the topic, the id, the number of the stay and the info; calls the
                handler of the event, and the function once the handler has ended.
            skip: Is given the event, the id and the number if the handler is not going to be called.
        """
        self._begin = begin
        self._skip = skip
        self._members: dict[tuple[str, int], _Events] = {}

    def tell(self, event: str, topic: str, fd: int, number: int, info: str) -> None:
        """Call the handler of an event, after the handlers of earlier events of this member.

        Args:
            event: "join" or "leave".
            topic: The topic.
            fd: The connection's id.
            number: Names this stay of the connection in the topic.
            info: What is known about it, as JSON.
        """
        member = topic, fd
        events = self._members.get(member)
        if events is None:
            events = self._members[member] = _Events()
        if len(events.waiting) >= MAX_WAITING and events.waiting[-1][0] != event:
            # A handler hangs while its member joins and leaves again and again. They still alternate.
            before, earlier, _ = events.waiting.pop()
            self._skip(before, fd, earlier)
            self._skip(event, fd, number)
            return
        events.waiting.append((event, number, info))
        self._go_on(member, events)

    def _go_on(self, member: tuple[str, int], events: "_Events") -> None:
        """Call the handlers of what waits, until one of them keeps running."""
        if events.is_calling:
            return
        events.is_calling = True
        while events.waiting and not events.is_running:
            events.is_running = True
            event, number, info = events.waiting.popleft()
            self._begin(event, partial(self._ended, member, events), *member, number, info)
        events.is_calling = False
        if not events.is_running:
            del self._members[member]

    def _ended(self, member: tuple[str, int], events: "_Events") -> None:
        events.is_running = False
        self._go_on(member, events)


class _Events:
    """The events of one member whose handlers have not ended."""

    __slots__ = ("is_calling", "is_running", "waiting")

    def __init__(self) -> None:
        # The events that wait for the running handler, each with the number of the stay and the info.
        self.waiting: deque[tuple[str, int, str]] = deque()
        self.is_running = False
        # Whether `_go_on` is at work: handlers that end at once call it again.
        self.is_calling = False
