"""Hubbub with a topic of history for `topics.py`: who connects joins it from a position, or is only greeted."""

import argparse
import asyncio

from hubbub import Request, Server

tasks: set[asyncio.Task[None]] = set()


def main(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    server = Server("127.0.0.1", 0, workers=1, control=arguments.control, origins="*", ping_interval=None)
    server.topic_options("kept:*", history=100, seconds=600)

    @server.on("start")
    def started(server: Server) -> None:
        print(server.port, flush=True)

    @server.on("open")
    def enter(server: Server, request: Request) -> None:
        query = request.query
        if "topic" not in query:
            server.push(request.fd, "welcome")
            return
        since: list[str | int] | None = [query["epoch"], int(query["offset"])] if "epoch" in query else None
        task = asyncio.create_task(join(request.fd, query["topic"], since))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def join(fd: int, topic: str, since: list[str | int] | None) -> None:
        joined = await server.join(fd, topic, since=since)
        server.push(fd, f"joined {joined.recovered} {joined.count} {joined.position.epoch} {joined.position.offset}")

    server.start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True, help="the path of the control socket")
    main(parser.parse_args())
