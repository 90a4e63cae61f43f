"""Observe a server at its port."""

import asyncio


async def refuses_connections(port: int) -> None:
    """Wait until nothing listens on the port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        writer.close()
