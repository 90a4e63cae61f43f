"""The messages of all rooms."""

import time
from typing import Any

from store import execute

SHOWN = 50
# More than are shown: a page that sends a message again, because its connection broke, must not add it twice.
KEPT = 1000
COLUMNS = "id, author, key, text, time"


def add(room: str, author: str, key: str, text: str) -> dict[str, Any]:
    """Store a message and return it. The author's `key` identifies it: sent again, it is not stored again."""
    values = room, author, key
    execute("INSERT OR IGNORE INTO messages VALUES (NULL, ?, ?, ?, ?, ?)", *values, text, time.time())
    [row] = execute(f"SELECT {COLUMNS} FROM messages WHERE (room, author, key) = (?, ?, ?)", *values)
    oldest = "SELECT id FROM messages WHERE room = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    execute(f"DELETE FROM messages WHERE room = ? AND id <= ({oldest})", room, room, KEPT)
    return as_message(row)


def recent(room: str) -> list[dict[str, Any]]:
    """Return the last messages of a room, the oldest first."""
    rows = execute(f"SELECT {COLUMNS} FROM messages WHERE room = ? ORDER BY id DESC LIMIT ?", room, SHOWN)
    return [as_message(row) for row in reversed(rows)]


def as_message(row: tuple[object, ...]) -> dict[str, Any]:
    return dict(zip(COLUMNS.split(", "), row, strict=True))
