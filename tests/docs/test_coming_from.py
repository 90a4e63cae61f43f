"""Coming from another system: its programs and ours do the same for the same client."""

import asyncio
import json
import sys
import urllib.request
from collections.abc import AsyncIterator

import pytest
import socketio.exceptions  # type: ignore[import-untyped]
from as_process import output_of, serving
from coming_from import (
    IN_PROJECT,
    Connect,
    Program,
    SocketIOClient,
    connecting,
    each_page,
    each_program,
    programs_of,
    project,
    served,
)
from readers_tests import passed, passed_in_node
from snippets import Snippet, snippets_of, source
from websockets.asyncio.client import connect as connect_to
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ports import free_port

# Installing Node may take longer than a test is given.
pytestmark = pytest.mark.timeout(60, func_only=True)


@pytest.fixture
async def connect(program: Program) -> AsyncIterator[Connect]:
    """Connects clients to the program, which runs until the end of the test."""
    async with served(program) as server:
        yield connecting(program, server)


@each_program("Echo")
async def test_what_is_sent_comes_back(connect: Connect) -> None:
    async with connect() as client:
        await client.send("hello")
        assert await client.recv() == "hello"


@each_program("One connection, from anywhere")
async def test_who_knows_an_id_can_send_there(connect: Connect) -> None:
    async with connect() as ada, connect() as grace:
        to_ada, to_grace = await ada.recv(), await grace.recv()
        assert to_ada != to_grace
        await ada.send(f"{to_grace} tea is ready")
        assert await grace.recv() == "tea is ready"
        await grace.send(f"{to_ada} thank you")
        assert await ada.recv() == "thank you"
        await ada.send("0 are you there?")
        assert await ada.recv() == "0 is not here"


@each_program("A conversation", "websockets")
async def test_questions_are_asked_one_after_the_other(connect: Connect) -> None:
    async with connect() as client:
        assert await client.recv() == "what is your name?"
        await client.send("Ada")
        assert await client.recv() == "how many spoons of sugar, Ada?"
        await client.send("two")
        assert await client.recv() == "Ada takes two"
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert told(closed.value) == 1000


@each_program("Rooms")
async def test_what_is_said_reaches_the_room_and_no_other(connect: Connect) -> None:
    async with connect(room="garden") as ada, connect(room="kitchen") as edsger:
        await ada.send("anybody here?")
        assert await ada.recv() == "anybody here?"
        async with connect(room="garden") as grace:
            await grace.send("hello")
            assert await grace.recv() == "hello"
            assert await ada.recv() == "hello"
            await ada.send("good morning")
            assert await ada.recv() == "good morning"
            assert await grace.recv() == "good morning"
        # If any of these messages had reached the kitchen, it would arrive first.
        await edsger.send("am I alone?")
        assert await edsger.recv() == "am I alone?"


@each_program("Who is here")
async def test_all_are_told_how_many_there_are(connect: Connect) -> None:
    async with connect() as ada:
        assert await ada.recv() == "1 here"
        async with connect() as grace:
            assert await ada.recv() == "2 here"
            assert await grace.recv() == "2 here"
        assert await ada.recv() == "1 here"


def told(refusal: Exception) -> object:
    """Return what a client learns about a refusal: a status, a close code, or a text."""
    match refusal:
        case InvalidStatus():
            return refusal.response.status_code
        case ConnectionClosed():
            return refusal.rcvd and refusal.rcvd.code
        case _:
            return str(refusal)


@each_program("Authentication")
async def test_who_has_no_token_is_refused(program: Program, connect: Connect) -> None:
    async with connect(token="secret-of-ada") as ada:
        assert await ada.recv() == "hello ada"
    with pytest.raises((InvalidStatus, ConnectionClosed, socketio.exceptions.ConnectionError)) as refused:
        async with connect(token="guessed") as stranger:
            await stranger.recv()
    on_the_page = {"websockets": 401, "fastapi": 403, "django-channels": 403}.get(program.page, 4401)
    assert told(refused.value) == ("log in first" if program.system == "socketio" else on_the_page)


@each_program("Slow clients")
async def test_a_client_that_begins_late_to_read_gets_everything(program: Program, connect: Connect) -> None:
    async with connect() as client:
        await client.send("go")
        await client.send("go")
        parts = [await client.recv() for _ in range(2 * 200)]
    assert {len(part) for part in parts} == {4 + 65536}
    numbers = [int.from_bytes(part[:4]) for part in parts]
    both = [*range(200)] * 2
    # Socket.IO answers the two at the same time.
    assert numbers == both or (program.system == "socketio" and sorted(numbers) == sorted(both))


@each_program("Timers")
async def test_the_time_comes_again_and_again(connect: Connect) -> None:
    async with connect() as client:
        first, second = await client.recv(), await client.recv()
        assert first.count(":") == 2
        assert first < second or first.startswith("23:59")


@each_program("Work that blocks")
async def test_reports_are_made_in_threads(connect: Connect) -> None:
    async with connect() as ada, connect() as grace:
        await ada.send("tea")
        await grace.send("sugar")
        assert await ada.recv() == "the report on tea is ready"
        assert await grace.recv() == "the report on sugar is ready"


