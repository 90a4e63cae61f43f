"""aiohttp's web server on uvloop, tuned as its documentation recommends.

No compression except where it is measured (it is on by default), no heartbeat, no access log, no limit on messages, and
no decoding of text that is sent back unchanged (`decode_text=False`, and `send_frame` with the bytes). Its C extensions
are in the wheel.
"""

import asyncio
from contextlib import suppress

import uvloop
from aiohttp import ClientConnectionResetError, WSMsgType, web
from command_line import command_line


async def main(workload: str, port: int) -> None:
    """Serve until the process is terminated."""
    subscribers: set[web.WebSocketResponse[bool]] = set()
    compress = workload == "fanout-deflate"

    async def opened(request: web.Request) -> web.WebSocketResponse[bool]:
        socket: web.WebSocketResponse[bool] = web.WebSocketResponse(
            compress=compress, max_msg_size=0, decode_text=False
        )
        await socket.prepare(request)
        return socket

    async def echo(request: web.Request) -> web.WebSocketResponse[bool]:
        socket = await opened(request)
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            await socket.send_frame(message.data, WSMsgType.TEXT)
        return socket

    async def subscribe(request: web.Request) -> web.WebSocketResponse[bool]:
        socket = await opened(request)
        subscribers.add(socket)
        await socket.receive()
        subscribers.discard(socket)
        return socket

    async def publish(request: web.Request) -> web.WebSocketResponse[bool]:
        socket = await opened(request)
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            for subscriber in subscribers:
                with suppress(ClientConnectionResetError):
                    await subscriber.send_frame(message.data, WSMsgType.TEXT)
        return socket

    application = web.Application()
    application.router.add_get("/", echo if workload == "echo" else publish)
    application.router.add_get("/fanout", subscribe)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    arguments = command_line("echo", "fanout", "fanout-deflate")
    uvloop.run(main(arguments.workload, arguments.port))
