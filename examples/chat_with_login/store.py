"""The chat's database: one file, which all workers share and which outlives them."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS secret (only INTEGER PRIMARY KEY CHECK (only = 1), value BLOB);
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, salt BLOB, password BLOB);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, room TEXT, author TEXT, key TEXT, text TEXT, time REAL,
    UNIQUE (room, author, key)
);
CREATE INDEX IF NOT EXISTS messages_of_room ON messages (room, id);
"""

path = os.environ.get("CHAT_DATABASE", Path(__file__).with_name("chat.sqlite"))
database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
database.executescript(SCHEMA)
# Handlers run in several threads, and share the connection.
lock = threading.Lock()


def execute(statement: str, *values: object) -> list[Any]:
    """Run one statement, in a transaction of its own, and return its rows. This blocks, so call it in a thread."""
    with lock:
        return database.execute(statement, values).fetchall()
