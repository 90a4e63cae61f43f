"""granian with an application for RSGI, its own interface, on uvloop.

One worker, as with the others; its runtime's threads and mode as its documentation recommends for few processes, which
are the defaults; no log. Its back-pressure counts open WebSockets, so it is set above the number of connections that
are measured. It has no permessage-deflate.
"""

import socket
from typing import Any

from command_line import command_line, tell_when_listening
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.rsgi import Scope, WebsocketMessageType

MAX_CONNECTIONS = 20_000

subscribers: set[Any] = set()


async def echo(scope: Scope, protocol: Any) -> None:
    """Send every message back."""
    transport = await protocol.accept()
    while (text := text_of(await transport.receive())) is not None:
        await transport.send_str(text)
    protocol.close(None)


async def fan_out(scope: Scope, protocol: Any) -> None:
    """Send every message to all connections to `/fanout`."""
    transport = await protocol.accept()
    if scope.path == "/fanout":
        subscribers.add(transport)
    while (text := text_of(await transport.receive())) is not None:
        sending = [subscriber.send_str(text) for subscriber in subscribers]
        for sent in sending:
            await sent
    subscribers.discard(transport)
    protocol.close(None)


def text_of(message: Any) -> str | None:
    """Return the text of a message, or `None` at the end of the connection."""
    return str(message.data) if message.kind == WebsocketMessageType.string else None


def free_port() -> int:
    """Return a port that is free now: granian does not report which one it was given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    arguments = command_line("echo", "fanout")
    port = arguments.port or free_port()
    tell_when_listening(port)
    Granian(
        "granian_server:echo" if arguments.workload == "echo" else "granian_server:fan_out",
        "127.0.0.1",
        port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        backlog=4096,
        backpressure=MAX_CONNECTIONS,
        log_enabled=False,
    ).serve()
