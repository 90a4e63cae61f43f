"""Lists that are asked for page by page: the topics of a server, and the members of a topic.

Nothing in here does I/O: a `Listing` says which page to ask for next.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from .errors import short_number, wrong_type

__all__ = ["Listing", "Page", "members", "topics"]

A = TypeVar("A")
E = TypeVar("E")

Page = tuple[list[E], bool]
"""The entries, in order, and whether more follow."""

# Entries to ask for at a time. Workers give fewer of long ones.
MAX_PAGE = 65_536
# No connection has an id above this. The binding takes larger numbers for 0, which comes before all ids.
LARGEST_ID = 2**63 - 1


class Listing(Generic[A, E]):
    """The first entries of a list, gathered from its pages."""

    def __init__(self, limit: int, after: A, key: Callable[[E], A]) -> None:
        """Begin.

        Args:
            limit: The largest number of entries.
            after: The entry after which the list begins, as `key` returns it.
            key: Returns the name or number of an entry, by which they are in order.

        Raises:
            TypeError: `limit` is not an `int`.
            ValueError: `limit` is below 1.
        """
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise wrong_type("limit", "an int", limit)
        if limit < 1:
            raise ValueError(f"limit must be 1 or above, not {short_number(limit)}")
        self.entries: list[E] = []
        self.goes_on = True
        """Whether more entries follow."""
        self.after = after
        """The last entry so far, after which the next page begins."""
        self._limit = limit
        self._key = key

    @property
    def wanted(self) -> int:
        """The number of entries to ask for next; 0 if there is nothing left to ask for."""
        return min(self._limit - len(self.entries), MAX_PAGE) if self.goes_on else 0

    def add(self, page: Page[E]) -> None:
        """Add the next page."""
        entries, self.goes_on = page
        self.entries += entries
        if entries:
            self.after = self._key(entries[-1])


def topics(limit: int, after: str = "") -> Listing[str, tuple[str, int]]:
    """Begin a list of at most `limit` topics, with their numbers of subscribers, after the one named `after`."""
    return Listing(limit, after, lambda entry: entry[0])


def members(limit: int, after: int = 0) -> Listing[int, int]:
    """Begin a list of at most `limit` ids above `after`."""
    return Listing(limit, min(after, LARGEST_ID), lambda fd: fd)
