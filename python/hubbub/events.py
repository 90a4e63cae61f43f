"""The values that handlers receive and return.

Nothing in here does I/O or knows about a server. `Frame`, the only value created for every message, is a
class of the native core.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias, TypedDict
from urllib.parse import parse_qsl, quote, unquote

from .errors import short_number, wrong_type
from .headers import TOKEN, Headers, cookie, expired_cookie, pairs_of
from .jsons import STANDARD, Json

__all__ = [
    "Accept",
    "CloseCode",
    "ConnectionInfo",
    "Data",
    "Opcode",
    "Refuse",
    "Request",
    "Response",
    "Sendable",
    "Stats",
    "WorkerStats",
    "check_close",
]

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Data: TypeAlias = str | Buffer
else:
    # `collections.abc.Buffer` comes with Python 3.12.
    Data = str | bytes | bytearray | memoryview
"""Text, or any bytes-like object."""

Sendable: TypeAlias = Data | dict[Any, Any] | list[Any]
"""What can be sent: text, any bytes-like object, or a `dict` or `list`, which goes as JSON text."""


class Opcode(IntEnum):
    """The opcodes of frames (RFC 6455 §5.2)."""

    CONTINUATION = 0x0
    """A later fragment of a message."""
    TEXT = 0x1
    """UTF-8 text: `str`."""
    BINARY = 0x2
    """Any bytes: `bytes`."""
    CLOSE = 0x8
    """Begins or answers the closing handshake (RFC 6455 §5.5.1)."""
    PING = 0x9
    """Asks for a pong (RFC 6455 §5.5.2)."""
    PONG = 0xA
    """Answers a ping (RFC 6455 §5.5.3)."""


class CloseCode(IntEnum):
    """The registered close codes (RFC 6455 §7.4.1 and IANA's registry); 1004 is reserved without a meaning.

    3000 to 3999 are for libraries and frameworks, 4000 to 4999 for applications (RFC 6455 §7.4.2).
    """

    NORMAL_CLOSURE = 1000
    """The connection has served its purpose."""
    GOING_AWAY = 1001
    """The server stops, or the user leaves the page."""
    PROTOCOL_ERROR = 1002
    """The peer violated the protocol."""
    UNSUPPORTED_DATA = 1003
    """The peer sent text where binary data is expected, or the reverse."""
    NO_STATUS_RCVD = 1005
    """The peer gave no code. This code cannot be sent."""
    ABNORMAL_CLOSURE = 1006
    """The connection broke, without a closing handshake. This code cannot be sent."""
    INVALID_FRAME_PAYLOAD_DATA = 1007
    """A text message is not UTF-8."""
    POLICY_VIOLATION = 1008
    """The peer did something that is not allowed, and no other code fits."""
    MESSAGE_TOO_BIG = 1009
    """A message is longer than `max_message_size`."""
    MANDATORY_EXTENSION = 1010
    """The server did not offer an extension that the client needs."""
    INTERNAL_ERROR = 1011
    """A handler failed, or no pong came in time."""
    SERVICE_RESTART = 1012
    """A reload is replacing the worker; the client should reconnect."""
    TRY_AGAIN_LATER = 1013
    """The client reads too slowly: see `slow_consumer`."""
    BAD_GATEWAY = 1014
    """A proxy got no valid answer from the server behind it."""
    TLS_HANDSHAKE = 1015
    """The TLS connection could not be made. This code cannot be sent."""


# The other codes only report how a connection ended; no frame may carry them (RFC 6455 §7.4.1).
_SENDABLE = frozenset(CloseCode) - {
    CloseCode.NO_STATUS_RCVD,
    CloseCode.ABNORMAL_CLOSURE,
    CloseCode.TLS_HANDSHAKE,
}

# A control frame carries 125 bytes (RFC 6455 §5.5), of which the close code takes two.
_MAX_REASON_BYTES = 123


def check_close(code: int, reason: str) -> None:
    """Check that a Close frame may carry `code` and `reason`.

    Args:
        code: A registered code that may be sent, or one of 3000 to 4999 (RFC 6455 §7.4).
        reason: At most 123 bytes of UTF-8 (RFC 6455 §5.5).

    Raises:
        TypeError: `code` is not an `int`, or `reason` is not a `str`.
        ValueError: `code` may not be sent, or `reason` is too long or cannot be encoded.
    """
    if not isinstance(code, int):
        raise wrong_type("code", "an int", code)
    if not isinstance(reason, str):
        raise wrong_type("reason", "a str", reason)
    if code not in _SENDABLE and not 3000 <= code <= 4999:
        raise ValueError(
            f"close code {short_number(code)} may not be sent; allowed are 1000-1003, 1007-1014 and 3000-4999"
        )
    length = len(reason.encode())
    if length > _MAX_REASON_BYTES:
        raise ValueError(f"reason must have at most {_MAX_REASON_BYTES} bytes of UTF-8 (RFC 6455 §5.5), not {length}")


class ConnectionInfo(NamedTuple):
    """What the server knows about one open connection, at the time of the call."""

    fd: int
    """The connection's id."""
    worker_id: int
    """The worker that owns it."""
    client: tuple[str, int]
    """The client's address and port, as in `Request.client`."""
    opened_at: float
    """When the handshake completed, in Unix seconds."""
    last_received_at: float
    """When bytes last came from the client, in Unix seconds."""
    messages_in: int
    """Messages received."""
    messages_out: int
    """Messages queued for it."""
    bytes_in: int
    """Bytes of payload received."""
    bytes_out: int
    """Bytes of payload queued for it."""
    queued_bytes: int
    """Bytes in its outbox that have not been sent yet, including frame headers."""


class Counts(TypedDict):
    """What the server, or one of its workers, has counted since its start."""

    connections: int
    """WebSockets that are open now."""
    accepted: int
    """Handshakes accepted."""
    refused: int
    """Handshakes refused."""
    closed: int
    """WebSockets closed."""
    messages_in: int
    """Messages received."""
    messages_out: int
    """Messages queued."""
    bytes_in: int
    """Bytes of payload received."""
    bytes_out: int
    """Bytes of payload queued."""
    queued_bytes: int
    """Bytes that are in outboxes now, including frame headers."""
    outliving: int
    """Connections whose client has left while a handler is still running, now."""
    held_bytes: int
    """Bytes of memory for queued output and unfinished input, now."""
    slow_consumers_closed: int
    """Connections closed because their outbox was full."""
    memory_closed: int
    """Connections closed beyond `max_memory`."""
    messages_dropped: int
    """Messages dropped by `slow_consumer="drop"`."""
    subscriptions_refused: int
    """Subscriptions refused beyond `max_topics`."""
    commands_dropped: int
    """Calls from other threads, workers and programs that did not fit into a queue."""
    restarts: int
    """Workers replaced after they had died."""
    started_at: float
    """When it started, in Unix seconds."""


class WorkerStats(Counts):
    """The counts of one worker."""

    worker_id: int
    """The worker's number."""


class Stats(Counts):
    """The counts of the whole server; see `Server.stats`."""

    workers: list[WorkerStats]
    """The same for each worker."""


class _Home(Protocol):
    """Holds the states of a worker's connections; raises `KeyError` for others."""

    def state_of(self, fd: int, /) -> Any: ...
    def keep(self, fd: int, state: object, /) -> None: ...


class Request:
    """One HTTP request: the opening handshake of a WebSocket, or a plain request on the same port.

    Everything except `state` is read-only. Header values are as received, decoded as latin-1 (RFC 9110 §5.5).
    """

    # A request is created for each handshake, so the constructor only stores the parts. Values computed from them are
    # cached in slots that stay unset until first used. The worker sets `_endpoint`, the number of its handlers, and
    # calls `_accepted` when it accepts the handshake.
    __slots__ = (
        "_body",
        "_client",
        "_cookies",
        "_endpoint",
        "_fd",
        "_form",
        "_header_pairs",
        "_headers",
        "_home",
        "_json",
        "_method",
        "_path",
        "_path_params",
        "_query",
        "_query_string",
        "_scheme",
        "_state",
        "_target_path",
    )

    _cookies: Mapping[str, str]
    _form: Mapping[str, str]
    _headers: Mapping[str, str]
    _home: _Home | None
    _path: str
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
        path_params: Mapping[str, Any] = MappingProxyType({}),
        json: Json = STANDARD,
    ) -> None:
        """Store the parts of a parsed request.

        Args:
            method: As in the request line.
            target_path: The path as in the request line, percent-encoded.
            query_string: The part after the `?`, without the `?`.
            headers: The pairs in the order received, names in any case.
            client: The client's address and port.
            scheme: `http` or `https`.
            body: The whole body.
            path_params: The parameters of the path.
            json: Decodes the body.
        """
        self._fd = 0
        self._json = json
        self._home = None
        self._endpoint = 0
        self._method = method
        self._target_path = target_path
        self._query_string = query_string
        self._header_pairs = headers
        self._client = client
        self._scheme = scheme
        self._body = body
        self._path_params = path_params

    @property
    def fd(self) -> int:
        """The connection's id; 0 before the handshake is accepted, and for plain HTTP requests."""
        return self._fd

    @property
    def method(self) -> str:
        """The method as received, in upper case: `GET`."""
        return self._method

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; bytes that are not valid UTF-8 become U+FFFD."""
        try:
            return self._path
        except AttributeError:
            self._path = unquote(self._target_path, errors="replace")
            return self._path

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters of the endpoint's path, by name: an `int` for `{name:int}`, otherwise a decoded `str`."""
        return self._path_params

    @property
    def query_string(self) -> str:
        """The part of the request's target after the `?`, as received; empty if there is none."""
        return self._query_string

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
        return parse_qsl(self._query_string, keep_blank_values=True)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case; repeated ones joined by `, ` (RFC 9110 §5.3), Cookie by `; `."""
        try:
            return self._headers
        except AttributeError:
            self._headers = MappingProxyType(_joined(self._header_pairs))
            return self._headers

    @property
    def headers_all(self) -> list[tuple[str, str]]:
        """All headers, in order, names in lower case."""
        return [(name.lower(), value) for name, value in self._header_pairs]

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
        return self._client

    @property
    def scheme(self) -> str:
        """`http` or `https`, for a handshake too; behind a trusted proxy the one that the client used."""
        return self._scheme

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
        return self._body

    def json(self) -> Any:
        """Decode the body as JSON, with the module given as `Server(json=…)`.

        Raises:
            ValueError: It is not JSON (in UTF-8, without NaN and infinities).
        """
        return self._json.decode(self._body)

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of an urlencoded form in the body, decoded; if a name is repeated, the last value.

        Empty if the body is. Raises `ValueError` if the body is something else (for example a form with files, which is
        `multipart/form-data`), is not in UTF-8, or has more than 1,000 fields.
        """
        try:
            return self._form
        except AttributeError:
            content_type = self.headers.get("content-type", "")
            self._form = MappingProxyType(dict(_form_fields(content_type, self._body)))
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
        if self._home:
            # If the connection has ended, only this request keeps the state.
            with contextlib.suppress(KeyError):
                self._home.keep(self._fd, value)

    def _first_state(self) -> Any:
        if self._home:
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
        address, port = self._client
        return f"<Request fd={self._fd} {self._method} {self.path!r} from {address} port {port}>"


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
        raise ValueError(f"the body is not an urlencoded form: its Content-Type is {content_type[:100]!r}")
    charset = next((part.partition("=")[2] for part in parameters if part.startswith("charset=")), "utf-8")
    if charset.strip('"') not in ("utf-8", "utf8"):
        raise ValueError(f"the form is not in UTF-8: its Content-Type is {content_type[:100]!r}")
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except UnicodeDecodeError:
        raise ValueError("the form is not in UTF-8") from None
    except ValueError:
        raise ValueError(f"the form has more than {_MAX_FIELDS:,} fields") from None


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


