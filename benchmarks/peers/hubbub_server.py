"""Hubbub as its users write it, with its defaults: pings, time-outs, limits and checks of UTF-8 are on."""

import argparse
import asyncio

from command_line import command_line

from hubbub import Frame, Request, Server


def main(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    chain, key = arguments.certificate
    server = Server(
        "127.0.0.1",
        arguments.port,
        workers=arguments.workers,
        origins="*",
        compression=arguments.workload == "fanout-deflate",
        ssl_certfile=chain,
        ssl_keyfile=key,
    )
    if arguments.history:
        server.topic_options("fan", history=arguments.history)
    recipients: dict[int, list[int]] = {}

    def echo(server: Server, frame: Frame) -> None:
        server.push(frame.fd, frame.data)

    async def echo_async(server: Server, frame: Frame) -> None:
        server.push(frame.fd, frame.data)

    def subscribe(server: Server, request: Request) -> None:
        if request.path == "/fanout":
            server.subscribe(request.fd, "fan")

    def publish(server: Server, frame: Frame) -> None:
        server.publish("fan", frame.data)

    async def publish_async(server: Server, frame: Frame) -> None:
        server.publish("fan", frame.data)

    def hello(server: Server, request: Request) -> str:
        return "Hello, world!"

    def broadcast(server: Server, frame: Frame) -> None:
        server.broadcast(frame.data, exclude=(frame.fd,))

    def push(server: Server, frame: Frame) -> None:
        """A sender's first message lists the ids to push to; the answer to `who` is the client's worker and id."""
        if frame.fd in recipients:
            for fd in recipients[frame.fd]:
                server.push(fd, frame.data)
        elif frame.data == "who":
            server.push(frame.fd, f"{server.worker_id} {frame.fd}")
        else:
            recipients[frame.fd] = [int(fd) for fd in frame.data.split()]

    match arguments.workload:
        case "echo":
            server.on("message", echo)
        case "echo-async":
            server.on("message", echo_async)
        case "fanout" | "fanout-deflate":
            server.on("open", subscribe)
            server.on("message", publish)
        case "fanout-async":
            server.on("open", subscribe)
            server.on("message", publish_async)
        case "hello":
            server.on("request", hello)
        case "broadcast":
            server.on("message", broadcast)
        case "push":
            server.on("message", push)

    @server.on("start")
    def started(server: Server) -> None:
        print(server.port, flush=True)

    if arguments.embedded:
        asyncio.run(server.serve())
    else:
        server.start()


if __name__ == "__main__":
    processes = argparse.ArgumentParser(add_help=False)
    processes.add_argument("--workers", type=int, default=1, help="worker processes")
    processes.add_argument("--history", type=int, default=0, help="messages that the topic keeps")
    processes.add_argument("--embedded", action="store_true", help="all in this process, without a master")
    processes.add_argument("--certificate", nargs=2, default=(None, None), help="PEM files of a chain and its key")
    workloads = ("echo", "echo-async", "fanout", "fanout-async", "fanout-deflate", "broadcast", "push", "hello")
    main(command_line(*workloads, parents=[processes]))
