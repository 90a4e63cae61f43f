"""Accounts with passwords, and the signed cookie that tells who has logged in."""

import hashlib
import hmac
import json
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

from store import execute

LIFETIME = 7 * 24 * 3600  # of a session, in seconds
NAME = re.compile(r"\w[\w .-]{0,31}")
MIN_PASSWORD, MAX_PASSWORD = 8, 200

# The first process makes the secret, and all read it from the database, so a session outlives a restart.
execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", secrets.token_bytes(32))
[(SECRET,)] = execute("SELECT value FROM secret")


def log_in(name: str, password: str) -> str | None:
    """Return the user's name, or `None` if the password is wrong. A new name becomes an account."""
    name = name.strip()
    if not NAME.fullmatch(name) or not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        return None
    if not execute("SELECT 1 FROM users WHERE name = ?", name):
        salt = secrets.token_bytes(16)
        # Of two people who choose the same name at the same time, the first gets it.
        execute("INSERT OR IGNORE INTO users VALUES (?, ?, ?)", name, salt, hashed(password, salt))
    [(salt, expected)] = execute("SELECT salt, password FROM users WHERE name = ?", name)
    return name if hmac.compare_digest(expected, hashed(password, salt)) else None


def hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def session_for(name: str) -> str:
    """Return the value of the cookie for somebody who has logged in."""
    content = urlsafe_b64encode(json.dumps([name, time.time() + LIFETIME]).encode())
    return f"{content.decode()}.{signature(content)}"


def user_of(session: str) -> str | None:
    """Return the user whose cookie this is; `None` if it is forged or has expired."""
    content, _, signed = session.partition(".")
    if not hmac.compare_digest(signature(content.encode()).encode(), signed.encode()):
        return None
    name, expires = json.loads(urlsafe_b64decode(content))
    return str(name) if time.time() < expires else None


def signature(content: bytes) -> str:
    return hmac.digest(SECRET, content, "sha256").hex()
