"""Programs that misbehave on the control socket: each is cut off, and no other client notices."""

import array
import asyncio
import contextlib
import random
import re
import resource
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from hub_server import HubServer, StartHub
from raw_peer import PATIENCE
from server_process import MIB, wait_until

from hubbub import Publisher

VERSION = 6
# Milliseconds for the answer to a question.
PATIENCE_MS = 5000
# The kinds of messages, commands and questions (their first bytes), and the formats of data.
COMMAND, ASK, ANSWER, SOCKETS, LEAVE, SENDER_GONE, READY, LEAVING, RELOAD, SHUTDOWN, HELLO, WELCOME = range(1, 13)
PUSH, OVERFLOW, PING, DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, BROADCAST, PIPE_MESSAGE = range(1, 10)
DRAIN = 31
DO, SUBSCRIBERS, STATS, CONNECTIONS = range(1, 5)
DRAIN_ALL = 20
TEXT, BINARY = 1, 2

FD = struct.pack("<Q", 1)
# Up to 4 MiB of answers may wait for a program.
MAX_MEMORY = 16 * MIB
NOBODY_EXCLUDED = struct.pack("<I", 0)


def framed(content: bytes) -> bytes:
    """Return a frame: a length, and what follows."""
    return struct.pack("<I", len(content)) + content


def message(kind: int, content: bytes = b"") -> bytes:
    """Return the frame of a message."""
    return framed(bytes([kind]) + content)


def command(kind: int, content: bytes = b"") -> bytes:
    """Return the frame of a command."""
    return message(COMMAND, bytes([kind]) + content)


def question(kind: int, content: bytes = b"") -> bytes:
    """Return the frame of a question."""
    return message(ASK, struct.pack("<QIB", 7, PATIENCE_MS, kind) + content)


GREETING = message(HELLO, struct.pack("<I", VERSION))

# First messages that a program must not send.
NO_GREETINGS = {
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(1000),
    "an empty message": framed(b""),
    "half a greeting": message(HELLO, b"\x01"),
    "too long a greeting": message(HELLO, bytes(5)),
    "a command": command(BROADCAST, bytes([TEXT]) + NOBODY_EXCLUDED + b"hello"),
    "a question": question(STATS),
    "a frame of 4 GB": struct.pack("<I", 0xFFFFFFFF) + GREETING,
}

# Later messages that it must not send.
MISBEHAVIOURS = {
    "garbage": random.Random(3).randbytes(1000),
    "an empty message": framed(b""),
    "an unknown message": message(99),
    "an unknown command": command(99),
    "an unknown question": question(99),
    "a command without its fields": command(PUSH, FD[:5]),
    "a frame of 4 GB": struct.pack("<I", 0xFFFFFFFF),
    "a frame of 100 MB": struct.pack("<I", 100_000_000),
    "4 billion ids to leave out": command(BROADCAST, struct.pack("<BI", TEXT, 0xFFFFFFFF)),
    "a greeting again": GREETING,
    "a welcome": message(WELCOME, struct.pack("<IQ", VERSION, 1)),
    "an answer": message(ANSWER, struct.pack("<QBB", 1, DO, 1)),
    "sockets": message(SOCKETS, struct.pack("<HI", 1, 0)),
    "leave": message(LEAVE, b"\0"),
    "draining, as a worker is told": message(DRAIN, struct.pack("<I", 0)),
    "sender gone": message(SENDER_GONE),
    "ready": message(READY),
    "leaving": message(LEAVING),
    "reload": message(RELOAD),
    "shutdown": message(SHUTDOWN),
    "an overflow": command(OVERFLOW, FD + FD),
    "a message to a worker": command(PIPE_MESSAGE, bytes([0, 1, 1]) + b"hello"),
    "a push of text that is not UTF-8": command(PUSH, FD + bytes([TEXT, 1]) + b"\xff"),
    "a push with an unknown opcode": command(PUSH, FD + bytes([9, 1])),
    "a publish of text that is not UTF-8": command(
        PUBLISH, struct.pack("<H", 4) + b"news" + bytes([TEXT]) + NOBODY_EXCLUDED + b"\xff"
    ),
    "a topic that is not UTF-8": command(SUBSCRIBE, FD + b"\xff"),
    "an empty topic": command(SUBSCRIBE, FD),
    "a topic that is too long": command(SUBSCRIBE, FD + b"x" * 256),
    "a publish to a topic that is too long": command(
        PUBLISH, struct.pack("<H", 256) + b"x" * 256 + bytes([TEXT]) + NOBODY_EXCLUDED
    ),
    "a question for a topic that is not UTF-8": question(SUBSCRIBERS, b"\xff"),
    "a time for draining that is cut short": question(DRAIN_ALL, b"\0\0"),
    "a close code that may not be sent": command(DISCONNECT, FD + struct.pack("<H", 1005)),
    "a reason that is too long": command(DISCONNECT, FD + struct.pack("<H", 1000) + b"x" * 124),
    "a ping that is too long": command(PING, FD + b"x" * 126),
    "a message above send_queue_size": command(PUSH, FD + bytes([BINARY, 1]) + bytes(2 * MIB)),
    "a publish as a question": question(DO, bytes([BROADCAST, TEXT]) + NOBODY_EXCLUDED),
    "a push as a question, of text that is not UTF-8": question(DO, bytes([PUSH]) + FD + bytes([TEXT, 1]) + b"\xff"),
}


