"""`start()`: a master and its workers, and the signals that end them."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from application import KINDS
from raw_client import RawClient
from running import all_from, refuses_connections
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from hubbub import Opcode, Server

# What every program of this file begins and ends with; its processes tell their events line by line.
BEGIN = """
import asyncio, os, signal, sys, threading, time
from hubbub import Server

server = Server(port=0, **SETTINGS)

def tell(*values):
    # A line in one piece, for several processes write.
    os.write(1, (" ".join(map(str, values)) + "\\n").encode())

@server.on("start")
def on_start(server):
    tell("port", server.port)
"""
END = """
server.start()
tell("start() has returned")
"""
LIFE = """
server.on("worker_start", lambda server, worker_id: tell("worker_start", worker_id))
server.on("worker_stop", lambda server, worker_id: tell("worker_stop", worker_id))
server.on("shutdown", lambda server: tell("shutdown"))
server.on("open", lambda server, request: tell("open"))
server.on("close", lambda server, fd, code: tell("close", code))
"""


class Program:
    """A program that serves, and its master's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    async def line(self) -> str:
        """Read the next line of its output, empty at the end."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip()

    async def serves(self) -> list[str]:
        """Wait until it serves; return what it has told until then."""
        told = []
        while not (line := await self.line()).startswith("port "):
            assert line, await self.errors()
            told.append(line)
        self.port = int(line.removeprefix("port "))
        return told

    def connect(self) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}", proxy=None, ping_interval=None)

    async def rest(self) -> list[str]:
        """Read its output to the end, which is that of all its processes."""
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode().splitlines()

    async def errors(self) -> str:
        """Read all that it writes to standard error."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def status(self) -> int:
        """Wait for its end, and return its exit status."""
        return await self.process.wait()


