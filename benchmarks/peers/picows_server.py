"""picows on uvloop: the callbacks of its low-level interface, which its documentation calls the fastest.

Automatic pings stay off, as is its default, and text is neither decoded nor validated. Only its other interface, which
resembles that of `websockets`, has compression, so that one is used where compression is measured.
"""

import asyncio

import uvloop
from command_line import command_line
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server
from picows.websockets.asyncio.server import Server, ServerConnection, broadcast, serve


class Echo(WSListener):
    """Sends every message back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Subscriber(WSListener):
    """Gets every message that a `Publisher` receives."""

    def __init__(self, subscribers: set[WSTransport]) -> None:
        self.subscribers = subscribers

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.subscribers.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.subscribers.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)


class Publisher(WSListener):
    """Sends every message to all subscribers."""

    def __init__(self, subscribers: set[WSTransport]) -> None:
        self.subscribers = subscribers

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)
            return
        data = frame.get_payload_as_bytes()
        for subscriber in self.subscribers:
            subscriber.send(frame.msg_type, data)


def close(transport: WSTransport, frame: WSFrame) -> None:
    transport.send_close(frame.get_close_code())
    transport.disconnect()


async def main(workload: str, port: int) -> None:
    server = await (compressing(port) if workload == "fanout-deflate" else plain(workload, port))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def plain(workload: str, port: int) -> asyncio.Server:
    subscribers: set[WSTransport] = set()

    def listener(request: WSUpgradeRequest) -> WSListener:
        if workload == "echo":
            return Echo()
        return (Subscriber if request.path == b"/fanout" else Publisher)(subscribers)

    return await ws_create_server(listener, "127.0.0.1", port, backlog=4096)


async def compressing(port: int) -> Server:
    subscribers: set[ServerConnection] = set()

    async def fan_out(connection: ServerConnection) -> None:
        if connection.request.path == "/fanout":
            subscribers.add(connection)
        async for message in connection:
            broadcast(subscribers, message)
        subscribers.discard(connection)

    server: Server = await serve(fan_out, "127.0.0.1", port, ping_interval=None, compression="deflate", backlog=4096)
    return server


if __name__ == "__main__":
    arguments = command_line("echo", "fanout", "fanout-deflate")
    uvloop.run(main(arguments.workload, arguments.port))
