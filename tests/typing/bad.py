"""A program in which a type checker must complain about each marked line, and about no other."""

from hubbub import Endpoint, Frame, Request, Server

server = Server(max_mesage_size=1000)  # wrong
server = Server(max_message_size="1000")  # wrong
server = Server(slow_consumer="wait")  # wrong
server = Server(lifespan="maybe")  # wrong
server = Server(app="app:app")  # wrong
server = Server(app=lambda scope: None)  # wrong


def takes_frame(server: Server, frame: Frame) -> None: ...


def takes_request(server: Server, request: Request) -> None: ...


def takes_text(server: Server, fd: str) -> None: ...


def takes_member(server: Server, topic: str, fd: int, info: object) -> None: ...


def takes_too_much(server: Server, frame: Frame, more: int) -> None: ...


server.on("mesage", takes_frame)  # wrong
server.on("message", takes_request)  # wrong
server.on("open", takes_frame)  # wrong
server.on("close", takes_text)  # wrong
server.on("drain")(takes_text)  # wrong
server.on("message", takes_too_much)  # wrong
server.on("start", takes_frame)  # wrong
server.on("opne")  # wrong
server.on("join", takes_request)  # wrong
server.on("leave")(takes_frame)  # wrong
server.on("close", takes_member)  # wrong
server.on("join", takes_member)
server.topic_options("news", histroy=5)  # wrong
server.topic_options("news", history="5")  # wrong
server.topic_options("news", slow_consumer="wait")  # wrong
server.topic_options(5)  # wrong
server.publish("news", "x", key=5)  # wrong
server.join(1, "news", last="5")  # wrong

endpoint = Endpoint("/chat", max_mesage_size=1000)  # wrong
endpoint = Endpoint("/chat", subprotocols=1)  # wrong
endpoint.on("mesage", takes_frame)  # wrong
endpoint.on("start")  # wrong
endpoint.on("join")  # wrong
endpoint.on("message", takes_request)  # wrong
endpoint.on("request")(takes_frame)  # wrong
endpoint.on("close", takes_text)  # wrong
endpoint.on("message", takes_too_much)  # wrong

server.stats()["conections"]  # wrong
server.stats()["workers"][0]["workers"]  # wrong
server.stats()["connections"].upper()  # wrong
