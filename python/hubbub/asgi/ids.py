"""The connection's id for code that has only what its ASGI framework gives it."""

from collections.abc import Mapping

from ..errors import wrong_type

__all__ = ["fd_of"]


def fd_of(websocket: object) -> int:
    """Return the id of a WebSocket that an ASGI application has accepted: `fd` for `Server.push` and the others.

    ```python
    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        hubbub.current_server().subscribe(hubbub.fd_of(websocket), "chat")
    ```

    Args:
        websocket: An ASGI scope, or anything with a `scope`, such as the WebSocket of Starlette, FastAPI or Litestar.

    Raises:
        TypeError: It is neither a scope nor has one.
        ValueError: It is not the scope of a WebSocket, was not accepted yet, or another server serves it.
    """
    scope = getattr(websocket, "scope", websocket)
    if not isinstance(scope, Mapping):
        raise wrong_type("websocket", "an ASGI scope, or have one as its attribute `scope`", websocket)
    if (kind := scope.get("type")) != "websocket":
        raise ValueError(f"only WebSockets have an id, and the type of this scope is {kind!r}")
    extension = (scope.get("extensions") or {}).get("hubbub")
    if extension is None:
        raise ValueError("this WebSocket is not served by Hubbub: its scope has no extension of that name")
    fd: int | None = extension.get("fd")
    if not fd:
        raise ValueError("this WebSocket has no id yet: it gets one when the application accepts it")
    return fd
