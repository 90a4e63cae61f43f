"""A way to Redis that can lose everything without a word, as a broken network does."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

COMMANDS, SUBSCRIPTIONS = "commands", "subscriptions"


class Relay:
    """Passes on TCP connections, in a thread of its own.

    While something is held, its bytes go nowhere, and neither do ends of connections. When it is released, they arrive
    after all, as packets do that are sent again.
    """

    port: int

    def __init__(self, target: int) -> None:
        """Start it; `target` is the port that connections are passed on to."""
        self._target = target
        self._held: set[str] = set()
        self._released: asyncio.Event
        self._is_ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._is_ready.wait()

    def url(self) -> str:
        """Return the address for the setting `broker`."""
        return f"redis://127.0.0.1:{self.port}/0"

    @contextmanager
    def holding(self, *kinds: str) -> Iterator[None]:
        """Lose what connections of these kinds transport, and what new connections do, for a block."""
        self._call(lambda: self._held.update(kinds))
        try:
            yield
        finally:
            self._call(self._release)

    def close(self) -> None:
        """End it, and all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _call(self, what: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _release(self) -> None:
        self._held.clear()
        self._released.set()
        self._released = asyncio.Event()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._released = asyncio.Event()
        server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = Connection(self)
        with suppress(OSError):
            await connection.passes()
            redis, to_redis = await asyncio.open_connection("127.0.0.1", self._target)
            ways = [
                asyncio.create_task(connection.carry(client, to_redis, is_from_client=True)),
                asyncio.create_task(connection.carry(redis, to_client, is_from_client=False)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                to_redis.close()
        to_client.close()

    async def passes(self, kind: str) -> None:
        """Wait until connections of this kind are not held."""
        while kind in self._held or (not kind and len(self._held) == 2):
            await self._released.wait()


class Connection:
    """A connection that is passed on, and its kind; empty as long as it is not known."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._kind = ""

    async def passes(self) -> None:
        """Wait until it is not held."""
        await self._relay.passes(self._kind)

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_from_client: bool) -> None:
        """Carry one direction, until its end."""
        with suppress(OSError):
            while True:
                await self.passes()
                data = await source.read(1 << 16)
                if is_from_client and self._kind != SUBSCRIPTIONS:
                    # The connection for subscriptions subscribes at once after its greeting.
                    words = {word.upper() for word in data.split(b"\r\n")}
                    if b"SUBSCRIBE" in words:
                        self._kind = SUBSCRIPTIONS
                    elif words & {b"EVAL", b"EVALSHA", b"PUBLISH", b"SCRIPT"}:
                        self._kind = COMMANDS
                await self.passes()
                if not data:
                    return
                target.write(data)
                await target.drain()


@contextmanager
def relaying(target: int) -> Iterator[Relay]:
    """Run one for a block."""
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.close()
