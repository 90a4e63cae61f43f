"""The server that Autobahn's fuzzing client talks to: prints its port, and echoes every message."""

from hubbub import Frame, Server

# The largest cases are messages of 16 MiB. No pings: Autobahn counts every frame that it gets.
server = Server(
    port=0,
    workers=1,
    origins="*",
    compression=True,
    compression_threshold=0,
    max_message_size=64 << 20,
    send_queue_size=128 << 20,
    ping_interval=None,
    control=None,
)


@server.on("start")
def announce(server: Server) -> None:
    print(server.port, flush=True)


@server.on("message")
def echo(server: Server, frame: Frame) -> None:
    server.push(frame.fd, frame.data)


server.start()
