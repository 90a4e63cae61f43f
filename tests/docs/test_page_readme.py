"""The programs of README.md."""

import json
import re

from as_process import serving
from snippets import ROOT, Snippet, shows


@shows("README.md", "Hubbub")
async def test_the_first_server_does_what_it_says(snippets: list[Snippet]) -> None:
    async with serving(*snippets) as running:
        async with running.connect() as client:
            fd = (await running.printed("server: handshake success with fd")).partition("fd")[2]
            await client.send("hello")
            assert await client.recv() == "this is server"
            assert await running.printed("receive from") == f"receive from {fd}:hello,opcode:1,fin:True"
        await running.printed(f"client {fd} closed")


def test_the_chat_is_as_short_as_it_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    promised = re.search(r"\[chat.py\]\((\S+)\), is under (\d+) lines", readme)
    assert promised
    assert len((ROOT / promised[1]).read_text(encoding="utf-8").splitlines()) < int(promised[2])


def test_all_of_autobahns_cases_are_as_many_as_it_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    promised = re.search(r"all (\d+) cases of Autobahn's suite pass", readme)
    assert promised
    results = json.loads((ROOT / "tests/conformance/results.json").read_text(encoding="utf-8"))
    assert len(results) == int(promised[1])
