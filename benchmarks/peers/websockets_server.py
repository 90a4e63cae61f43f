"""websockets' asyncio server on uvloop, with everything turned off that costs time and can be turned off.

No compression except where it is measured, no pings (a task for each connection), no limit on received messages, no
pause in sending at these sizes, and no decoding of text that is sent back unchanged.
"""

import asyncio
import contextlib

import uvloop
from command_line import command_line
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed


async def main(workload: str, port: int) -> None:
    """Serve until the process is terminated."""
    subscribers: set[ServerConnection] = set()

    async def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(await connection.recv(decode=False), text=True)

    async def fan_out(connection: ServerConnection) -> None:
        if connection.request is not None and connection.request.path == "/fanout":
            subscribers.add(connection)
        with contextlib.suppress(ConnectionClosed):
            while True:
                broadcast(subscribers, await connection.recv(decode=False), text=True)
        subscribers.discard(connection)

    server = await serve(
        echo if workload == "echo" else fan_out,
        "127.0.0.1",
        port,
        compression="deflate" if workload == "fanout-deflate" else None,
        ping_interval=None,
        max_queue=None,
        write_limit=2**20,
        backlog=4096,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    arguments = command_line("echo", "fanout", "fanout-deflate")
    uvloop.run(main(arguments.workload, arguments.port))
