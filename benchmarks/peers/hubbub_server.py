"""Hubbub as its users write it, with its defaults, in one process like the others."""

from command_line import command_line

from hubbub import Frame, Request, Server


def main(workload: str, port: int) -> None:
    """Serve until SIGTERM."""
    server = Server("127.0.0.1", port, workers=1, origins="*")

    def echo(server: Server, frame: Frame) -> None:
        server.push(frame.fd, frame.data)

    async def echo_async(server: Server, frame: Frame) -> None:
        server.push(frame.fd, frame.data)

    def subscribe(server: Server, request: Request) -> None:
        if request.path == "/fanout":
            server.subscribe(request.fd, "fan")

    def publish(server: Server, frame: Frame) -> None:
        server.publish("fan", frame.data)

    match workload:
        case "echo":
            server.on("message", echo)
        case "echo-async":
            server.on("message", echo_async)
        case "fanout":
            server.on("open", subscribe)
            server.on("message", publish)

    @server.on("start")
    def started(server: Server) -> None:
        print(server.port, flush=True)

    server.start()


if __name__ == "__main__":
    main(*command_line("echo", "echo-async", "fanout"))
