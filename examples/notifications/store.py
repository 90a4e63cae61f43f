"""The notifications that have not been read: a database file, which FastAPI and Hubbub share."""

import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

KEPT = 100  # notifications of one user; older ones are removed
COLUMNS = "id, sender, text, time"
SCHEMA = """
CREATE TABLE IF NOT EXISTS secret (only INTEGER PRIMARY KEY CHECK (only = 1), value BLOB);
CREATE TABLE IF NOT EXISTS unread (id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT, sender TEXT, text TEXT, time REAL);
CREATE INDEX IF NOT EXISTS unread_of_user ON unread (user, id);
"""

path = os.environ.get("NOTIFICATIONS_DATABASE", Path(__file__).with_name("notifications.sqlite"))
database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
database.executescript(SCHEMA)
lock = threading.Lock()  # The threads of a process share the connection.


def execute(statement: str, *values: object) -> list[Any]:
    with lock:
        return database.execute(statement, values).fetchall()


def add(user: str, sender: str, text: str) -> dict[str, Any]:
    """Store a notification for a user, and return it."""
    values = user, sender, text, time.time()
    [row] = execute(f"INSERT INTO unread VALUES (NULL, ?, ?, ?, ?) RETURNING {COLUMNS}", *values)
    oldest = "SELECT id FROM unread WHERE user = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    execute(f"DELETE FROM unread WHERE user = ? AND id <= ({oldest})", user, user, KEPT)
    return as_notification(row)


def remove(user: str, number: int) -> None:
    """Remove a notification that its user has read."""
    execute("DELETE FROM unread WHERE user = ? AND id = ?", user, number)


def unread(user: str) -> list[dict[str, Any]]:
    """Return what a user has not read, the oldest first."""
    return [as_notification(row) for row in execute(f"SELECT {COLUMNS} FROM unread WHERE user = ? ORDER BY id", user)]


def as_notification(row: tuple[object, ...]) -> dict[str, Any]:
    return dict(zip(COLUMNS.split(", "), row, strict=True))