# The fields of one form. Each costs far more memory than its bytes.
_MAX_FIELDS = 1000

# The server writes these itself. If one appeared twice, two parsers might see different messages (RFC 9112 §6.3).
_FRAMING_HEADERS = frozenset(("connection", "content-length", "transfer-encoding"))
_HANDSHAKE_HEADERS = _FRAMING_HEADERS | {
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}


@dataclass(frozen=True, slots=True, init=False)
class Response:
    """The answer to a plain HTTP request, or to a handshake that is refused.

    Only its cookies can be changed, with `set_cookie` and `delete_cookie`.
    """

    body: bytes = field(repr=False)
    """The body as it is sent."""
    status: int
    """The status code."""
    headers: Mapping[str, str] = field(repr=False)
    """The headers, including Content-Type but not those that the server writes itself. Read-only; the values of a name
    that is repeated are joined by `, `."""
    content_type: str | None
    """The media type, `None` for an empty body without one."""

    def __init__(
        self,
        body: Data = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = {},
        content_type: str | None = None,
    ) -> None:
        """Create a response.

        Args:
            body: `str` is sent as UTF-8.
            status: 200 to 599; 204 and 304 have no body (RFC 9110 §6.4.1).
            headers: Further headers, as a mapping or, for names that are repeated, as pairs. The server itself writes
                Connection, Content-Length and Transfer-Encoding.
            content_type: `None` means `text/html; charset=utf-8` for `str`, `application/octet-stream` for
                bytes, and no Content-Type for an empty body. It may be given in `headers` instead.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: `status` is out of range; it allows no body but `body` is not empty; a header is malformed
                (contains a control character, for example) or reserved; or there are two different content types.
        """
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type("status", "an int", status)
        if not 200 <= status <= 599:
            raise ValueError(f"status {short_number(status)} is out of range; allowed are 200 to 599")
        if not isinstance(content_type, str | None):
            raise wrong_type("content_type", "a str or None", content_type)
        payload = _body_bytes(body)
        if payload and status in (204, 304):
            raise ValueError(f"a response with status {status} cannot have a body")
        checked = Headers(headers, _FRAMING_HEADERS)
        types = checked.values_of("content-type")
        if len(types) > 1:
            raise ValueError("the headers contain more than one Content-Type")
        named = types[0] if types else None
        # Both may hold the same value, as they do when `dataclasses.replace` passes on the parts of another response.
        if named is not None and content_type not in (None, named):
            raise ValueError("the content type in headers differs from content_type")
        if named is None:
            named = content_type or _default_content_type(body)
            if named is not None:
                checked = Headers((*checked.pairs, ("Content-Type", named)))
        # The class is frozen, so the constructor has to bypass its `__setattr__`.
        object.__setattr__(self, "body", payload)
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", checked)
        object.__setattr__(self, "content_type", named)

    @classmethod
    def json(
        cls, value: object, status: int = 200, headers: Mapping[str, str] | Iterable[tuple[str, str]] = {}
    ) -> Self:
        """Create a response with `value` as compact JSON in UTF-8, and the content type `application/json`.

        Raises:
            TypeError: JSON cannot express `value`.
            ValueError: `value` contains itself, or NaN or an infinity, which JSON does not have (RFC 8259 §6); or
                for the reasons of the constructor.
        """
        import json  # Not every server answers with JSON, and `import hubbub` should be quick.

        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except TypeError as error:
            raise TypeError(f"value must be encodable as JSON: {error}") from None
        return cls(text, status, headers, "application/json")

    @classmethod
    def redirect(cls, url: str, status: int = 303, headers: Mapping[str, str] | Iterable[tuple[str, str]] = {}) -> Self:
        """Create a response that redirects the client to `url`.

        Args:
            url: Absolute or relative; characters not allowed in a URL are percent-encoded as UTF-8.
            status: 301, 302, 303, 307 or 308. After 303, the client asks for `url` with GET,
                whatever the method of this request.
            headers: Further headers; Location is written for you.

        Raises:
            TypeError: `url` is not a `str`, or `status` is not an `int`.
            ValueError: `url` contains a control character, `status` is none of these, or a header is malformed,
                reserved, or Location.
        """
        if not isinstance(url, str):
            raise wrong_type("url", "a str", url)
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type("status", "an int", status)
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"status {short_number(status)} is not a redirect; allowed are 301, 302, 303, 307 and 308")
        if not url.isprintable():
            raise ValueError(f"the URL contains a control character: {url!r}")
        further = Headers(headers)
        if further.values_of("location"):
            raise ValueError("redirect itself sets the header Location")
        return cls(status=status, headers=(("Location", quote(url, safe=_URL_CHARACTERS)), *further.pairs))

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = True,
        samesite: str | None = "lax",
    ) -> Self:
        """Add a Set-Cookie header to this response (RFC 6265), so create a response of its own for each client.

        Args:
            name: The cookie's name.
            value: Its value, in ASCII without white space, quotes, commas, semicolons and backslashes; encode others,
                for example with `urllib.parse.quote`.
            max_age: The seconds for which the browser keeps it; `None`: until the browser is closed.
            path: The browser sends it to this path and to those below it.
            domain: The browser sends it to this host and its subdomains; `None`: only to the host that set it.
            secure: The browser sends it over TLS only.
            httponly: Scripts in the page cannot read it.
            samesite: `"lax"`: requests that pages of other sites cause do not carry it, except that somebody follows a
                link; `"strict"`: not even then; `"none"` (only with `secure`): all of them carry it; `None`: the
                browser decides.

        Returns:
            This response.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A part cannot be in a cookie, or browsers would ignore the cookie: one of over 4,096 bytes, or
                one that is not what `samesite` or a name that begins with `__Secure-` or `__Host-` requires.
        """
        return self._with_cookie(
            cookie(
                name,
                value,
                max_age=max_age,
                path=path,
                domain=domain,
                secure=secure,
                httponly=httponly,
                samesite=samesite,
            )
        )

    def delete_cookie(self, name: str, *, path: str = "/", domain: str | None = None) -> Self:
        """Add a Set-Cookie header to this response that makes the browser forget a cookie.

        Args:
            name: The cookie's name.
            path: The path with which the cookie was set.
            domain: The domain with which it was set.

        Returns:
            This response.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A part cannot be in a cookie.
        """
        return self._with_cookie(expired_cookie(name, path=path, domain=domain))

    def _with_cookie(self, text: str) -> Self:
        object.__setattr__(self, "headers", Headers((*pairs_of(self.headers), ("Set-Cookie", text))))
        return self


