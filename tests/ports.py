"""What can be seen of a server at its port."""

import asyncio


async def refuses_connections(port: int) -> None:
    """Wait until nobody listens on the port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        writer.close()
