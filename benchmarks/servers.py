"""The servers that are measured, and the ways to run them."""

import ast
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Server:
    """A server to measure.

    Attributes:
        name: Its name in the results.
        program: A file of `peers/`, or the name of a Rust binary of this crate.
        packages: The distributions whose versions belong to the result.
        options: Options of the program, in addition to `--workload`.
        echo: The value of its `--workload` that sends messages back to their sender.
        load: Options of the load generator for this server.
        variant_of: The server of which this is a variant.
        tls: Whether it speaks TLS.
    """

    name: str
    program: str
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    echo: str = "echo"
    load: tuple[str, ...] = ()
    variant_of: str | None = None
    tls: bool = False

    @property
    def is_python(self) -> bool:
        """Whether the program is a file of `peers/`."""
        return self.program.endswith(".py")

    @property
    def settings(self) -> str:
        """How it is set up, and why: the docstring of its program."""
        if not self.is_python:
            return "An epoll loop in Rust with no checks, limits or time-outs: what the kernel costs."
        return ast.get_docstring(ast.parse((PEERS / self.program).read_text())) or ""


def hubbub(how: str, *options: str, echo: str = "echo", load: tuple[str, ...] = (), tls: bool = False) -> Server:
    """Return a variant of Hubbub; the original has one worker, and handlers that are `def`."""
    return Server(f"hubbub, {how}", "hubbub_server.py", ("hubbub",), options, echo, load, "hubbub", tls)


SERVERS = {
    server.name: server
    for server in (
        Server("bare loop", "bare"),
        Server("hubbub", "hubbub_server.py", ("hubbub",)),
        hubbub("async def", echo="echo-async"),
        hubbub("2 workers", "--workers", "2"),
        hubbub("2 workers, async def", "--workers", "2", echo="echo-async"),
        hubbub("4 workers", "--workers", "4"),
        hubbub("embedded", "--embedded"),
        hubbub("wss", tls=True),
        hubbub("same worker", "--workers", "2", load=("--to", "same")),
        hubbub("other worker", "--workers", "2", load=("--to", "other")),
        hubbub("history", "--history", "100"),
        Server("hubbub, ASGI", "hubbub_asgi_server.py", ("hubbub",)),
        Server("picows", "picows_server.py", ("picows", "uvloop")),
        Server("websockets", "websockets_server.py", ("websockets", "uvloop")),
        Server("aiohttp", "aiohttp_server.py", ("aiohttp", "uvloop")),
        Server("uvicorn", "uvicorn_server.py", ("uvicorn", "httptools", "uvloop", "websockets")),
        Server(
            "Starlette on uvicorn",
            "starlette_server.py",
            ("starlette", "uvicorn", "httptools", "uvloop", "websockets"),
        ),
        Server("granian, ASGI", "granian_asgi_server.py", ("granian", "uvloop")),
        Server("granian", "granian_server.py", ("granian", "uvloop")),
        Server("socketify", "socketify_server.py", ("socketify",)),
    )
}
"""All servers, in the order of the results."""

LIMIT = "bare loop"
"""The limit: not a usable server, but the least that one can cost."""
