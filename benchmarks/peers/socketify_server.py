"""socketify, which is uWebSockets, a server in C++, called through CFFI.

No time-out for idle connections, no pings, limits above what is measured, and its own topics for the fan-out. Where
compression is measured, one compressor serves all connections, as in its examples. Its documentation
recommends PyPy; here it runs on the same Python as the others. It needs the system's libuv, and polls without
sleeping while there is something to do, and for a while afterwards.
"""

from command_line import command_line
from socketify import App, AppListenOptions, CompressOptions, OpCode, WebSocket


def main(workload: str, port: int) -> None:
    """Serve until the process is terminated."""
    compress = workload == "fanout-deflate"
    app = App()

    def echo(socket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        socket.send(message, opcode)

    def subscribe(socket: WebSocket) -> None:
        socket.subscribe("fan")

    def publish(socket: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        app.publish("fan", message, opcode, compress)

    settings = {
        "compression": CompressOptions.SHARED_COMPRESSOR if compress else CompressOptions.DISABLED,
        "idle_timeout": 0,
        "max_payload_length": 2**20,
        "max_backpressure": 2**24,
    }
    app.ws("/fanout", settings | {"open": subscribe})
    app.ws("/*", settings | {"message": echo if workload == "echo" else publish})
    app.listen(AppListenOptions(port=port, host="127.0.0.1"), lambda listening: print(listening.port, flush=True))
    app.run()


if __name__ == "__main__":
    arguments = command_line("echo", "fanout", "fanout-deflate")
    main(arguments.workload, arguments.port)
