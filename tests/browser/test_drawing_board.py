"""The drawing board, as people and as hostile clients use it: two workers, which share a database."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect
from programs import EXAMPLES, Program, running

from apart import check_apart, runs_apart
from hubbub import AsyncPublisher
from hubbub.testing import Client, connected

APP = str(EXAMPLES / "drawing_board" / "app.py")
LINE = [[0, 0], [1600, 1000]]
# Counts the pixels that are not transparent, in a part of the canvas.
INK = "([x, y, w, h]) => canvas.getContext('2d').getImageData(x, y, w, h).data.filter((v, i) => i % 4 == 3 && v).length"
LEFT, RIGHT = [0, 0, 800, 1000], [800, 0, 800, 1000]

# Installing a browser may take longer than a test's timeout.
pytestmark = pytest.mark.timeout(90, func_only=True)


@pytest.fixture
def database(tmp_path: Path) -> dict[str, str]:
    return {"BOARD_DATABASE": str(tmp_path / "boards.sqlite"), "HUBBUB_WORKERS": "2"}


@pytest.fixture
async def boards(database: dict[str, str]) -> AsyncIterator[Program]:
    async with running(APP, environ=database) as program:
        yield program


def stroke(number: int, **parts: object) -> dict[str, Any]:
    return {"key": f"{number:032x}", "color": "#dc2626", "width": 4, "points": LINE, **parts}


@contextlib.asynccontextmanager
async def client_of(program: Program, board: int = 1) -> AsyncIterator[tuple[Client, list[dict[str, Any]]]]:
    """Connect, and return the client and the picture that it has received."""
    async with connected(f"ws://127.0.0.1:{program.port}", f"/boards/{board}", timeout=20) as client:
        picture: list[dict[str, Any]] = []
        while (message := await client.receive_json()) != {"complete": True}:
            picture += message["picture"]
        yield client, picture


@runs_apart
async def test_everybody_gets_each_stroke_and_who_joins_the_picture(boards: Program) -> None:
    async with client_of(boards) as (ada, nothing), client_of(boards) as (grace, _), client_of(boards, 2) as (other, _):
        assert nothing == []
        async with AsyncPublisher(port=boards.port) as publisher:
            infos = [await publisher.info(fd) for fd in await publisher.members("board 1")]
        check_apart(infos)
        await ada.send(stroke(1))
        drawn = await grace.receive_json()
        assert drawn == {"id": drawn["id"], **stroke(1)}
        assert await ada.receive_json() == drawn
        async with client_of(boards) as (_, picture):
            assert picture == [drawn]
        # Another board has strokes of its own.
        await other.send(stroke(2))
        assert (await other.receive_json())["key"] == stroke(2)["key"]


async def test_clearing_removes_all_that_was_drawn_before(boards: Program) -> None:
    async with client_of(boards) as (client, _):
        await client.send(stroke(1))
        await client.send({"key": f"{2:032x}", "clear": True})
        await client.send(stroke(3))
        before, clear, later = [await client.receive_json() for _ in range(3)]
    assert before["id"] < clear["id"] < later["id"]
    async with client_of(boards) as (_, picture):
        assert picture == [clear, later]


async def test_a_stroke_that_is_sent_again_is_stored_once(boards: Program) -> None:
    async with client_of(boards) as (client, _):
        for _ in range(2):
            await client.send(stroke(1))
        assert await client.receive_json() == await client.receive_json()
    async with client_of(boards) as (_, picture):
        assert len(picture) == 1


async def test_a_large_picture_arrives_completely(boards: Program) -> None:
    async with contextlib.AsyncExitStack() as stack:
        # Each connection pauses after each of its strokes, so several share the work.
        clients = [(await stack.enter_async_context(client_of(boards)))[0] for _ in range(10)]
        for number in range(450):
            await clients[number % 10].send(stroke(number, points=[[number, number]] * 64))
        live = [await clients[0].receive_json() for _ in range(450)]
    async with client_of(boards) as (_, picture):
        assert picture == sorted(live, key=lambda stroke: int(stroke["id"]))


BAD = [
    ("no JSON", 1007),
    ('{"width": NaN}', 1007),
    ("[" * 2000, 1007),
    ("[]", 4400),
    (json.dumps({"key": "1", "clear": True}), 4400),
    (json.dumps({"key": f"{1:032x}", "clear": 1}), 4400),
    (json.dumps(stroke(1, key=1)), 4400),
    (json.dumps(stroke(1, color="red")), 4400),
    (json.dumps(stroke(1, color="#dc2626\n")), 4400),
    (json.dumps(stroke(1, color="url(x)")), 4400),
    (json.dumps(stroke(1, width=0)), 4400),
    (json.dumps(stroke(1, width=41)), 4400),
    (json.dumps(stroke(1, width=True)), 4400),
    (json.dumps(stroke(1, width=4.5)), 4400),
    (json.dumps(stroke(1, points=[])), 4400),
    (json.dumps(stroke(1, points=5)), 4400),
    (json.dumps(stroke(1, points=[[0, 0]] * 65)), 4400),
    (json.dumps(stroke(1, points=[[0]])), 4400),
    (json.dumps(stroke(1, points=[[0, 0, 0]])), 4400),
    (json.dumps(stroke(1, points=[[0, "0"]])), 4400),
    (json.dumps(stroke(1, points=[[0, -1]])), 4400),
    (json.dumps(stroke(1, points=[[1601, 0]])), 4400),
    (json.dumps(stroke(1, points=[[10**400, 0]])), 4400),
    (json.dumps(stroke(1, more="x" * 2048)), 1009),
]


async def test_a_bad_stroke_costs_only_its_sender(boards: Program) -> None:
    async with client_of(boards) as (good, _):
        for number, (message, code) in enumerate(BAD):
            async with client_of(boards) as (bad, _):
                await bad.send(message)
                assert await bad.close_code() == code, message[:100]
            await good.send(stroke(number))
            assert (await good.receive_json())["key"] == stroke(number)["key"]


async def test_parts_that_nobody_knows_are_not_passed_on(boards: Program) -> None:
    async with client_of(boards) as (client, _):
        await client.send(stroke(1, onclick="alert(1)"))
        assert (await client.receive_json()).keys() == {"id", *stroke(1)}


async def test_there_are_100_boards(boards: Program) -> None:
    for path in ("/boards/0", "/boards/101", "/boards/18446744073709551615"):
        async with connected(f"ws://127.0.0.1:{boards.port}", path, timeout=20) as client:
            assert await client.close_code() == 4404
    async with client_of(boards, 100):
        pass


async def test_a_flood_does_not_hold_up_others(boards: Program) -> None:
    async with client_of(boards) as (flooding, _), client_of(boards) as (good, _):
        for number in range(200):
            await flooding.send(stroke(number))
        await good.send(stroke(1000))
        received: list[str] = []
        while not received or received[-1] != stroke(1000)["key"]:
            received.append((await good.receive_json())["key"])
        # A pause follows each stroke of a connection, so most of the flood is still to come.
        assert len(received) < 100
        flooding.connection.transport.abort()


async def drawn(page: Page, part: list[int]) -> bool:
    return bool(await page.evaluate(INK, part))


async def shows(page: Page, part: list[int]) -> None:
    await page.wait_for_function(f"(part) => ({INK})(part) > 0", arg=part)


async def draw(page: Page, x: float) -> None:
    """Draw a line from top to bottom; 0 is the left edge of the board, and 1 the right one."""
    area = await page.locator("canvas").bounding_box()
    assert area
    await page.mouse.move(area["x"] + x * area["width"], area["y"] + 5)
    await page.mouse.down()
    await page.mouse.move(area["x"] + x * area["width"], area["y"] + area["height"] - 5, steps=10)
    await page.mouse.up()


async def opened(page: Page, url: str) -> Page:
    browser = page.context.browser
    assert browser is not None
    page = await browser.new_page()
    await page.goto(url)
    await expect(page.get_by_role("status")).to_have_text("Live")
    return page


async def test_two_people_draw_on_one_board(page: Page, boards: Program) -> None:
    ada, grace = await opened(page, boards.url), await opened(page, boards.url)
    await draw(ada, 0.25)
    await shows(grace, LEFT)
    assert not await drawn(grace, RIGHT)
    await grace.get_by_role("radio", name="Blue").check()
    await grace.get_by_role("radio", name="Thick").check()
    await draw(grace, 0.75)
    await shows(ada, RIGHT)
    await ada.reload()
    await shows(ada, LEFT)
    await shows(ada, RIGHT)
    await ada.get_by_role("button", name="Clear").click()
    await grace.wait_for_function(f"(part) => ({INK})(part) === 0", arg=[0, 0, 1600, 1000])
    await grace.goto(f"{boards.url}boards/101")
    await expect(grace.get_by_role("status")).to_have_text("There is no such board.")


async def test_killed_workers_and_a_restart_lose_no_stroke(page: Page, database: dict[str, str]) -> None:
    async with running(APP, environ=database) as program:
        port = program.port
        ada, grace = await opened(page, program.url), await opened(page, program.url)
        await draw(ada, 0.25)
        await shows(grace, LEFT)
        for worker_id in (0, 1):
            program.kill_worker(worker_id)
        # The page may or may not have noticed that its connection is gone.
        await draw(ada, 0.75)
        await shows(grace, RIGHT)
        await grace.reload()
        await shows(grace, LEFT)
        await shows(grace, RIGHT)
        await program.kill()
        await grace.evaluate("[...document.querySelectorAll('#clear')].map((button) => button.click())")
    async with running(APP, port=port, environ=database):
        # The board is cleared once the server is back.
        await ada.wait_for_function(f"(part) => ({INK})(part) === 0", arg=[0, 0, 1600, 1000])
        async with client_of(program) as (_, picture):
            assert ["clear" in stroke for stroke in picture] == [True]
