"""Hubbub as one of several hosts on a Redis, with its defaults but without pings, for `hosts.py`.

A client that names a topic in its query subscribes to it. Each gets its worker and its id. A message begins with where
the rest of it goes: the id of a connection, or a topic.
"""

import argparse

from command_line import command_line

from hubbub import Frame, Request, Server


def main(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    server = Server(
        "127.0.0.1",
        arguments.port,
        workers=arguments.workers,
        origins="*",
        broker=arguments.broker,
        control=arguments.control,
        ping_interval=None,
    )

    @server.on("start")
    def started(server: Server) -> None:
        print(server.port, flush=True)

    @server.on("open")
    def enter(server: Server, request: Request) -> None:
        if topic := request.query.get("topic"):
            server.subscribe(request.fd, topic)
        server.push(request.fd, f"{server.worker_id} {request.fd}")

    @server.on("message")
    def forward(server: Server, frame: Frame) -> None:
        to, _, text = str(frame.data).partition(" ")
        if to.isdecimal():
            server.push(int(to), text)
        else:
            server.publish(to, text)

    server.start()


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--workers", type=int, default=1, help="worker processes")
    options.add_argument("--broker", required=True, help="the address of Redis")
    options.add_argument("--control", required=True, help="the path of the control socket")
    main(command_line("forward", parents=[options]))
