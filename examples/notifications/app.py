"""Notifications in a FastAPI application: FastAPI serves the page and an API, and pushes through Hubbub beside it.

It needs `pip install fastapi uvicorn`. Run `live.py` and this program, each in a terminal, and open the address that
this one prints. In production, start it with `uvicorn app:app --workers 4`.
"""

import os
from pathlib import Path
from typing import Any

import sessions
import uvicorn
from api import User, router
from fastapi import FastAPI
from fastapi.responses import FileResponse
from push import LIVE_PORT, lifespan

from hubbub import client_path

PORT = int(os.environ.get("PORT", "8000"))

app = FastAPI(lifespan=lifespan)
app.include_router(router)


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.get("/hubbub.js")
def client() -> FileResponse:
    return FileResponse(client_path(), media_type="text/javascript")


@app.get("/me")
def me(user: User) -> dict[str, Any]:
    """Tell the page who has logged in, to whom notifications can be sent, and the port that pushes them."""
    return {"name": user, "users": list(sessions.PASSWORDS), "live_port": LIVE_PORT}


if __name__ == "__main__":
    print(f"Open http://127.0.0.1:{PORT}/ in a browser. Ctrl-C stops the server.", flush=True)
    uvicorn.run(app, port=PORT)
