"""Look at all hosts together: ask each of them, and make one answer of theirs."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from . import listing
from .errors import wrong_type
from .events import ConnectionInfo
from .listing import Listing, Page

__all__ = ["Cluster", "ClusterStats", "Count", "Host", "Ids", "TopicCounts"]

K = TypeVar("K")
E = TypeVar("E")

# Seconds that the hub gives the hosts to answer.
PATIENCE = 2.0
# The keys of `Server.stats` that are no counts.
NO_COUNTS = frozenset({"started_at", "workers"})


@dataclass(frozen=True, slots=True)
class Host:
    """One of several servers that are one, as the others know it."""

    number: int
    """Its number, 1 to 255, which is part of the ids of its connections."""
    name: str
    """The name of its machine, and its port: `web-2:9501`."""
    started_at: float
    """When its server was started, in Unix seconds by its own clock."""
    connections: int
    """Its open WebSockets, about a second ago."""
    age: float
    """Seconds since it was heard from."""


class Ids(list[int]):
    """Ids of connections, in ascending order."""

    silent: tuple[int, ...] = ()
    """The numbers of the hosts that did not answer within 2 s; what they know is missing."""


class TopicCounts(dict[str, int]):
    """Numbers of subscribers by topic, in the order of the names."""

    silent: tuple[int, ...] = ()
    """The numbers of the hosts that did not answer within 2 s; what they know is missing."""


class Count(int):
    """A number of connections."""

    silent: tuple[int, ...]
    """The numbers of the hosts that did not answer within 2 s; what they know is missing."""

    def __new__(cls, count: int, silent: tuple[int, ...] = ()) -> Self:
        """Make a number that also says which hosts were silent."""
        made = super().__new__(cls, count)
        made.silent = silent
        return made


class ClusterStats(dict[str, Any]):
    """The counts of `Server.stats`, for all hosts together.

    `started_at` is when the first of the servers was started. `hosts` is a list with the `Server.stats` of each host,
    which has its number in `host`.
    """

    silent: tuple[int, ...] = ()
    """The numbers of the hosts that did not answer within 2 s; what they know is missing."""


Answers = tuple[list[tuple[int, Any]], list[int]]
"""The answers of hosts, each with its number; and the numbers of those that have not answered in time."""


class Ask(Protocol):
    """A function that asks all hosts; `what` and the arguments are those of `_core.Reactor.ask_everywhere`."""

    def __call__(self, what: str, **arguments: Any) -> Awaitable[Answers]:
        """Ask, and return the answers; `None` stands for that of a host with a silent worker."""


class Cluster:
    """All hosts of a server with a `broker`; the methods mean what those of `Server` mean for one host.

    A host that does not answer within 2 s is left out. The attribute `silent` of a result has the numbers of these
    hosts, so it is empty if the result is complete. If there is no `broker`, this server is all there is.

    Every method raises `NotRunning` if the server is not running, and `RuntimeError` if too many questions are waiting.
    """

    def __init__(self, ask: Ask) -> None:
        """Create the view; each use asks the hosts."""
        self._ask = ask

    async def exists(self, fd: int) -> bool:
        """Return whether there is an open WebSocket with that id, on any host.

        Args:
            fd: The connection's id.

        Raises:
            TypeError: `fd` is not an `int`.
            TimeoutError: The connection's host did not answer within 2 s; the message names it.
        """
        return await self.info(fd) is not None

    async def info(self, fd: int) -> ConnectionInfo | None:
        """Return what its host knows about a connection; `None` if it is not open.

        Args:
            fd: The connection's id.

        Raises:
            TypeError: `fd` is not an `int`.
            TimeoutError: The connection's host did not answer within 2 s; the message names it.
        """
        if not isinstance(fd, int) or isinstance(fd, bool):
            raise wrong_type("fd", "an int", fd)
        answers, silent = await self._ask("info", fd=fd)
        if silent:
            raise TimeoutError(f"host {silent[0]} did not answer within {PATIENCE:g} s")
        found = next((values for _, values in answers if values is not None), None)
        return None if found is None else ConnectionInfo(*found)

    async def connections(self) -> Ids:
        """Return the ids of all open WebSockets, in ascending order."""
        answers, silent = _complete(await self._ask("connections"))
        ids = Ids(sorted(fd for _, own in answers for fd in own))
        ids.silent = silent
        return ids

    async def stats(self) -> ClusterStats:
        """Return the counts of all hosts together, and in `hosts` those of each; see `ClusterStats`."""
        answers, silent = _complete(await self._ask("stats"))
        hosts = [{"host": host, **counted} for host, counted in sorted(answers)]
        names = [name for name in (hosts[0] if hosts else {}) if name not in NO_COUNTS | {"host"}]
        stats = ClusterStats({name: sum(host[name] for host in hosts) for name in names})
        if hosts:
            stats["started_at"] = min(host["started_at"] for host in hosts)
        stats["hosts"] = hosts
        stats.silent = silent
        return stats

    async def subscribers(self, topic: str) -> Count:
        """Count the connections that are subscribed to a topic.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.

        Raises:
            TypeError: `topic` is not a `str`.
            ValueError: The topic is empty or too long.
        """
        answers, silent = _complete(await self._ask("subscribers", topic=topic))
        return Count(sum(count for _, count in answers), silent)

    async def members(self, topic: str, *, limit: int = 1000) -> Ids:
        """Return the ids of the connections that are subscribed to a topic, in ascending order.

        Args:
            topic: A name of 1 to 255 bytes of UTF-8.
            limit: The largest number of ids to return, 1 or above.

        Raises:
            TypeError: `topic` is not a `str`, or `limit` is not an `int`.
            ValueError: The topic is empty or too long, or `limit` is below 1.
        """
        found, silent = await self._list_members(listing.members(limit), topic)
        ids = Ids(found.entries)
        ids.silent = silent
        return ids

    async def _list_members(self, found: Listing[int, int], topic: str) -> tuple[Listing[int, int], tuple[int, ...]]:
        """Fill a list; return it, and the silent hosts."""
        silent: set[int] = set()
        while found.wanted:
            asked = self._ask("members", topic=topic, after=found.after, limit=found.wanted)
            answers, missing = _complete(await asked)
            silent.update(missing)
            found.add(_merged([page for _, page in answers], lambda fd: fd, found.wanted))
        return found, tuple(sorted(silent))

    async def topics(self, *, prefix: str = "", limit: int = 1000) -> TopicCounts:
        """Return the topics that have subscribers, in order, with their numbers of subscribers.

        Args:
            prefix: Return only topics whose names begin with this, at most 255 bytes of UTF-8.
            limit: The largest number of topics to return, 1 or above.

        Raises:
            TypeError: `prefix` is not a `str`, or `limit` is not an `int`.
            ValueError: `prefix` is too long, or `limit` is below 1.
        """
        found, silent = await self._list_topics(listing.topics(limit), prefix)
        counts = TopicCounts(found.entries)
        counts.silent = silent
        return counts

    async def _list_topics(
        self, found: Listing[str, tuple[str, int]], prefix: str
    ) -> tuple[Listing[str, tuple[str, int]], tuple[int, ...]]:
        """Fill a list; return it, and the silent hosts."""
        silent: set[int] = set()
        while found.wanted:
            asked = self._ask("topics", prefix=prefix, after_name=found.after, limit=found.wanted)
            answers, missing = _complete(await asked)
            silent.update(missing)
            counts: dict[str, int] = {}
            page, goes_on = _merged([page for _, page in answers], lambda entry: entry[0], None)
            for topic, count in page:
                counts[topic] = counts.get(topic, 0) + count
            entries = list(counts.items())
            found.add((entries[: found.wanted], goes_on or len(entries) > found.wanted))
        return found, tuple(sorted(silent))


def _complete(answers: Answers) -> tuple[list[tuple[int, Any]], tuple[int, ...]]:
    """Count the hosts that have a silent worker as silent, too."""
    given, silent = answers
    silent = sorted({*silent, *(host for host, answer in given if answer is None)})
    return [(host, answer) for host, answer in given if answer is not None], tuple(silent)


def _merged(pages: Iterable[Page[E]], key: Callable[[E], Any], limit: int | None) -> Page[E]:
    """Merge pages of several hosts, each in order, to one of at most `limit` entries.

    What comes after the end of a page that goes on is left out: its host may have entries in between.
    """
    pages = list(pages)
    ends = [key(entries[-1]) for entries, goes_on in pages if goes_on and entries]
    merged = sorted((entry for entries, _ in pages for entry in entries), key=key)
    if ends:
        merged = [entry for entry in merged if key(entry) <= min(ends)]
    goes_on = bool(ends) or (limit is not None and len(merged) > limit)
    return merged[:limit], goes_on
