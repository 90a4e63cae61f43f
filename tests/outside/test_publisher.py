"""`Publisher`: messages from another process arrive, and its questions are answered."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from outside_server import PATIENCE, SEND_QUEUE_SIZE, Client, OutsideServer, run_program

from hubbub import Publisher
from ports import free_port


@pytest.fixture
def hub(server: OutsideServer) -> Iterator[Publisher]:
    with Publisher(server.control) as hub:
        yield hub


@pytest.fixture
def clients(server: OutsideServer, hub: Publisher) -> Iterator[tuple[Client, Client]]:
    """One client of each worker, both subscribed to `news`."""

    def worker_of(client: Client) -> int:
        info = hub.info(client.fd)
        assert info
        return info.worker_id

    with server.client("news") as one:
        while True:
            # Nearly always the first is in the other worker; if that one was slow to take it, the next.
            with server.client("news") as other:
                if worker_of(other) != worker_of(one):
                    yield one, other
                    return


# ---- sending ---------------------------------------------------------------------------------------------


def test_a_push_reaches_a_connection_of_any_worker(hub: Publisher, clients: tuple[Client, Client]) -> None:
    for client in clients:
        assert hub.push(client.fd, "text") is True
        assert hub.push(client.fd, bytearray(b"bytes")) is True
        assert hub.push(client.fd, b"text after all", opcode=1) is True
        assert client.texts(3) == ["text", b"bytes", "text after all"]
    infos = [hub.info(client.fd, timeout=float("inf")) for client in clients]
    assert sorted(info.worker_id for info in infos if info) == [0, 1]


def test_a_dict_or_list_arrives_as_json_text(hub: Publisher, clients: tuple[Client, Client]) -> None:
    assert hub.push(clients[0].fd, {"text": "é", "count": 1})
    hub.publish("news", [1, {}])
    hub.broadcast({})
    assert hub.push(clients[0].fd, [], opcode=2)
    assert clients[0].texts(4) == ['{"text":"é","count":1}', "[1,{}]", "{}", b"[]"]
    for call in (hub.broadcast, lambda data: hub.push(clients[0].fd, data), lambda data: hub.publish("news", data)):
        with pytest.raises(TypeError, match="data must be encodable as JSON"):
            call({"set": {1}})


@pytest.mark.parametrize("fd", [0, -1, 12345, 2**53, 2**80])
def test_what_is_no_connection_gets_nothing(hub: Publisher, fd: int) -> None:
    assert hub.push(fd, "hello") is False
    assert hub.disconnect(fd) is False
    assert hub.info(fd) is None


def test_a_publish_reaches_the_subscribers_in_all_workers(
    hub: Publisher, server: OutsideServer, clients: tuple[Client, Client]
) -> None:
    with server.client() as bystander:
        hub.publish("news", "for both")
        hub.publish("news", b"for one", exclude=(fd for fd in [clients[0].fd]))
        assert hub.push(clients[0].fd, "the end")
        assert clients[0].texts(2) == ["for both", "the end"]
        assert clients[1].texts(2) == ["for both", b"for one"]
        assert bystander.nothing_came()


def test_a_broadcast_reaches_everyone(hub: Publisher, clients: tuple[Client, Client]) -> None:
    hub.broadcast("for both")
    hub.broadcast("for one", exclude=[clients[1].fd])
    assert hub.push(clients[1].fd, "the end")
    assert clients[0].texts(2) == ["for both", "for one"]
    assert clients[1].texts(2) == ["for both", "the end"]


def test_a_disconnect_comes_after_what_was_sent_before(hub: Publisher, clients: tuple[Client, Client]) -> None:
    for client in clients:
        hub.publish("news", "last words", exclude={each.fd for each in clients} - {client.fd})
        assert hub.disconnect(client.fd, 4000, "bye") is True
        assert client.next() == "last words"
        assert client.close_code() == (4000, "bye")


def test_calls_of_all_kinds_arrive_in_their_order(hub: Publisher, clients: tuple[Client, Client]) -> None:
    expected = []
    for number in range(0, 900, 3):
        hub.publish("news", str(number))
        hub.broadcast(str(number + 1))
        for client in clients:
            assert hub.push(client.fd, str(number + 2))
        expected += [str(number), str(number + 1), str(number + 2)]
    for client in clients:
        assert client.texts(len(expected)) == expected


def test_a_hundred_thousand_publishes_all_arrive(hub: Publisher, server: OutsideServer) -> None:
    texts = [str(number) for number in range(100_000)]
    with server.client("flood") as client:
        for text in texts:
            hub.publish("flood", text)
        assert client.texts(len(texts)) == texts


def test_a_message_may_be_as_long_as_the_servers_queue(hub: Publisher, clients: tuple[Client, Client]) -> None:
    long = "x" * 1_000_000
    for _ in range(4):
        hub.publish("news", long)
    for client in clients:
        assert client.texts(4) == [long] * 4
    with pytest.raises(ValueError, match=f"larger than send_queue_size, which is {SEND_QUEUE_SIZE}"):
        hub.publish("news", bytes(SEND_QUEUE_SIZE + 1))


# ---- asking ----------------------------------------------------------------------------------------------


def test_subscribers_are_counted_behind_what_was_sent_before(hub: Publisher, clients: tuple[Client, Client]) -> None:
    assert hub.subscribers("news") == 2
    assert hub.subscribers("weather") == 0


def test_connections_are_those_that_are_open(hub: Publisher, server: OutsideServer) -> None:
    with server.client() as one, server.client() as other:
        assert {one.fd, other.fd} <= set(hub.connections())
        assert hub.disconnect(one.fd)
        assert one.close_code() == (1000, "")
        assert one.fd not in hub.connections()
        assert other.fd in hub.connections()


def test_info_tells_what_a_connection_has_done(hub: Publisher, clients: tuple[Client, Client]) -> None:
    assert clients[0].nothing_came()
    info = hub.info(clients[0].fd)
    assert info is not None
    assert info.fd == clients[0].fd
    assert info.client[0] == "127.0.0.1"
    assert (info.messages_in, info.bytes_in, info.messages_out) == (1, len("nothing?"), 2)
    assert time.time() - PATIENCE < info.opened_at <= info.last_received_at <= time.time()


def test_stats_are_those_of_the_whole_server(hub: Publisher, clients: tuple[Client, Client]) -> None:
    stats = hub.stats()
    assert [worker["worker_id"] for worker in stats["workers"]] == [0, 1]
    assert stats["connections"] == sum(worker["connections"] for worker in stats["workers"]) >= 2
    assert stats["started_at"] <= time.time()


# ---- a caller's mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "error", "says"),
    [
        (lambda hub: hub.push("1", "x"), TypeError, "fd must be an int"),
        (lambda hub: hub.push(1, 5), TypeError, "data must be str, bytes-like, a dict or a list"),
        (lambda hub: hub.push(1, "x", opcode=0), ValueError, "opcode must be 1"),
        (lambda hub: hub.push(1, "x", opcode=9), ValueError, "opcode must be"),
        (lambda hub: hub.push(1, b"\xff", opcode=1), ValueError, "UTF-8"),
        (lambda hub: hub.push(1, "\ud800"), ValueError, "^data must be text that UTF-8 can express"),
        (lambda hub: hub.broadcast("\ud800"), ValueError, "^data must be text that UTF-8 can express"),
        (lambda hub: hub.publish("news", "\ud800"), ValueError, "^data must be text that UTF-8 can express"),
        (lambda hub: hub.send_message("\ud800", 0), ValueError, "^data must be text that UTF-8 can express"),
        (lambda hub: hub.push(1, "x", timeout=0), ValueError, "timeout must be"),
        (lambda hub: hub.publish("", "x"), ValueError, "topic must have 1 to 255 bytes"),
        (lambda hub: hub.publish("é" * 128, "x"), ValueError, "topic must have 1 to 255 bytes"),
        (lambda hub: hub.publish("news", None), TypeError, "data must be str, bytes-like, a dict or a list"),
        (lambda hub: hub.publish("news", "x", exclude=["1"]), TypeError, "exclude must be ids \\(int\\), not str"),
        (lambda hub: hub.broadcast("x", exclude=5), TypeError, "iterable"),
        (lambda hub: hub.disconnect(1, 1005), ValueError, "may not be sent"),
        (lambda hub: hub.disconnect(1, 1000, "x" * 124), ValueError, "at most 123 bytes"),
        (lambda hub: hub.subscribers("x" * 256), ValueError, "topic must have 1 to 255 bytes"),
    ],
)
def test_a_mistake_is_told_and_does_no_harm(
    hub: Publisher, mistake: Callable[[Any], object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        mistake(hub)
    assert hub.push(1, "still there") is False


def test_a_timeout_must_be_one() -> None:
    with pytest.raises(ValueError, match="above 0, not -1"):
        Publisher(timeout=-1)


# ---- no server, or one that does not answer --------------------------------------------------------------


def test_without_a_server_the_error_names_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.sock"
    with pytest.raises(ConnectionError, match=f"{missing}: there is no such socket"):
        Publisher(missing).publish("news", "hello")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    port = free_port()
    with pytest.raises(ConnectionError, match=rf"hubbub-\d+/{port}.sock: there is no such socket"):
        Publisher(port=port).__enter__()


def test_what_is_no_server_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConnectionError, match="file: nothing is listening there"):
        Publisher(tmp_path / "file").stats()


def publish_without_end(hub: Publisher) -> None:
    for _ in range(1000):
        hub.publish("news", bytes(100_000), timeout=0.1)
    raise AssertionError("nothing bounds it")


def test_a_server_that_does_not_answer_in_time_is_a_timeout(own_server: OutsideServer) -> None:
    with own_server.client("news") as client, Publisher(own_server.control, timeout=PATIENCE) as hub:
        own_server.freeze()
        with pytest.raises(TimeoutError, match=r"control\.sock.* did not answer in time"):
            hub.push(client.fd, "late", timeout=0.1)
        with pytest.raises(TimeoutError, match=r"control\.sock"):
            Publisher(own_server.control, timeout=0.1).stats()
        with pytest.raises(TimeoutError, match="did not respond in time"):
            publish_without_end(hub)
        own_server.thaw()
        assert hub.push(client.fd, "in time")
        assert client.next() == "late"


# ---- restarts --------------------------------------------------------------------------------------------


def test_a_publisher_outlives_the_server(own_server: OutsideServer) -> None:
    hub = Publisher(own_server.control)
    for _ in range(2):
        with own_server.client("news") as client:
            hub.publish("news", "hello")
            assert client.next() == "hello"
        own_server.stop()
        with pytest.raises(ConnectionError, match=r"control\.sock"):
            hub.publish("news", "nobody is there")
        own_server.start()
    own_server.stop()
    own_server.start()
    assert hub.connections() == []


def test_what_was_asked_when_the_server_died_is_an_error(own_server: OutsideServer) -> None:
    hub = Publisher(own_server.control, timeout=PATIENCE)
    assert hub.connections() == []
    own_server.freeze()
    errors = []

    def ask() -> None:
        try:
            hub.stats()
        except ConnectionError as error:
            errors.append(str(error))

    askers = [Thread(target=ask) for _ in range(5)]
    for asker in askers:
        asker.start()
    own_server.kill()
    for asker in askers:
        asker.join(PATIENCE)
    assert len(errors) == 5
    own_server.start()
    assert hub.connections() == []


def test_closing_tells_if_what_was_published_may_be_lost(own_server: OutsideServer) -> None:
    publisher, asker = Publisher(own_server.control), Publisher(own_server.control)
    publisher.publish("news", "hello")
    assert asker.push(1, "nobody") is False
    own_server.kill()
    with pytest.raises(ConnectionError, match=r"control\.sock"):
        publisher.close()
    asker.close()


def test_closing_hides_no_other_error(own_server: OutsideServer) -> None:
    def fail() -> None:
        with Publisher(own_server.control) as hub:
            hub.publish("news", "hello")
            own_server.kill()
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_a_closed_publisher_connects_anew(hub: Publisher, clients: tuple[Client, Client]) -> None:
    for number in range(3):
        hub.publish("news", str(number))
        hub.close()
    hub.close()
    assert clients[0].texts(3) == ["0", "1", "2"]


# ---- threads and processes -------------------------------------------------------------------------------


def test_each_threads_calls_arrive_in_their_order(hub: Publisher, clients: tuple[Client, Client]) -> None:
    def work(name: str) -> None:
        for number in range(300):
            hub.publish("news", f"{name} {number}")
            assert hub.push(clients[0].fd, f"{name} {number}")

    threads = [Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for client, times in zip(clients, (2, 1), strict=True):
        came = [str(text).split() for text in client.texts(4 * 300 * times)]
        for name in "abcd":
            numbers = [int(number) for whose, number in came if whose == name]
            assert numbers == [number for number in range(300) for _ in range(times)]


def test_what_was_published_is_sent_before_the_program_ends(server: OutsideServer) -> None:
    with server.client("news") as client:
        run_program(
            """
            import sys
            from hubbub import Publisher

            def publish():
                forgotten = Publisher(sys.argv[1])
                for number in range(10_000):
                    forgotten.publish("news", str(number))

            publish()
            hub = Publisher(sys.argv[1])
            hub.publish("news", "the end")
            """,
            server.control,
        )
        came = client.texts(10_001)
    assert [text for text in came if text != "the end"] == [str(number) for number in range(10_000)]


def test_a_forked_child_has_its_own_connection(server: OutsideServer) -> None:
    with server.client("news") as client:
        run_program(
            """
            import os, sys, threading, warnings
            from hubbub import Publisher

            warnings.simplefilter("ignore")
            hub = Publisher(sys.argv[1])
            goes_on = True

            def keep_locks_busy():
                while goes_on:
                    hub.publish("other", "x")

            threads = [threading.Thread(target=keep_locks_busy) for _ in range(4)]
            for thread in threads:
                thread.start()
            for number in range(20):
                hub.publish("news", f"parent {number}")
                if not (pid := os.fork()):
                    hub.publish("news", f"child {number}")
                    hub.close()
                    os._exit(hub.push(1, "nobody"))
                assert os.waitpid(pid, 0)[1] == 0
            goes_on = False
            for thread in threads:
                thread.join()
            hub.publish("news", "the end")
            hub.close()
            """,
            server.control,
        )
        came = client.texts(41)
    assert sorted(came, key=str) == sorted(
        [f"{who} {n}" for who in ("parent", "child") for n in range(20)] + ["the end"]
    )
    assert [text for text in came if str(text).startswith("parent")] == [f"parent {number}" for number in range(20)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_sends_what_it_has_published(
    server: OutsideServer, tmp_path: Path, method: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text("""\
import multiprocessing, sys, warnings
from hubbub import Publisher

warnings.simplefilter("ignore")
hub = Publisher(sys.argv[1])

def work(number):
    hub.publish("news", f"child {number}")

if __name__ == "__main__":
    hub.publish("news", "parent")
    context = multiprocessing.get_context(sys.argv[2])
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
""")
    with server.client("news") as client:
        run_program(program, server.control, method)
        assert sorted(client.texts(4), key=str) == ["child 0", "child 1", "child 2", "parent"]
