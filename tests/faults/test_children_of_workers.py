"""A worker dies, and a child that it has forked lives on, with copies of all its descriptors."""

import os
import signal

import pytest
from hub_server import StartHub
from server_process import wait_until

FORKS = {
    "os.fork": "fork_away()",
    "multiprocessing": "multiprocess_away()",
    "subprocess": "__import__('subprocess').Popen(['sleep', '60'], start_new_session=True).pid",
}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS.keys())
async def test_the_death_of_a_worker_is_noticed_though_its_child_lives(start_hub: StartHub, fork: str) -> None:
    server = start_hub()
    async with server.clients() as (first, victim, _):
        child = await victim.ask(fork)
        try:
            os.kill(victim.pid, signal.SIGKILL)
            await victim.ends()
            with server.publisher() as hub:
                wait_until(lambda: victim.fd not in hub.connections(), "the connection is gone")
                assert hub.push(victim.fd, "lost") is False
            assert await first.ask(f"server.exists({victim.fd})") is False
            assert await first.ask(f"server.push({victim.fd}, 'lost')") is False
            async with server.client_of(1) as successor:
                assert successor.pid != victim.pid
                assert await first.ask(f"server.push({successor.fd}, 'hello')")
                assert await successor.receive() == "hello"
        finally:
            os.kill(child, signal.SIGKILL)
