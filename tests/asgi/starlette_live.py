"""A plugin for pytest: Starlette's TestClient talks to its application through a real server, which JUDGE_SERVER names.

The test client sets the parts of the scope that a test chooses (client, server, scheme, root path, state), and the
server everything else. Each request and each WebSocket has a server of its own in the event loop of the test client.
"""

import contextlib
import socket
from typing import Any

import pytest
from live_servers import serving
from starlette import testclient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from results import pytest_runtest_logreport, pytest_sessionfinish

__all__ = ["pytest_collection_modifyitems", "pytest_runtest_logreport", "pytest_sessionfinish"]

httpx: Any = testclient.httpx  # type: ignore[attr-defined]  # whichever Starlette uses


class Served:
    """An application on a real server, from another thread."""

    def __init__(self, stack: contextlib.ExitStack, transport: Any, changes: dict[str, Any]) -> None:
        self.error: BaseException | None = None
        self._app = transport.app
        self._changes = changes
        portal = stack.enter_context(transport.portal_factory())
        self.port: int = stack.enter_context(portal.wrap_async_context_manager(serving(self._run)))

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        scope.update(self._changes)
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            self.error = error
            raise


class LiveSession(testclient.WebSocketTestSession):
    """A WebSocket through a real server."""

    def __init__(self, transport: Any, request: Any, changes: dict[str, Any]) -> None:
        self._transport, self._request, self._changes = transport, request, changes
        self.accepted_subprotocol: Any = None
        self.extra_headers: Any = None

    def __enter__(self) -> "LiveSession":
        with contextlib.ExitStack() as stack:
            # The application's exception comes out in the end, as from the original.
            stack.push(self._raise)
            self._served = Served(stack, self._transport, self._changes)
            target = self._request.url.raw_path.decode("ascii")
            headers = [(name, value) for name, value in self._request.headers.multi_items() if _is_free(name)]
            offered = [each.strip() for each in self._request.headers.get("sec-websocket-protocol", "").split(",")]
            try:
                self._client = stack.enter_context(
                    connect(
                        f"ws://{self._request.url.netloc.decode('ascii')}{target}",
                        sock=socket.create_connection(("127.0.0.1", self._served.port)),
                        additional_headers=headers,
                        subprotocols=[Subprotocol(each) for each in offered if each] or None,
                        user_agent_header=None,
                        proxy=None,
                        max_size=None,
                    )
                )
            except InvalidStatus as refused:
                if refused.response.status_code == 403 and b"refused" in (refused.response.body or b"refused"):
                    raise WebSocketDisconnect(code=1000, reason="") from None
                raise testclient.WebSocketDenialResponse(
                    status_code=refused.response.status_code,
                    headers=list(refused.response.headers.raw_items()),
                    content=bytes(refused.response.body or b""),
                ) from None
            except (InvalidMessage, ConnectionClosed) as error:
                raise AssertionError("the server has closed the connection") from error
            self.accepted_subprotocol = self._client.subprotocol
            self.extra_headers = [
                (name.lower().encode(), value.encode())
                for name, value in (self._client.response.headers.raw_items() if self._client.response else [])
                if not name.lower().startswith(("sec-", "upgrade", "connection", "date", "server"))
            ]
            self.exit_stack = stack.pop_all()
            return self

    def _raise(self, *_: Any) -> None:
        if (served := getattr(self, "_served", None)) and served.error:
            raise served.error

    def send(self, message: Any) -> None:
        """Send an event to the application."""
        if message["type"] == "websocket.disconnect":
            self._client.close(message.get("code", 1000), message.get("reason") or "")
        else:
            self._client.send(message["text"] if message.get("text") is not None else message["bytes"])

    def receive(self) -> Any:
        """Return what the application has sent."""
        try:
            data = self._client.recv(timeout=5)
        except ConnectionClosed as closed:
            frame = closed.rcvd
            return {"type": "websocket.close", "code": frame.code if frame else 1006, "reason": frame and frame.reason}
        return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}


class LiveTransport(testclient._TestClientTransport):
    """Sends each request through a real server."""

    def handle_request(self, request: Any) -> Any:
        """Return the answer."""
        url = request.url
        changes = {
            "root_path": self.root_path,
            "scheme": url.scheme,
            "client": self.client,
            "server": [url.host, url.port or {"http": 80, "ws": 80, "https": 443, "wss": 443}[url.scheme]],
            "state": self.app_state.copy(),
        }
        if url.scheme in ("ws", "wss"):
            raise testclient._Upgrade(LiveSession(self, request, changes))
        served = None
        try:
            with contextlib.ExitStack() as stack:
                served = Served(stack, self, changes)
                live = httpx.Request(
                    request.method,
                    url.copy_with(scheme="http", host="127.0.0.1", port=served.port),
                    headers=request.headers.raw,
                    content=request.read(),
                )
                with httpx.HTTPTransport(verify=False) as transport:
                    answer = transport.handle_request(live)
                    body = b"".join(answer.stream)
        except httpx.TransportError:
            if served and served.error and self.raise_server_exceptions:
                raise served.error from None
            raise
        if served.error and self.raise_server_exceptions:
            raise served.error
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in ADDED]
        return httpx.Response(answer.status_code, headers=headers, stream=httpx.ByteStream(body), request=request)


# What servers add to answers.
ADDED = (b"date", b"server", b"connection", b"transfer-encoding")


def _is_free(name: str) -> bool:
    return not name.startswith("sec-websocket-") and name not in ("connection", "host", "upgrade")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run everything once, with asyncio."""
    items[:] = [item for item in items if "[trio" not in item.name and "-trio" not in item.name]


testclient._TestClientTransport = LiveTransport  # type: ignore[misc]
