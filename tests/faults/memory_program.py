"""The server of `memory_model.py`: rooms with history and presence.

Its arguments are keywords of `Server` and options of the topics `room:…`, both as JSON, and the path of a file. Each
`join` and `leave` becomes a line of the file. Its clients send expressions.
"""

import json
import sys
from typing import Any

from expressions import Expressions, Rooms

from hubbub import Server

server = Server(port=0, **json.loads(sys.argv[1]))
server.topic_options("room:*", **json.loads(sys.argv[2]))

names: dict[str, Any] = {"server": server}
expressions = Expressions(server, names)
rooms = Rooms(server, expressions, sys.argv[3])
names.update(publish=rooms.publish, join=rooms.join, tell_members=rooms.tell_members)

server.start()
