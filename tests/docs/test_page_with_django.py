"""The programs of docs/with/django.md."""

from types import SimpleNamespace
from typing import Any

import pytest
from as_process import serving
from django.db import transaction  # type: ignore[import-untyped]
from snippets import Snippet, execute, shows
from with_framework import OF_SERVER, ask, check_both_workers_have_some, rooms_work, served

import hubbub
from apart import runs_apart

PAGE = "docs/with/django.md"
OF_APPLICATION = ("-m", "hubbub", "run", "app:application")


@shows(PAGE, "A room")
async def test_a_room_and_a_view_that_sends_to_it(snippets: list[Snippet]) -> None:
    async with served(*snippets, arguments=OF_SERVER) as running:
        await rooms_work(running, at="/live")
        assert (await ask(running, "GET", "/unknown"))[0] == 404


@shows(PAGE, "Send from a view")
def test_a_message_is_sent_after_the_commit(snippets: list[Snippet], monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[Any] = []
    commits: list[Any] = []
    monkeypatch.setattr(
        hubbub, "current_server", lambda: SimpleNamespace(publish=lambda *arguments: published.append(arguments))
    )
    monkeypatch.setattr(transaction, "on_commit", commits.append)
    tell = execute(*snippets)["tell"]
    tell(SimpleNamespace(pk=7, state="packed", user_id=3))
    assert published == []
    (commit,) = commits
    commit()
    assert published == [("user 3", {"order": 7, "state": "packed"})]


@shows(PAGE, "With Channels")
@runs_apart
async def test_consumers_subscribe_to_a_topic(snippets: list[Snippet]) -> None:
    async with (
        served(*snippets, arguments=OF_APPLICATION) as running,
        running.connect("/rooms/garden") as ada,
        running.connect("/rooms/garden") as grace,
    ):
        for client in (ada, grace):
            assert await client.recv() == "welcome"
        check_both_workers_have_some(running)
        await ada.send("hello")
        assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
        assert (await ask(running, "GET", "/unknown"))[0] == 404


COLLECTED = """
from pathlib import Path

from hubbub import Server

Path("public/static/admin").mkdir(parents=True, exist_ok=True)
Path("public/static/admin/base.css").write_text("body {}")
server = Server(workers=1)
"""


@shows(PAGE, "Static files")
async def test_static_files_are_served(snippets: list[Snippet]) -> None:
    async with serving(*snippets, begin=COLLECTED, end="\nserver.start()\n") as running:
        assert await ask(running, "GET", "/static/admin/base.css") == (200, "body {}")
        for path in ("/static/other.css", "/app.py", "/static/../../app.py"):
            assert (await ask(running, "GET", path))[0] == 404
