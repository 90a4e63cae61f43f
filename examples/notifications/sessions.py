"""Logins: FastAPI signs a cookie, and both FastAPI and Hubbub can tell from it who has logged in."""

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

from fastapi import Cookie, HTTPException
from store import execute

LIFETIME = 7 * 24 * 3600  # seconds
# A real application keeps its users, with hashes of their passwords, in a database.
PASSWORDS = {"ada": "engine", "grace": "compiler", "radia": "spanning tree"}

# The program that starts first makes the secret, and all read it.
execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", secrets.token_bytes(32))
[(SECRET,)] = execute("SELECT value FROM secret")


def is_right(name: str, password: str) -> bool:
    return name in PASSWORDS and hmac.compare_digest(PASSWORDS[name].encode(), password.encode())


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


def logged_in(session: Annotated[str, Cookie()] = "") -> str:
    """Return the user, in FastAPI; without a session, answer with 401."""
    user = user_of(session)
    if user is None:
        raise HTTPException(401, "log in first")
    return user


def signature(content: bytes) -> str:
    return hmac.digest(SECRET, content, "sha256").hex()
