"""Many threads that push at once, while connections come and go."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from raw_peer import Peer
from server_process import MIB, StartServer, wait_until

THREADS = 8
MESSAGES = 10_000
STEADY = 4


def read_numbers(peer: Peer, count: int) -> dict[str, list[int]]:
    """The messages that each thread has sent, out of `count`."""
    numbers = defaultdict(list)
    for _ in range(count):
        thread, _, number = peer.read_text().partition(" ")
        numbers[thread].append(int(number))
    return numbers


def test_threads_keep_their_order_while_connections_come_and_go(start_server: StartServer) -> None:
    server = start_server(settings={"slow_consumer": "drop"})
    with ExitStack() as stack:
        steady = [stack.enter_context(server.peer("/steady")) for _ in range(STEADY)]
        readers = stack.enter_context(ThreadPoolExecutor(STEADY))
        share = THREADS * MESSAGES // STEADY
        reads = [readers.submit(read_numbers, peer, share) for peer in steady]
        server.ask("push from threads", THREADS, MESSAGES)
        while not all(read.done() for read in reads):
            with server.peer("/passing") as passing:
                seen = 0
                # The threads may end at any time, so nothing is sure to come.
                while seen < 20 and passing.can_be_read(0.01):
                    passing.read_text()
                    seen += 1
        for index, read in enumerate(reads):
            expected = list(range(index, MESSAGES, STEADY))
            assert read.result() == {str(thread): expected for thread in range(THREADS)}
    wait_until(lambda: server.ask("threads at work") == 0, "the threads end")


def test_publishes_from_a_thread_are_bounded_while_the_event_loop_is_blocked(start_server: StartServer) -> None:
    server = start_server()
    before = server.memory()
    # 800 KB of ids each.
    server.ask("publish while blocked", 200, 100_000)
    assert server.ask("stats")["commands_dropped"] > 0
    assert server.memory() - before < 100 * MIB
