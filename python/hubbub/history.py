"""The messages that a topic with history keeps, and positions among them.

Nothing in here does I/O: a `Reading` says which page to ask for next.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .errors import short_number, wrong_type
from .jsons import STANDARD, Json

__all__ = ["History", "Joined", "Message", "Position", "Reading", "as_after", "as_last"]

# JavaScript holds no larger number exactly.
MAX_OFFSET = 2**53 - 1
# The epochs that servers give are much shorter.
MAX_EPOCH_CHARACTERS = 64
# More messages than any history has.
MAX_COUNT = 2**31 - 1
# Messages to ask for at a time. The broker gives fewer of long ones.
MAX_PAGE = 4096

Entry = tuple[int, str | bytes, float]
"""The offset of a message, its data, and when it was published."""
HistoryPage = tuple[list[Entry], str, int, bool]
"""Messages, the epoch and the offset of the topic, and whether more messages follow."""


class Position(NamedTuple):
    """A place in the order of a topic's messages: behind the message with this offset.

    As JSON it is `[epoch, offset]`. `Server.join` and `Server.history` take it back as `since`, also as that list.
    """

    epoch: str
    """Differs when the topic's offsets have begun anew: its history was lost with the master, or removed."""
    offset: int
    """The number of the last message before this place; 0 is before all of them."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What `Server.join` has done."""

    recovered: bool
    """Whether every message since the given position was sent, or will be; `False` if no position was given."""
    count: int
    """How many old messages were sent."""
    position: Position
    """The place behind the old messages: what is newer comes as new messages, whether or not any old one was sent."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was published to a topic with history."""

    offset: int
    """Its number in the topic, from 1 on; the next message has the next number."""
    data: str | bytes
    """`str` or `bytes`, as subscribers get it, without the envelope if the topic has one."""
    time: float
    """When it was published, in Unix seconds."""
    _json: Json = field(default=STANDARD, repr=False, compare=False, kw_only=True)

    def json(self) -> Any:
        """Decode `data` as JSON, with the module given as `Server(json=…)`.

        Raises:
            ValueError: It is not JSON.
        """
        return self._json.decode(self.data)


@dataclass(frozen=True, slots=True)
class History:
    """What `Server.history` has found."""

    messages: tuple[Message, ...]
    """The messages, oldest first unless the newest were asked for first."""
    position: Position
    """The place behind the topic's newest message, whether or not that message is among `messages`."""


NOWHERE = ("", 0)
"""A position that no topic has."""


def as_after(since: object) -> tuple[str, int] | None:
    """Return a position in the form in which the core takes it; `None` if none is given.

    It may come from a client, so whatever is no position becomes one that no topic has, and is not an error.
    """
    match since:
        case None:
            return None
        case (str(epoch), int(offset)) if not isinstance(offset, bool):
            if 0 <= offset <= MAX_OFFSET and 0 < len(epoch) <= MAX_EPOCH_CHARACTERS and epoch.isascii():
                return epoch, offset
    return NOWHERE


def as_last(last: object) -> int:
    """Return the number of old messages that `Server.join` sends.

    Raises:
        TypeError: It is not an `int`.
        ValueError: It is below 0.
    """
    if not isinstance(last, int) or isinstance(last, bool):
        raise wrong_type("last", "an int", last)
    if last < 0:
        raise ValueError(f"last must be 0 or above, not {short_number(last)}")
    return min(last, MAX_COUNT)


class Reading:
    """The messages of a history, gathered from its pages."""

    def __init__(self, limit: int, since: object, *, newest_first: bool, json: Json = STANDARD) -> None:
        """Begin.

        Args:
            limit: The largest number of messages.
            since: Read only messages after this position, if it is one of this topic.
            newest_first: Whether to begin with the newest message.
            json: Decodes the messages.

        Raises:
            TypeError: `limit` is not an `int`, or `newest_first` is not a `bool`.
            ValueError: `limit` is below 1.
        """
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise wrong_type("limit", "an int", limit)
        if limit < 1:
            raise ValueError(f"limit must be 1 or above, not {short_number(limit)}")
        if not isinstance(newest_first, bool):
            raise wrong_type("newest_first", "a bool", newest_first)
        self.newest_first = newest_first
        self.after = self._since = as_after(since)
        """The position after which the next page begins; `None` is before the oldest message."""
        self.before = 0
        """If the newest come first: the offset before which the next page begins; 0 is behind the newest message."""
        self.goes_on = True
        """Whether more messages follow."""
        self._limit = limit
        self._json = json
        self._messages: list[Message] = []
        self._position: Position | None = None

    @property
    def wanted(self) -> int:
        """The number of messages to ask for next; 0 if there is nothing left to ask for."""
        return min(self._limit - len(self._messages), MAX_PAGE) if self.goes_on else 0

    @property
    def last(self) -> Position | None:
        """The position of the last message so far."""
        if self._position is None or not self._messages:
            return None
        return Position(self._position.epoch, self._messages[-1].offset)

    def add(self, page: HistoryPage) -> None:
        """Add the next page."""
        entries, epoch, offset, self.goes_on = page
        if self._position and self._position.epoch != epoch:
            # The history was removed meanwhile, and what was read so far with it. Read what there is now.
            self._messages.clear()
            self._position, self.goes_on = None, True
            self.after, self.before = self._since, 0
            return
        if self._position is None or not self.newest_first:
            self._position = Position(epoch, offset)
        self._messages += [Message(*entry, _json=self._json) for entry in entries]
        if not entries:
            self.goes_on = False
        elif self.newest_first:
            self.before = entries[-1][0]
        else:
            self.after = (epoch, entries[-1][0])

    def result(self) -> History:
        """Return what was read."""
        return History(tuple(self._messages), self._position or Position("", 0))
