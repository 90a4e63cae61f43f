"""The requests that handlers receive."""

import contextlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

from ._core import RequestParts
from .errors import BadInput
from .jsons import STANDARD, Json

__all__ = ["Request"]

# The fields of one form. Each costs far more memory than its bytes.
_MAX_FIELDS = 1000


class _Home(Protocol):
    """Holds the states of a worker's connections; raises `KeyError` for others."""

    def state_of(self, fd: int, /) -> Any: ...
    def keep(self, fd: int, state: object, /) -> None: ...


class _GivenParts(NamedTuple):
    """The parts of a request that has not been received, but made."""

    method: str
    target_path: str
    query_string: str
    headers: list[tuple[str, str]]
    client: tuple[str, int]
    scheme: str
    body: bytes
    json: Json = STANDARD
    peer_certificate: bytes | None = None
    endpoint: int = 0

    def header_pairs(self) -> list[tuple[str, str]]:
        """Return the headers as they were given."""
        return self.headers

    def path_params(self) -> dict[str, Any]:
        """Return no parameters: no endpoint serves it."""
        return {}


class Request:
    """One HTTP request: the opening handshake of a WebSocket, or a plain request on the same port.

    Everything except `state` is read-only. Header values are as received, decoded as latin-1 (RFC 9110 §5.5).
    """

    # A request is created for each handshake and each plain request, and most handlers look at few of its parts. So the
    # parts become Python values when they are used, and what is computed from them is cached in slots that stay unset
    # until then. The worker calls `_accepted` when it accepts the handshake.
    __slots__ = ("_cookies", "_fd", "_form", "_headers", "_home", "_parts", "_path", "_path_params", "_query", "_state")

    _cookies: Mapping[str, str]
    _fd: int
    _form: Mapping[str, str]
    _headers: Mapping[str, str]
    _home: _Home
    _parts: RequestParts | _GivenParts
    _path: str
    _path_params: Mapping[str, Any]
    _query: Mapping[str, str]
    _state: Any

    def __init__(
        self,
        method: str,
        target_path: str,
        query_string: str,
        headers: list[tuple[str, str]],
        client: tuple[str, int],
        scheme: str,
        body: bytes = b"",
    ) -> None:
        """Create a request like those that the server makes of what it receives (without this constructor).

        Args:
            method: As in the request line.
            target_path: The path as in the request line, percent-encoded.
            query_string: The part after the `?`, without the `?`.
            headers: The pairs in the order received, names in any case.
            client: The client's address and port.
            scheme: `http` or `https`.
            body: The whole body.
        """
        self._parts = _GivenParts(method, target_path, query_string, headers, client, scheme, body)

    @property
    def fd(self) -> int:
        """The connection's id; 0 before the handshake is accepted, and for plain HTTP requests."""
        return getattr(self, "_fd", 0)

    @property
    def method(self) -> str:
        """The method as received, in upper case: `GET`."""
        return self._parts.method

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; bytes that are not valid UTF-8 become U+FFFD."""
        try:
            return self._path
        except AttributeError:
            self._path = unquote(self._parts.target_path, errors="replace")
            return self._path

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters of the endpoint's path, by name: an `int` for `{name:int}`, otherwise a decoded `str`."""
        try:
            return self._path_params
        except AttributeError:
            self._path_params = MappingProxyType(self._parts.path_params())
            return self._path_params

    @property
    def query_string(self) -> str:
        """The part of the request's target after the `?`, as received; empty if there is none."""
        return self._parts.query_string

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, decoded; if a name is repeated, the last value."""
        try:
            return self._query
        except AttributeError:
            self._query = MappingProxyType(dict(self.query_all))
            return self._query

    @property
    def query_all(self) -> list[tuple[str, str]]:
        """All parameters of the query, in order, decoded."""
        return parse_qsl(self._parts.query_string, keep_blank_values=True)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case; repeated ones joined by `, ` (RFC 9110 §5.3), Cookie by `; `."""
        try:
            return self._headers
        except AttributeError:
            self._headers = MappingProxyType(_joined(self._parts.header_pairs()))
            return self._headers

    @property
    def headers_all(self) -> list[tuple[str, str]]:
        """All headers, in order, names in lower case."""
        return [(name.lower(), value) for name, value in self._parts.header_pairs()]

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name, without quotes around the value; malformed parts are left out."""
        try:
            return self._cookies
        except AttributeError:
            self._cookies = MappingProxyType(_cookies(self.headers.get("cookie", "")))
            return self._cookies

    @property
    def client(self) -> tuple[str, int]:
        """The client's address and port; behind a trusted proxy the forwarded ones, with port 0 if not forwarded."""
        return self._parts.client

    @property
    def scheme(self) -> str:
        """`http` or `https`, for a handshake too; behind a trusted proxy the one that the client used."""
        return self._parts.scheme

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate (X.509 in DER) that the client has shown; `None` unless `ssl_ca_certs` is set.

        It has been verified. Behind a proxy that opens a TLS connection of its own, it is the proxy's.
        """
        return self._parts.peer_certificate

    @property
    def origin(self) -> str | None:
        """The Origin header: the page that sent the request, if a browser did (RFC 6455 §10.2)."""
        return self.headers.get("origin")

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, the preferred one first (RFC 6455 §4.1)."""
        offered = self.headers.get("sec-websocket-protocol", "").split(",")
        return [name for name in map(str.strip, offered) if name]

    @property
    def body(self) -> bytes:
        """The request's body; empty for a handshake."""
        return self._parts.body

    def json(self) -> Any:
        """Decode the body as JSON, with the module given as `Server(json=…)`.

        Raises:
            ValueError: It is not JSON (in UTF-8, without NaN and infinities).
        """
        return self._parts.json.decode(self._parts.body)

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of an urlencoded form in the body, decoded; if a name is repeated, the last value.

        Empty if the body is. Raises `ValueError` if the body is something else (for example a form with files, which is
        `multipart/form-data`), is not in UTF-8, or has more than 1,000 fields.
        """
        if not hasattr(self, "_form"):
            content_type = self.headers.get("content-type", "")
            self._form = MappingProxyType(dict(_form_fields(content_type, self._parts.body)))
        return self._form

    @property
    def state(self) -> Any:
        """An object for your own data: an empty `SimpleNamespace`, unless you assign another object.

        For a WebSocket this is the state of the connection, from `handshake` until the `close` handler has ended: the
        same object as `Frame.state` and `Server.state`.
        """
        try:
            return self._state
        except AttributeError:
            self._state = self._first_state()
            return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._state = value
        if hasattr(self, "_home"):
            # If the connection has ended, only this request keeps the state.
            with contextlib.suppress(KeyError):
                self._home.keep(self._fd, value)

    def _first_state(self) -> Any:
        if hasattr(self, "_home"):
            with contextlib.suppress(KeyError):
                return self._home.state_of(self._fd)
        return SimpleNamespace()

    def _accepted(self, fd: int, home: _Home) -> None:
        """Note that this request has become the connection `fd`, which owns the state from here on."""
        self._fd = fd
        self._home = home
        if hasattr(self, "_state"):
            home.keep(fd, self._state)

    def __repr__(self) -> str:
        # Headers and query are left out: they carry cookies and tokens, and a repr ends up in logs.
        address, port = self.client
        return f"<Request fd={self.fd} {self.method} {self.path!r} from {address} port {port}>"


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        if name in headers:
            # RFC 9110 §5.3 joins with a comma, but in a Cookie header a comma is part of a value.
            separator = "; " if name == "cookie" else ", "
            value = headers[name] + separator + value
        headers[name] = value
    return headers


def _form_fields(content_type: str, body: bytes) -> list[tuple[str, str]]:
    if not body:
        return []
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type != "application/x-www-form-urlencoded":
        raise BadInput(f"the body is not an urlencoded form: its Content-Type is {content_type[:100]!r}")
    charset = next((part.partition("=")[2] for part in parameters if part.startswith("charset=")), "utf-8")
    if charset.strip('"') not in ("utf-8", "utf8"):
        raise BadInput(f"the form is not in UTF-8: its Content-Type is {content_type[:100]!r}")
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except UnicodeDecodeError:
        raise BadInput("the form is not in UTF-8") from None
    except ValueError:
        raise BadInput(f"the form has more than {_MAX_FIELDS:,} fields") from None


def _cookies(header: str) -> dict[str, str]:
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        name, value = name.strip(), value.strip()
        if not name or not equals:
            continue
        if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        # If a name is repeated, the first cookie has the longer path, so it is the more specific (RFC 6265 §5.4).
        cookies.setdefault(name, value)
    return cookies