class Program:
    """A program on the control socket that sends any bytes."""

    def __init__(self, server: HubServer) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(server.control))

    @classmethod
    @contextmanager
    def greeted(cls, server: HubServer) -> Iterator["Program"]:
        """Connect, and send the first message."""
        program = cls(server)
        with program.socket:
            program.socket.sendall(GREETING)
            assert program.answer() == struct.pack("<BIQ", WELCOME, VERSION, MIB)
            yield program

    def answer(self) -> bytes:
        """Read one message."""
        (length,) = struct.unpack("<I", self.socket.recv(4, socket.MSG_WAITALL))
        return self.socket.recv(length, socket.MSG_WAITALL)

    def is_cut_off(self) -> bool:
        """Wait until the hub has closed the connection, and return whether it sent nothing more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            # It had not read everything.
            return True


@asynccontextmanager
async def unnoticed(server: HubServer) -> AsyncIterator[None]:
    """Assert that nobody else is affected: throughout the block, a publisher pushes to WebSockets, and gets answers."""
    enough = threading.Event()
    async with server.clients() as clients:
        with server.publisher() as hub:
            others = asyncio.get_running_loop().run_in_executor(
                None, go_on, hub, [client.fd for client in clients], enough
            )
            try:
                yield
            finally:
                enough.set()
                count = await others
        for client in clients:
            assert [await client.receive() for _ in range(count)] == [str(number) for number in range(count)]
            assert await client.ask("server.worker_id") == client.worker_id
            assert client.close_code is None


def go_on(hub: Publisher, fds: list[int], enough: threading.Event) -> int:
    """Push numbers until `enough` is set; return how many went to each connection."""
    count = 0
    while not enough.is_set():
        for fd in fds:
            assert hub.push(fd, str(count))
        assert set(fds) <= set(hub.connections())
        count += 1
    return count


def assert_cut_off(server: HubServer, said: dict[str, bytes], greets: bool) -> None:
    """Assert that each of these ends its program's connection, and does nothing else."""
    for name, bytes_said in said.items():
        with ExitStack() as stack:
            if greets:
                program = stack.enter_context(Program.greeted(server))
            else:
                program = Program(server)
                stack.enter_context(program.socket)
            # It may be cut off while it still sends.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                program.socket.sendall(bytes_said)
            assert program.is_cut_off(), name


def assert_told(server: HubServer, times: int) -> None:
    """Assert that the log reports this many programs, in lines that stand for one or for several."""

    def told() -> int:
        return sum(map(int, re.findall(r"(\d+) programs? on the control socket misbehaved", server.log())))

    wait_until(lambda: told() == times, f"the log reports {times} programs")


