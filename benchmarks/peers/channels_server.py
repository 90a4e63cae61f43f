"""Django Channels with a layer of channels_redis, as one of several servers on a Redis.

It runs on uvicorn, which is set up as in `uvicorn_server.py`. The layer is RedisChannelLayer, the first one in its
documentation, or RedisPubSubChannelLayer; both with their default settings, but without a time-out for reading: that of
redis-py is as short as the time for which the layer waits for messages. hiredis parses the answers of Redis. A client
that names a topic in its query is in that group; each message is sent to the group `room`.
"""

import argparse
from typing import Any
from urllib.parse import parse_qs

import uvloop
from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]
from command_line import command_line
from django.conf import settings  # type: ignore[import-untyped]
from uvicorn_server import serve

LAYERS = {
    "lists": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}


class Room(AsyncWebsocketConsumer):  # type: ignore[misc]
    """A connection."""

    async def connect(self) -> None:
        """Enter the group that the query names."""
        for topic in parse_qs(self.scope["query_string"].decode()).get("topic", ()):
            await self.channel_layer.group_add(topic, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a message to the group."""
        await self.channel_layer.group_send("room", {"type": "room.message", "text": text_data})

    async def room_message(self, event: dict[str, Any]) -> None:
        """Pass on what was sent to the group."""
        await self.send(text_data=event["text"])


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--broker", required=True, help="the address of Redis")
    options.add_argument("--layer", choices=LAYERS, default="lists")
    arguments = command_line("fanout", parents=[options])
    place = {"address": arguments.broker, "socket_timeout": None}
    layer = {"BACKEND": LAYERS[arguments.layer], "CONFIG": {"hosts": [place]}}
    settings.configure(CHANNEL_LAYERS={"default": layer})
    uvloop.run(serve(Room.as_asgi(), arguments.port, False))
