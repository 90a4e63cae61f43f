"""The answers of several hosts become one, which says who was silent."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Cluster, ConnectionInfo

INFO = (5, 1, ("192.0.2.7", 4321), "/", 2, 1.0, 2.0, None, 1, 2, 3, 4, 0)


class Hosts:
    """Hosts that answer from tables, as the engine does: short pages, and nothing from the silent ones."""

    def __init__(
        self,
        *,
        members: Mapping[int, list[int]] = {},
        topics: Mapping[int, dict[str, int]] = {},
        silent: tuple[int, ...] = (),
        page: int = 2,
    ) -> None:
        self.members, self.topics, self.silent, self.page = members, topics, silent, page
        self.asked: list[str] = []

    async def __call__(self, what: str, **arguments: Any) -> tuple[list[tuple[int, Any]], list[int]]:
        self.asked.append(what)
        table: Mapping[int, Any] = self.topics if what == "topics" else self.members
        answers = [(host, self._answer(what, host, **arguments)) for host in table if host not in self.silent]
        return answers, list(self.silent)

    def _answer(
        self,
        what: str,
        host: int,
        *,
        topic: str = "",
        prefix: str = "",
        after_name: str = "",
        after: int = 0,
        limit: int = 0,
    ) -> Any:
        if what == "connections":
            return self.members[host]
        if what == "subscribers":
            return len(self.members[host])
        most = min(limit, self.page)
        if what == "members":
            ids = [fd for fd in self.members[host] if fd > after]
            return ids[:most], len(ids) > most
        names = [name for name in sorted(self.topics[host]) if name.startswith(prefix) and name > after_name]
        return [(name, self.topics[host][name]) for name in names[:most]], len(names) > most


async def test_connections_are_a_sorted_list_of_ints() -> None:
    ids = await Cluster(Hosts(members={2: [21, 22], 1: [11]}, silent=(3, 7))).connections()
    assert ids == [11, 21, 22]
    assert ids.silent == (3, 7)
    assert json.dumps(ids) == "[11, 21, 22]"


async def test_a_number_says_who_was_silent() -> None:
    count = await Cluster(Hosts(members={1: [11], 2: [21, 22]}, silent=(2,))).subscribers("news")
    assert count == 1
    assert count + 1 == 2
    assert count.silent == (2,)
    assert (await Cluster(Hosts(members={1: [11]})).subscribers("news")).silent == ()


@given(
    st.dictionaries(st.integers(1, 5), st.sets(st.integers(1, 60)).map(sorted), max_size=4),
    st.integers(1, 70),
    st.integers(1, 9),
)
async def test_members_are_the_first_of_all_hosts(members: dict[int, list[int]], limit: int, page: int) -> None:
    ids = await Cluster(Hosts(members=members, page=page)).members("news", limit=limit)
    assert ids == sorted(fd for own in members.values() for fd in own)[:limit]


@given(
    st.dictionaries(
        st.integers(1, 5), st.dictionaries(st.text("abä", max_size=3), st.integers(1, 9), max_size=8), max_size=4
    ),
    st.sampled_from(["", "a", "b"]),
    st.integers(1, 30),
    st.integers(1, 5),
)
async def test_topics_are_counted_over_all_hosts(
    topics: dict[int, dict[str, int]], prefix: str, limit: int, page: int
) -> None:
    topics = {host: {name: count for name, count in own.items() if name} for host, own in topics.items()}
    found = await Cluster(Hosts(topics=topics, page=page)).topics(prefix=prefix, limit=limit)
    names = sorted({name for own in topics.values() for name in own if name.startswith(prefix)})[:limit]
    assert list(found.items()) == [(name, sum(own.get(name, 0) for own in topics.values())) for name in names]


async def test_a_host_that_falls_silent_between_two_pages_is_named() -> None:
    hosts = Hosts(members={1: [1, 3, 5], 2: [2, 4, 6]})

    async def ask(what: str, **arguments: Any) -> tuple[list[tuple[int, Any]], list[int]]:
        hosts.silent = (2,) if hosts.asked else ()
        return await hosts(what, **arguments)

    ids = await Cluster(ask).members("news")
    assert ids == [1, 2, 3, 5]
    assert ids.silent == (2,)


async def test_a_host_with_a_silent_worker_is_silent() -> None:
    async def ask(what: str, **arguments: Any) -> tuple[list[tuple[int, Any]], list[int]]:
        return [(4, None), (1, [11])], [2]

    assert (await Cluster(ask).connections()).silent == (2, 4)


async def test_stats_are_summed_and_kept_for_each_host() -> None:
    async def ask(what: str, **arguments: Any) -> tuple[list[tuple[int, Any]], list[int]]:
        own = {"connections": 2, "accepted": 5, "started_at": 100.0, "workers": [{"connections": 2}]}
        other = {"connections": 1, "accepted": 7, "started_at": 90.0, "workers": []}
        return [(2, other), (1, own)], [3]

    stats = await Cluster(ask).stats()
    assert stats["connections"] == 3
    assert stats["accepted"] == 12
    assert stats["started_at"] == 90.0
    assert [(host["host"], host["connections"]) for host in stats["hosts"]] == [(1, 2), (2, 1)]
    assert stats["hosts"][0]["workers"] == [{"connections": 2}]
    assert stats.silent == (3,)


async def test_stats_of_nobody_are_empty() -> None:
    stats = await Cluster(Hosts(silent=(1,))).stats()
    assert stats == {"hosts": []}
    assert stats.silent == (1,)


@pytest.mark.parametrize(("answers", "exists"), [([(3, INFO)], True), ([(3, None)], False), ([], False)])
async def test_one_host_is_asked_about_a_connection(answers: list[tuple[int, Any]], exists: bool) -> None:
    async def ask(what: str, **arguments: Any) -> tuple[list[tuple[int, Any]], list[int]]:
        assert (what, arguments) == ("info", {"fd": 5})
        return answers, []

    assert await Cluster(ask).exists(5) is exists
    assert await Cluster(ask).info(5) == (ConnectionInfo(*INFO) if exists else None)


async def test_the_silent_host_of_a_connection_is_named() -> None:
    for asking in (Cluster(Hosts(silent=(3,))).info(5), Cluster(Hosts(silent=(3,))).exists(5)):
        with pytest.raises(TimeoutError, match=r"^host 3 did not answer within 2 s$"):
            await asking


async def test_wrong_arguments_are_refused() -> None:
    cluster = Cluster(Hosts())
    with pytest.raises(TypeError, match="fd must be an int, not str"):
        await cluster.info("5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be 1 or above, not 0"):
        await cluster.members("news", limit=0)
    with pytest.raises(TypeError, match="limit must be an int"):
        await cluster.topics(limit="5")  # type: ignore[arg-type]