Run = Callable[..., AbstractAsyncContextManager[Program]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program that consists of BEGIN, its own lines, and END; with one worker unless told."""

    @contextlib.asynccontextmanager
    async def run(lines: str = LIFE, **settings: object) -> AsyncIterator[Program]:
        program = tmp_path / "program.py"
        settings = {"workers": 1, **settings}
        program.write_text(f"SETTINGS = {settings!r}\n{BEGIN}\n{textwrap.dedent(lines)}\n{END}")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, program, stdout=pipe, stderr=pipe)
        try:
            yield Program(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return run


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_gracefully(run: Run, number: signal.Signals, workers: int) -> None:
    async with run(workers=workers) as program:
        assert sorted(await program.serves()) == [f"worker_start {worker_id}" for worker_id in range(workers)]
        async with program.connect() as client:
            assert await program.line() == "open"
            program.process.send_signal(number)
            await client.wait_closed()
            assert client.close_code == 1001
        *told, shutdown, end = await program.rest()
        assert sorted(told) == ["close 1001", *(f"worker_stop {worker_id}" for worker_id in range(workers))]
        assert (shutdown, end) == ("shutdown", "start() has returned")
        assert await program.status() == 0


async def test_shutdown_stops_it_gracefully(run: Run) -> None:
    lines = LIFE + 'server.on("message", lambda server: server.shutdown())\n'
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("stop")
            await client.wait_closed()
            assert client.close_code == 1001
        assert await program.rest() == [
            "open",
            "close 1001",
            "worker_stop 0",
            "shutdown",
            "start() has returned",
        ]
        assert await program.status() == 0


async def test_a_second_signal_ends_it_at_once(run: Run) -> None:
    lines = """
    @server.on("message")
    async def on_message(server):
        tell("busy")
        await asyncio.Event().wait()

    server.on("worker_stop", lambda server: tell("worker_stop"))
    """
    async with run(lines, shutdown_timeout=60.0) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("hello")
            assert await program.line() == "busy"
            program.process.send_signal(signal.SIGTERM)
            # It has begun to stop when it takes no new connection any more.
            await refuses_connections(program.port)
            program.process.send_signal(signal.SIGTERM)
            assert await program.status() not in (0, None)
            assert await program.rest() == []


async def test_a_signal_is_heeded_while_a_handler_blocks_the_event_loop(run: Run) -> None:
    lines = """
    @server.on("message")
    def on_message(server):
        tell("blocks")
        time.sleep(3600)
    """
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("hello")
            assert await program.line() == "blocks"
            program.process.send_signal(signal.SIGINT)
            # Two signals of one kind that come at the same time count as one.
            while program.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    program.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.01)
            assert await program.status() != 0
            # The worker goes along, although its handler still sleeps.
            assert await program.rest() == []


async def test_handlers_that_run_may_end(run: Run) -> None:
    lines = LIFE + textwrap.dedent("""
    @server.on("message")
    async def on_message(server, frame):
        goes_on = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, goes_on.set)
        tell("begins", os.getpid())
        await goes_on.wait()
        tell("exists", server.exists(frame.fd), server.push(frame.fd, "the answer"))
    """)
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("hello")
            assert await program.line() == "open"
            begins, worker = (await program.line()).split()
            assert begins == "begins"
            program.process.send_signal(signal.SIGTERM)
            await refuses_connections(program.port)
            os.kill(int(worker), signal.SIGUSR1)
            assert await all_from(client) == ["the answer"]
            assert client.close_code == 1001
        rest = await program.rest()
        assert rest == ["exists True True", "close 1001", "worker_stop 0", "shutdown", "start() has returned"]
        assert await program.status() == 0


async def test_a_handler_that_does_not_end_is_cancelled_after_shutdown_timeout(run: Run) -> None:
    lines = LIFE + textwrap.dedent("""
    @server.on("message")
    async def on_message(server, frame):
        tell("begins")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            tell("cancelled")
            raise
    """)
    async with run(lines, shutdown_timeout=0.1) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("hello")
            assert [await program.line(), await program.line()] == ["open", "begins"]
            program.process.send_signal(signal.SIGTERM)
            await client.wait_closed()
            assert client.close_code == 1001
            assert await program.line() == "cancelled"
        rest = await program.rest()
        assert rest[0].startswith("close ")
        assert rest[1:] == ["worker_stop 0", "shutdown", "start() has returned"]
        assert await program.status() == 0


async def test_a_thread_that_does_not_end_is_left_behind(run: Run) -> None:
    lines = """
    def on_message(server):
        tell("blocks")
        threading.Event().wait()

    server.on("message", on_message, threaded=True)
    server.on("worker_stop", lambda server: tell("worker_stop"))
    """
    async with run(lines, shutdown_timeout=0.1) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("hello")
            assert await program.line() == "blocks"
            program.process.send_signal(signal.SIGTERM)
            await client.wait_closed()
        assert await program.rest() == ["worker_stop", "start() has returned"]
        assert await program.status() == 0


async def test_a_client_that_does_not_answer_the_close_is_cut_off(run: Run) -> None:
    async with run(shutdown_timeout=0.1) as program:
        await program.serves()
        async with RawClient(program.port) as client:
            await client.upgrade()
            program.process.send_signal(signal.SIGTERM)
            assert (await client.close_frame())[0] == 1001
            assert await client.rest() == b""
        assert "close 1006" in await program.rest()
        assert await program.status() == 0


async def test_async_close_handlers_may_take_their_time(run: Run) -> None:
    lines = """
    @server.on("close")
    async def on_close(server, fd, code):
        await asyncio.sleep(0.05)
        tell("closed", code, server.info(fd) is not None)

    server.on("worker_stop", lambda server: tell("worker_stop"))
    """
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client, program.connect() as other:
            await client.ping()
            await other.ping()
            program.process.send_signal(signal.SIGTERM)
            await client.wait_closed()
            await other.wait_closed()
        assert await program.rest() == [
            "closed 1001 True",
            "closed 1001 True",
            "worker_stop",
            "start() has returned",
        ]
        assert await program.status() == 0


async def test_a_port_in_use_is_one_line_and_status_1(run: Run) -> None:
    async with Server(port=0) as other, run(port_of_another(other)) as program:
        assert await program.rest() == []
        errors = (await program.errors()).splitlines()
        assert len(errors) == 1
        assert str(other.port) in errors[0]
        assert "in use" in errors[0]
        assert await program.status() == 1


def port_of_another(server: Server) -> str:
    return f"server = Server(port={server.port})"


async def test_an_unknown_host_is_one_line_and_status_1(run: Run) -> None:
    async with run('server = Server("host.invalid")') as program:
        errors = (await program.errors()).splitlines()
        assert len(errors) == 1
        assert "host.invalid" in errors[0]
        assert await program.status() == 1


async def test_a_certificate_that_is_missing_is_one_line_and_status_1(run: Run) -> None:
    async with run(ssl_certfile="missing.pem", ssl_keyfile="missing.key") as program:
        errors = (await program.errors()).splitlines()
        assert len(errors) == 1
        assert "missing.pem" in errors[0]
        assert await program.status() == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_system_exit_in_a_handler_lets_the_writes_of_the_turn_out(run: Run, kind: str) -> None:
    lines = f"""
    server.on("worker_start", lambda: tell("worker_start"))

    @server.on("message", threaded={kind == "threaded"})
    {"async " if kind in ("async", "suspending") else ""}def on_message(server, frame):
        {"await asyncio.sleep(0)" if kind == "suspending" else ""}
        server.push(frame.fd, "last words")
        sys.exit(7)
    """
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("hello")
            assert await all_from(client) == ["last words"]
        # It has ended the worker, and there is another.
        assert await program.line() == "worker_start"
        program.process.terminate()
        assert await program.status() == 0


@pytest.mark.parametrize(
    "lines",
    [
        'server.on("handshake", lambda server: sys.exit(7))',
        'server.on("open", lambda server: sys.exit(7))',
        'server.on("open", lambda server: server.after(0, sys.exit, 7))',
        'server.on("open", lambda server, request: server.disconnect(request.fd))\n'
        'server.on("close", lambda server: sys.exit(7))',
    ],
)
async def test_system_exit_ends_the_worker_wherever_it_is_raised_and_it_is_replaced(run: Run, lines: str) -> None:
    async with run('server.on("worker_start", lambda: tell("worker_start"))\n' + lines) as program:
        assert await program.serves() == ["worker_start"]
        with contextlib.suppress(WebSocketException, EOFError, OSError):
            async with program.connect() as client:
                await client.wait_closed()
        assert await program.line() == "worker_start"
        program.process.terminate()
        assert await program.status() == 0


async def test_system_exit_before_the_first_worker_serves_is_status_3(run: Run) -> None:
    async with run('server.on("worker_start", lambda server: sys.exit(7))') as program:
        assert await program.rest() == []
        assert await program.status() == 3


@pytest.mark.parametrize(("event", "status"), [("worker_stop", 0), ("shutdown", 7)])
async def test_system_exit_at_the_end_is_the_status_where_the_master_raises_it(
    run: Run, event: str, status: int
) -> None:
    async with run(f'server.on("{event}", lambda: sys.exit(7))') as program:
        await program.serves()
        program.process.terminate()
        assert await program.status() == status


async def test_a_worker_start_that_raises_is_logged_and_the_server_serves(run: Run) -> None:
    lines = """
    @server.on("worker_start")
    def on_worker_start(server):
        raise LookupError("in worker_start")
    """
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client:
            await (await client.ping())
        program.process.terminate()
        assert "LookupError: in worker_start" in await program.errors()
        assert await program.status() == 0


async def test_start_logs_to_standard_error_where_the_program_sets_nothing_up(run: Run) -> None:
    async with run() as program:
        await program.serves()
        program.process.terminate()
        errors = await program.errors()
        assert f"listening on 127.0.0.1 port {program.port}" in errors
        assert "SIGTERM" in errors


async def test_log_level_is_that_of_the_logger(run: Run) -> None:
    async with run(log_level="error") as program:
        await program.serves()
        program.process.terminate()
        assert await program.errors() == ""


async def test_the_signal_handlers_of_the_program_are_back_after_start(run: Run) -> None:
    lines = """
    def ours(number, frame):
        pass

    signal.signal(signal.SIGTERM, ours)
    server.on("message", lambda server: server.shutdown())
    import atexit
    atexit.register(lambda: tell(signal.getsignal(signal.SIGTERM) is ours))
    """
    async with run(lines) as program:
        await program.serves()
        async with program.connect() as client:
            await client.send("stop")
            await client.wait_closed()
        assert (await program.rest())[-1] == "True"


async def test_a_large_answer_still_goes_out_during_the_stop(run: Run) -> None:
    lines = """
    @server.on("message")
    def on_message(server, frame):
        server.push(frame.fd, bytes(3_000_000))
        tell("pushed")
    """
    async with run(lines) as program:
        await program.serves()
        async with RawClient(program.port, receive_buffer=4096) as client:
            await client.upgrade()
            client.send_frame(Opcode.TEXT, b"hello")
            assert await program.line() == "pushed"
            program.process.terminate()
            assert len((await client.frame()).payload) == 3_000_000
            assert (await client.close_frame())[0] == 1001
            client.send_close(1001)
        assert await program.status() == 0


@pytest.mark.parametrize("event", ["worker_start", "start"])
@pytest.mark.parametrize("way", ["signal", "shutdown"])
async def test_it_stops_although_a_handler_of_the_start_does_not_end(run: Run, event: str, way: str) -> None:
    lines = f"""
    server = Server(port=0, workers=1, shutdown_timeout=0.1)

    @server.on("{event}")
    async def never_ends(server):
        {"server.shutdown()" if way == "shutdown" else ""}
        tell("begins")
        await asyncio.Event().wait()
    """
    async with run(lines) as program:
        assert await program.line() == "begins"
        if way == "signal":
            program.process.terminate()
        assert await program.rest() == ["start() has returned"]
        assert await program.status() == 0


@pytest.mark.parametrize(("max_connections", "warns"), [(256, False), (257, True)])
async def test_the_limit_of_open_files_is_raised(run: Run, max_connections: int, warns: bool) -> None:
    lines = """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))
    server.on("worker_start", lambda: tell("files", *resource.getrlimit(resource.RLIMIT_NOFILE)))
    """
    async with run(lines, max_connections=max_connections) as program:
        assert await program.serves() == ["files 256 256"]
        program.process.terminate()
        assert (f"max_connections={max_connections}" in await program.errors()) is warns
        assert await program.status() == 0
