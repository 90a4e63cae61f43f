"""Echoes every message, serves the browser client, and reports its port."""

from hubbub import Frame, Refuse, Request, Response, Server, client_path

PAGE = """<!doctype html>
<title>A page with the client</title>
<link rel="icon" href="data:,">
<script type="module">
  import { connect } from "/hubbub.js";
  globalThis.connect = connect;
</script>
"""
WORKER = """
import { connect } from "/hubbub.js";
const socket = connect("/echo");
socket.onmessage = ({ data }) => { socket.close(); postMessage([socket.url, data]); };
socket.send("from a worker");
"""

server = Server("127.0.0.1", 0, workers=1)


@server.on("start")
def on_start(server: Server) -> None:
    print(server.port, flush=True)


@server.on("request")
def on_request(server: Server, request: Request) -> Response | str | None:
    if request.path == "/":
        return PAGE
    if request.path == "/hubbub.js":
        return Response(client_path().read_bytes(), content_type="text/javascript")
    if request.path == "/worker.js":
        return Response(WORKER, content_type="text/javascript")
    return None


@server.on("handshake")
def on_handshake(server: Server, request: Request) -> Refuse | None:
    return Refuse(4401, "log in first: 请登录") if request.path == "/private" else None


@server.on("message")
def on_message(server: Server, frame: Frame) -> None:
    server.push(frame.fd, frame.data)


server.start()
