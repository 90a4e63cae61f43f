"""The HTTP API: FastAPI stores each notification, and has Hubbub push it to all tabs of its user."""

import asyncio
from typing import Annotated, Any

import sessions
import store
from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from push import tell
from pydantic import BaseModel, Field

router = APIRouter()
User = Annotated[str, Depends(sessions.logged_in)]


class Login(BaseModel):
    name: str
    password: str


class Note(BaseModel):
    to: str
    text: Annotated[str, Field(min_length=1, max_length=500)]


@router.post("/login", status_code=204)
def login(login: Login, request: Request, response: Response) -> None:
    if not sessions.is_right(login.name, login.password):
        raise HTTPException(403, "The name or the password is wrong.")
    value, is_secure = sessions.session_for(login.name), request.url.scheme == "https"
    response.set_cookie("session", value, max_age=sessions.LIFETIME, httponly=True, samesite="lax", secure=is_secure)


@router.post("/logout", status_code=204)
def logout(response: Response) -> None:
    response.delete_cookie("session")


@router.post("/notifications", status_code=201)
async def notify(note: Note, user: User) -> dict[str, Any]:
    if note.to not in sessions.PASSWORDS:
        raise HTTPException(404, f"There is no user {note.to}.")
    stored = await asyncio.to_thread(store.add, note.to, user, note.text)
    await tell(note.to, {"new": stored})
    return stored


@router.post("/notifications/{number}/read", status_code=204)
async def mark_read(number: Annotated[int, Path(ge=1, lt=2**63)], user: User) -> None:
    await asyncio.to_thread(store.remove, user, number)
    await tell(user, {"read": number})