@pytest.mark.parametrize(("said", "greets"), [(NO_GREETINGS, False), (MISBEHAVIOURS, True)], ids=["first", "later"])
async def test_who_breaks_the_rules_is_cut_off(start_hub: StartHub, said: dict[str, bytes], greets: bool) -> None:
    server = start_hub(send_queue_size=MIB)
    async with unnoticed(server):
        await asyncio.to_thread(assert_cut_off, server, said, greets)
        assert_told(server, len(said))


async def test_who_falls_silent_in_a_frame_or_says_nothing_is_cut_off(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=MIB)
    async with unnoticed(server):
        with ExitStack() as stack:
            idle = stack.enter_context(Program.greeted(server))
            silent = [Program(server), Program(server), stack.enter_context(Program.greeted(server))]
            for program in silent:
                stack.enter_context(program.socket)
            silent[1].socket.sendall(GREETING[:3])
            silent[2].socket.sendall(question(STATS)[:-1])
            for program in silent:
                assert await asyncio.to_thread(program.is_cut_off)
            # A program of which no message is incomplete stays connected.
            idle.socket.sendall(question(STATS))
            assert idle.answer()[0] == ANSWER


async def test_who_does_not_read_its_answers_is_cut_off(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=MIB)
    async with unnoticed(server):
        before = server.memory()

        async def ask_without_end(kind: int) -> None:
            with Program.greeted(server) as program:
                batch = question(kind) * 1000
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    # The hub has to end this connection.
                    while True:
                        await asyncio.to_thread(program.socket.sendall, batch)
                        assert server.memory() - before < MAX_MEMORY

        await asyncio.gather(ask_without_end(STATS), ask_without_end(CONNECTIONS))
        assert server.memory() - before < MAX_MEMORY
        assert_told(server, 2)


async def test_descriptors_that_are_sent_along_are_closed(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=MIB)
    async with unnoticed(server):
        with Program.greeted(server) as program, socket.socket() as sent:
            before = server.descriptors()
            rights = array.array("i", [sent.fileno()] * 100).tobytes()
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            for _ in range(20):
                program.socket.sendmsg([command(PUSH, FD + bytes([BINARY, 1]))], beside)
            # The hub answers this once it has read all of them.
            program.socket.sendall(question(STATS))
            assert program.answer()[0] == ANSWER
            assert server.descriptors() == before
            program.socket.sendmsg([message(SOCKETS, struct.pack("<HI", 1, 0))], beside)
            assert program.is_cut_off()
        wait_until(lambda: server.descriptors() == before - 1, "descriptors return")


async def test_2000_programs_that_only_connect(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=MIB)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with unnoticed(server):
            before = server.memory()
            with ExitStack() as stack:
                for _ in range(2000):
                    program = stack.enter_context(socket.socket(socket.AF_UNIX))
                    program.setblocking(False)
                    # The kernel refuses some, because too many are waiting already.
                    with contextlib.suppress(BlockingIOError):
                        program.connect(str(server.control))
                async with server.clients() as clients:
                    assert await clients[0].ask(f"server.push({clients[1].fd}, 'hello')")
                    assert await clients[1].receive() == "hello"
                assert server.memory() - before < MAX_MEMORY
            # There is room again.
            with server.publisher() as hub:
                assert len(hub.connections()) >= 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_random_bytes_never_bring_the_hub_down(start_hub: StartHub) -> None:
    server = start_hub(send_queue_size=MIB)
    generator = random.Random(11)

    def misbehave() -> None:
        for _ in range(300):
            with Program.greeted(server) as program:
                content = bytes([generator.choice([COMMAND, ASK])]) + generator.randbytes(generator.randrange(60))
                program.socket.sendall(framed(content))
                # If the hub has not cut this program off yet, this makes it do so.
                program.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while program.socket.recv(1 << 16):
                        pass

    async with unnoticed(server):
        await asyncio.to_thread(misbehave)
