"""The ASGI side of the server: what `Server(app=...)` needs besides the engine."""