# RFC 3986 §2.2, and the percent sign of parts already encoded; `quote` itself adds §2.3.
_URL_CHARACTERS = "%:/?#[]@!$&'()*+,;="


def _body_bytes(body: Data) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    try:
        return bytes(memoryview(body))
    except TypeError:
        raise wrong_type("body", "str or bytes-like (for JSON there is Response.json)", body) from None


def _default_content_type(body: Data) -> str | None:
    if not body:
        return None
    return "text/html; charset=utf-8" if isinstance(body, str) else "application/octet-stream"


@dataclass(frozen=True, slots=True, init=False)
class Accept:
    """Returned by a `handshake` handler to accept the connection with a subprotocol or further headers.

    Args:
        subprotocol: The subprotocol to use. A client that does not offer it is refused with 400, because it would have
            to fail the connection (RFC 6455 §4.1); `None` leaves the choice to the setting `subprotocols`.
        headers: Headers for the 101 response, Set-Cookie for example, as a mapping or as pairs.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `subprotocol` is not a token (RFC 6455 §4.1), or a header is malformed or one of those that
            the server writes itself.
    """

    subprotocol: str | None
    headers: Mapping[str, str] = field(repr=False)

    def __init__(
        self, subprotocol: str | None = None, headers: Mapping[str, str] | Iterable[tuple[str, str]] = {}
    ) -> None:
        if not isinstance(subprotocol, str | None):
            raise wrong_type("subprotocol", "a str or None", subprotocol)
        if subprotocol is not None and not TOKEN.fullmatch(subprotocol):
            raise ValueError(f"{subprotocol!r} is not the name of a subprotocol")
        object.__setattr__(self, "subprotocol", subprotocol)
        object.__setattr__(self, "headers", Headers(headers, _HANDSHAKE_HEADERS))


@dataclass(frozen=True, slots=True)
class Refuse:
    """Returned by a `handshake` handler to refuse the client with a close code.

    The server completes the handshake and closes the connection at once, so that a browser sees the code.

    Args:
        code: The close code, 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 §7.4).
        reason: At most 123 bytes of UTF-8 (RFC 6455 §5.5).

    Raises:
        TypeError: `code` is not an `int`, or `reason` is not a `str`.
        ValueError: `code` may not be sent, or `reason` is too long.
    """

    code: int
    reason: str = ""

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)
