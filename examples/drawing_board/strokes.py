"""The strokes on all boards: a database file, which all workers share and which outlives them."""

import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

KEPT, BATCH = 5000, 200  # strokes of a board that are stored, and that are read at once
SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS strokes (id INTEGER PRIMARY KEY AUTOINCREMENT, board INTEGER, key TEXT, stroke TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS strokes_by_key ON strokes (board, key);
CREATE INDEX IF NOT EXISTS strokes_of_board ON strokes (board, id);
"""

path = os.environ.get("BOARD_DATABASE", Path(__file__).with_name("boards.sqlite"))
database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
database.executescript(SCHEMA)
lock = threading.Lock()  # The threads of a worker share the connection.


def execute(statement: str, *values: object) -> list[Any]:
    with lock:
        return database.execute(statement, values).fetchall()


def add(board: int, stroke: dict[str, Any]) -> dict[str, Any]:
    """Store a stroke, and return it with its number. Sent again, with the same key, it keeps its number."""
    key = stroke["key"]
    execute("INSERT OR IGNORE INTO strokes VALUES (NULL, ?, ?, ?)", board, key, json.dumps(stroke))
    [(number,)] = execute("SELECT id FROM strokes WHERE board = ? AND key = ?", board, key)
    if "clear" in stroke:
        execute("DELETE FROM strokes WHERE board = ? AND id < ?", board, number)
    oldest = "SELECT id FROM strokes WHERE board = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    execute(f"DELETE FROM strokes WHERE board = ? AND id <= ({oldest})", board, board, KEPT)
    return {"id": number, **stroke}


def after(board: int, number: int) -> list[dict[str, Any]]:
    """Return the next strokes of a board after the one with this number."""
    statement = "SELECT id, stroke FROM strokes WHERE board = ? AND id > ? ORDER BY id LIMIT ?"
    return [{"id": number, **json.loads(stroke)} for number, stroke in execute(statement, board, number, BATCH)]