@each_program("Named events", "socketio")
async def test_an_event_has_a_name_and_may_be_answered(program: Program) -> None:
    async with served(program) as server, connecting(program, server)() as client:
        if isinstance(client, SocketIOClient):
            assert await client.socket.call("add", {"a": 1, "b": 2}) == 3
            await client.socket.emit("rename", {"name": "Ada"})
            assert await client.recv() == {"name": "Ada"}
        else:
            await client.send(json.dumps({"type": "add", "id": "one", "a": 1, "b": 2}))
            assert json.loads(await client.recv()) == {"type": "answer", "id": "one", "value": 3}
            await client.send(json.dumps({"type": "rename", "name": "Ada"}))
            assert json.loads(await client.recv()) == {"type": "renamed", "name": "Ada"}
            await client.send("{}")
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert told(closed.value) == 4400


ASKING = """
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "./hubbub.js";

const socket = connect(process.env.SERVER);
test("a question is answered", async () => {
  assert.equal(await ask("add", { a: 1, b: 2 }), 3);
  socket.close();
});
"""


async def test_a_page_asks_and_is_answered(node: str) -> None:
    (ask,) = [snippet for snippet in snippets_of("docs/coming-from/socketio.md") if "function ask" in snippet.text]
    async with served(programs_of("socketio", "Named events")[-1]) as server:
        assert await passed_in_node(node, ASKING + ask.text, server.port) == 1


@each_program("Several processes", "swoole")
async def test_all_workers_answer(connect: Connect) -> None:
    async with connect() as client:
        await client.send("who is there?")
        assert {await client.recv(), await client.recv()} == {"worker 0", "worker 1"}


@each_page("Another program sends", "websockets", "socketio", "swoole")
async def test_another_program_sends_into_a_room(page: str, snippets: list[Snippet]) -> None:
    (sends,) = snippets
    rooms = programs_of(page, "Rooms")[-1]
    async with served(rooms) as server, connecting(rooms, server)(room="garden") as client:
        assert await output_of(sends, replacing={"port=9501": f"port={server.port}"}) == ""
        assert await client.recv() == "tea is ready"


@each_page("Another program sends", "fastapi")
async def test_a_route_sends_into_a_room(page: str, snippets: list[Snippet]) -> None:
    alone, in_front = snippets
    async with served(Program(page, alone)) as server, server.connect("/garden") as client:
        await post(server.port)
        assert await client.recv() == "tea is ready"
    rooms, port = programs_of(page, "Rooms")[-1], free_port()
    async with (
        served(rooms) as server,
        serving(
            in_front,
            port=port,
            arguments=("-m", "uvicorn", "app:app", "--port", str(port)),
            replacing={"port=9501": f"port={server.port}"},
        ),
        server.connect("/garden") as client,
    ):
        await post(port)
        assert await client.recv() == "tea is ready"


@each_page("In FastAPI's own process", "fastapi")
async def test_a_route_sends_from_the_process_of_the_server(page: str, snippets: list[Snippet]) -> None:
    port = free_port()
    async with (
        serving(
            *snippets,
            port=port,
            arguments=("-m", "uvicorn", "app:app", "--port", str(port)),
            environ={"HUBBUB_PORT": (embedded := str(free_port()))},
        ),
        connect_to(f"ws://127.0.0.1:{embedded}/garden", proxy=None) as client,
    ):
        await post(port)
        assert await client.recv() == "tea is ready"


@each_page("Another program sends", "django-channels")
async def test_a_view_of_django_sends_into_a_room(page: str, snippets: list[Snippet]) -> None:
    (view,), port = snippets, free_port()
    rooms = programs_of(page, "Rooms")[-1]
    async with (
        served(rooms) as server,
        serving(
            view,
            port=port,
            arguments=("-m", "uvicorn", "app:app", "--port", str(port)),
            replacing={"port=9501": f"port={server.port}"},
            files=project(),
            environ=IN_PROJECT,
        ),
        server.connect("/garden") as client,
    ):
        await post(port)
        assert await client.recv() == "tea is ready"


LOGGED_IN = """
import os
import django

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command

call_command("migrate", verbosity=0)
user = User.objects.create_user("ada")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.create()
print(session.session_key)
"""


@each_page("Django's users", "django-channels")
async def test_a_user_of_django_is_known(page: str, snippets: list[Snippet]) -> None:
    (program,) = snippets
    hubbub_run = ("-m", "hubbub", "run", "app:server")
    async with serving(program, arguments=hubbub_run, files={**project(), "log_in.py": LOGGED_IN}) as server:
        log_in = await asyncio.create_subprocess_exec(
            *(sys.executable, "log_in.py"), cwd=server.directory, stdout=asyncio.subprocess.PIPE
        )
        key = (await log_in.communicate())[0].decode().strip()
        async with server.connect("/", additional_headers={"Cookie": f"sessionid={key}"}) as ada:
            assert await ada.recv() == "hello ada"
        async with server.connect("/", additional_headers={"Cookie": "sessionid=guessed"}) as stranger:
            await stranger.wait_closed()
            assert stranger.close_code == 4401


async def post(port: int) -> None:
    """Ask the route to send to the room."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/rooms/garden?text=tea+is+ready", method="POST")
    answer = await asyncio.to_thread(urllib.request.urlopen, asked)
    assert answer.status == 200


@each_page("Tests")
async def test_the_tests_that_are_shown_pass(page: str, snippets: list[Snippet]) -> None:
    programs = programs_of(page, "Echo")
    for test in snippets:
        app = programs[-1 if "import server" in test.text else 0]
        files = {"app.py": source((app.snippet,), {}), "test_app.py": source((test,), {})}
        if page == "django-channels":
            files |= project()
        assert await passed(files, {"HUBBUB_PORT": "0", **IN_PROJECT}) == 1
