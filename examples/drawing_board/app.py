"""Drawing boards that are shared: everybody sees each stroke while it is drawn, and the whole picture on joining.

Run it, and open the address that it prints.
"""

import asyncio
from pathlib import Path

import strokes
from checks import checked

from hubbub import Endpoint, Frame, Page, Refuse, Request, Response, Server

BOARDS = 100
PAUSE = 0.05  # seconds from a stroke to the next one of the same connection

server = Server("127.0.0.1", 9501)
home, board = Endpoint("/"), Endpoint("/boards/{number:int}", max_message_size=2048)
home.on("request", lambda: Response.redirect("/boards/1"))
board.on("request", Page(Path(__file__).with_name("board.html")))
server.include(home)
server.include(board)


@server.on("start")
def on_start(server: Server) -> None:
    print(f"Open http://127.0.0.1:{server.port}/ in a browser. Ctrl-C stops the server.", flush=True)


@board.on("handshake")
def on_handshake(server: Server, request: Request) -> Refuse | None:
    request.state.board = number = request.path_params["number"]
    return None if 1 <= number <= BOARDS else Refuse(4404, f"there are boards 1 to {BOARDS}")


@board.on("open")
async def on_open(server: Server, request: Request) -> None:
    number, last = request.state.board, 0
    # Subscribe first: then what is drawn meanwhile arrives twice at worst. The page knows strokes by their ids.
    server.subscribe(request.fd, f"board {number}")
    while picture := await asyncio.to_thread(strokes.after, number, last):
        if not await server.send(request.fd, {"picture": picture}):
            return
        last = picture[-1]["id"]
    await server.send(request.fd, {"complete": True})


@board.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    if stroke := checked(frame.json()):
        server.publish(f"board {frame.state.board}", await asyncio.to_thread(strokes.add, frame.state.board, stroke))
        await asyncio.sleep(PAUSE)
    else:
        server.disconnect(frame.fd, 4400, "that is no stroke")


server.start()
