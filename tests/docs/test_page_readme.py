"""The programs of README.md."""

import asyncio
import json
import re
import urllib.request

from as_process import serving
from snippets import ROOT, Snippet, shows

from ports import free_port


@shows("README.md", "Hubbub")
async def test_everybody_in_the_room_gets_a_message(snippets: list[Snippet]) -> None:
    async with (
        serving(*snippets, environ={"HUBBUB_WORKERS": "2"}) as running,
        running.connect() as ada,
        running.connect() as grace,
    ):
        await ada.send("tea is ready")
        assert await ada.recv() == "tea is ready"
        assert await grace.recv() == "tea is ready"


@shows("README.md", "Handlers that wait")
async def test_a_worker_serves_others_while_a_handler_waits(snippets: list[Snippet]) -> None:
    # Each handler waits until two are running.
    async with (
        serving(
            *snippets,
            begin="import asyncio\nboth = asyncio.Barrier(2)\n",
            replacing={"asyncio.sleep(0.1)": "both.wait()"},
            environ={"HUBBUB_WORKERS": "1"},
        ) as running,
        running.connect() as ada,
        running.connect() as grace,
    ):
        await ada.send("lunch")
        await grace.send("dinner")
        assert await ada.recv() == "about lunch: tea is ready"
        assert await grace.recv() == "about dinner: tea is ready"


@shows("README.md", "Hubbub")
@shows("README.md", "With FastAPI")
async def test_a_route_of_fastapi_sends_to_the_room(snippets: list[Snippet]) -> None:
    room, api = snippets
    port = free_port()
    async with (
        serving(room) as running,
        serving(
            api,
            port=port,
            arguments=("-m", "uvicorn", "app:app", "--port", str(port)),
            replacing={"port=9501": f"port={running.port}"},
        ),
        running.connect() as client,
    ):
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/garden?text=tea+is+ready", method="POST")
        answer = await asyncio.to_thread(urllib.request.urlopen, asked)
        assert answer.status == 200
        assert await client.recv() == "tea is ready"


@shows("README.md", "The tutorial's server")
async def test_the_tutorials_server_does_what_it_says(snippets: list[Snippet]) -> None:
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
