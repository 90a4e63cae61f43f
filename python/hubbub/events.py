"""The values that handlers are given and give back.

Nothing in here does I/O or knows of a server. `Frame`, the one value that is made for each message, is a
class of the native core.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias
from urllib.parse import parse_qsl, quote, unquote

from .errors import short_number, wrong_type

__all__ = [
    "TOKEN",
    "Accept",
    "CloseCode",
    "ConnectionInfo",
    "Data",
    "Opcode",
    "Refuse",
    "Request",
    "Response",
    "check_close",
]

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Data: TypeAlias = str | Buffer
else:
    # `collections.abc.Buffer` comes with Python 3.12.
    Data = str | bytes | bytearray | memoryview
"""What can be sent: text, or bytes in any of the types that hold them."""


class Opcode(IntEnum):
    """The opcodes of frames (RFC 6455 §5.2)."""

    CONTINUATION = 0x0
    """A further fragment of a message."""
    TEXT = 0x1
    """UTF-8: `str`."""
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
    """It has served its purpose."""
    GOING_AWAY = 1001
    """The server stops, or the page is left."""
    PROTOCOL_ERROR = 1002
    """The peer breaks the protocol."""
    UNSUPPORTED_DATA = 1003
    """Text where binary data is wanted, or the reverse."""
    NO_STATUS_RCVD = 1005
    """The peer gave no code. It cannot be sent."""
    ABNORMAL_CLOSURE = 1006
    """The connection broke, without a closing handshake. It cannot be sent."""
    INVALID_FRAME_PAYLOAD_DATA = 1007
    """A text message is not UTF-8."""
    POLICY_VIOLATION = 1008
    """The peer does what it may not; where nothing else fits."""
    MESSAGE_TOO_BIG = 1009
    """A message is longer than `max_message_size`."""
    MANDATORY_EXTENSION = 1010
    """A client misses an extension that it needs."""
    INTERNAL_ERROR = 1011
    """A handler failed, or no pong came in time."""
    SERVICE_RESTART = 1012
    """The worker is replaced in a reload; come back."""
    TRY_AGAIN_LATER = 1013
    """The client reads too slowly: see `slow_consumer`."""
    BAD_GATEWAY = 1014
    """A proxy had no good answer from the server behind it."""
    TLS_HANDSHAKE = 1015
    """There was no TLS connection. It cannot be sent."""


# The others only tell how a connection ended; no frame may carry them (RFC 6455 §7.4.1).
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
        TypeError: `code` is no `int` or `reason` no `str`.
        ValueError: `code` may not be sent, or `reason` is too long or not encodable.
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
    """What the server knows of one open connection, as it was when it was asked."""

    fd: int
    """The connection's id."""
    worker_id: int
    """The worker that owns it."""
    client: tuple[str, int]
    """The client's address and port, as in `Request.client`."""
    opened_at: float
    """When the handshake was done, in Unix seconds."""
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
    """Bytes in its outbox that are not sent yet, frame headers included."""


class Request:
    """One HTTP request: the opening handshake of a WebSocket, or a plain request on the same port.

    All of it is read-only but `state`. Header values are as they came, decoded as latin-1 (RFC 9110 §5.5).
    """

    # One is made for each handshake, so making it only stores the parts. What is worked out from them is kept
    # in a slot that stays unset until then. The worker sets `_fd` when it accepts the handshake.
    __slots__ = (
        "_body",
        "_client",
        "_cookies",
        "_fd",
        "_header_pairs",
        "_headers",
        "_method",
        "_path",
        "_query",
        "_query_string",
        "_scheme",
        "_state",
        "_target_path",
    )

    _cookies: Mapping[str, str]
    _headers: Mapping[str, str]
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
    ) -> None:
        """Store the parts of a parsed request.

        Args:
            method: As in the request line.
            target_path: The path as in the request line, percent-encoded.
            query_string: What stands after the `?`, without it.
            headers: The pairs in the order in which they came, names in any case.
            client: The client's address and port.
            scheme: `http` or `https`.
            body: The whole body.
        """
        self._fd = 0
        self._method = method
        self._target_path = target_path
        self._query_string = query_string
        self._header_pairs = headers
        self._client = client
        self._scheme = scheme
        self._body = body

    @property
    def fd(self) -> int:
        """The connection's id; 0 before the handshake is accepted, and for plain HTTP requests."""
        return self._fd

    @property
    def method(self) -> str:
        """The method, in upper case as it came: `GET`."""
        return self._method

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; what is not UTF-8 becomes U+FFFD."""
        try:
            return self._path
        except AttributeError:
            self._path = unquote(self._target_path, errors="replace")
            return self._path

    @property
    def query_string(self) -> str:
        """What stands after the `?` of the request's target, as it came; empty if there is none."""
        return self._query_string

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, decoded; of those with the same name the last one."""
        try:
            return self._query
        except AttributeError:
            self._query = MappingProxyType(dict(self.query_all))
            return self._query

    @property
    def query_all(self) -> list[tuple[str, str]]:
        """All parameters of the query in their order, decoded."""
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
        """All headers in their order, names in lower case."""
        return [(name.lower(), value) for name, value in self._header_pairs]

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name, without quotes around the value; what is no cookie is left out."""
        try:
            return self._cookies
        except AttributeError:
            self._cookies = MappingProxyType(_cookies(self.headers.get("cookie", "")))
            return self._cookies

    @property
    def client(self) -> tuple[str, int]:
        """The client's address and port; behind a trusted proxy the forwarded ones, port 0 if not told."""
        return self._client

    @property
    def scheme(self) -> str:
        """`http` or `https`, for a handshake too; behind a trusted proxy the one that the client used."""
        return self._scheme

    @property
    def origin(self) -> str | None:
        """The Origin header: the page that asks, if a browser asks (RFC 6455 §10.2)."""
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

    @property
    def state(self) -> Any:
        """Yours: what `handshake` found out and `open` wants to know; a `SimpleNamespace` at first."""
        try:
            return self._state
        except AttributeError:
            self._state = SimpleNamespace()
            return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._state = value

    def __repr__(self) -> str:
        # Headers and the query are left out: they carry cookies and tokens, and a repr ends up in logs.
        address, port = self._client
        return f"<Request fd={self._fd} {self._method} {self.path!r} from {address} port {port}>"


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        if name in headers:
            # RFC 9110 §5.3 joins with a comma, which in a Cookie is part of a value.
            separator = "; " if name == "cookie" else ", "
            value = headers[name] + separator + value
        headers[name] = value
    return headers


def _cookies(header: str) -> dict[str, str]:
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        name, value = name.strip(), value.strip()
        if not name or not equals:
            continue
        if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        # Of two with one name the first has the longer path, so it is meant for this place (RFC 6265 §5.4).
        cookies.setdefault(name, value)
    return cookies


# What names a header, a method or a subprotocol (RFC 9110 §5.6.2).
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# A value is sent as latin-1 and must not be able to end its line (RFC 9110 §5.5).
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# The server writes these itself; with a second one, two readers may see two messages (RFC 9112 §6.3).
_FRAMING_HEADERS = {"connection", "content-length", "transfer-encoding"}
_HANDSHAKE_HEADERS = _FRAMING_HEADERS | {
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
}


def _checked_headers(headers: Mapping[str, str], reserved: set[str]) -> Mapping[str, str]:
    """Return a read-only copy; `ValueError` if a header cannot be sent, or is not the user's to send."""
    if not isinstance(headers, Mapping):
        raise wrong_type("headers", "a mapping of str to str", headers)
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"headers must be a mapping of str to str, and have {name!r}: {value!r}")
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"the header {name} has a control character or is not latin-1: {value!r}")
        if name.lower() in reserved:
            raise ValueError(f"the header {name} is written by the server itself")
    return MappingProxyType(dict(headers))


@dataclass(frozen=True, slots=True, init=False)
class Response:
    """The answer to a plain HTTP request, or to a handshake that is refused. It does not change."""

    body: bytes = field(repr=False)
    """The body as it is sent."""
    status: int
    """The status code."""
    headers: Mapping[str, str] = field(repr=False)
    """The headers, read-only, Content-Type among them; without those that the server writes itself."""
    content_type: str | None
    """The media type, `None` for an empty body without one."""

    def __init__(
        self,
        body: Data = b"",
        status: int = 200,
        headers: Mapping[str, str] = {},
        content_type: str | None = None,
    ) -> None:
        """Make a response.

        Args:
            body: `str` is sent as UTF-8.
            status: 200 to 599; 204 and 304 have no body (RFC 9110 §6.4.1).
            headers: Further headers. Connection, Content-Length and Transfer-Encoding are the server's.
            content_type: `None` is `text/html; charset=utf-8` for `str`, `application/octet-stream` for
                bytes, and no Content-Type for an empty body. It may stand among `headers` instead.

        Raises:
            TypeError: One of them has a wrong type.
            ValueError: `status` is out of range, has no body but is given one, or a header is malformed (a
                control character in it, say), reserved, or given twice, differently.
        """
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type("status", "an int", status)
        if not 200 <= status <= 599:
            raise ValueError(f"status {short_number(status)} is out of range; allowed are 200 to 599")
        if not isinstance(content_type, str | None):
            raise wrong_type("content_type", "a str or None", content_type)
        payload = _body_bytes(body)
        if payload and status in (204, 304):
            raise ValueError(f"a response with status {status} has no body")
        checked = _checked_headers(headers, _FRAMING_HEADERS)
        named = next((value for name, value in checked.items() if name.lower() == "content-type"), None)
        # The same may stand in both, as it does where `dataclasses.replace` gives the parts of another response.
        if named is not None and content_type not in (None, named):
            raise ValueError("the content type is given twice, differently, in headers and as content_type")
        if named is None:
            named = content_type or _default_content_type(body)
            if named is not None:
                checked = _checked_headers({**checked, "Content-Type": named}, _FRAMING_HEADERS)
        # The class is frozen, so its own constructor has to go around that.
        object.__setattr__(self, "body", payload)
        object.__setattr__(self, "status", int(status))
        object.__setattr__(self, "headers", checked)
        object.__setattr__(self, "content_type", named)

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Mapping[str, str] = {}) -> Self:
        """Make a response of `value` as compact JSON in UTF-8, with `application/json`.

        Raises:
            TypeError: JSON cannot express `value`.
            ValueError: `value` contains itself, or NaN or an infinity, which JSON has not (RFC 8259 §6); or
                as the constructor.
        """
        import json  # Not every server answers with JSON, and `import hubbub` is to be quick.

        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except TypeError as error:
            raise TypeError(f"value must be what JSON can express: {error}") from None
        return cls(text, status, headers, "application/json")

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> Self:
        """Make a response that sends the client to `url`.

        Args:
            url: Absolute or relative; what a URL may not contain is percent-encoded as UTF-8.
            status: 301, 302, 303, 307 or 308.

        Raises:
            TypeError: `url` is no `str`, or `status` no `int`.
            ValueError: `url` has a control character, or `status` is none of these.
        """
        if not isinstance(url, str):
            raise wrong_type("url", "a str", url)
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type("status", "an int", status)
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"status {short_number(status)} is no redirect; allowed are 301, 302, 303, 307 and 308")
        if not url.isprintable():
            raise ValueError(f"the URL has a control character: {url!r}")
        return cls(status=status, headers={"Location": quote(url, safe=_URL_CHARACTERS)})


# RFC 3986 §2.2, and the percent sign of what is encoded already; `quote` itself adds §2.3.
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


@dataclass(frozen=True, slots=True)
class Accept:
    """The answer of a `handshake` handler that accepts, and says how.

    Args:
        subprotocol: The subprotocol to speak. A client that does not offer it is refused with 400, as it would have
            to fail the connection (RFC 6455 §4.1); `None` leaves the choice to the server's `subprotocols`.
        headers: Headers for the 101 response, Set-Cookie for example.

    Raises:
        TypeError: One of them has a wrong type.
        ValueError: `subprotocol` is no token (RFC 6455 §4.1), or a header is malformed or one of those that
            the server writes itself.
    """

    subprotocol: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.subprotocol, str | None):
            raise wrong_type("subprotocol", "a str or None", self.subprotocol)
        if self.subprotocol is not None and not TOKEN.fullmatch(self.subprotocol):
            raise ValueError(f"{self.subprotocol!r} is not the name of a subprotocol")
        object.__setattr__(self, "headers", _checked_headers(self.headers, _HANDSHAKE_HEADERS))


@dataclass(frozen=True, slots=True)
class Refuse:
    """The answer of a `handshake` handler that upgrades and closes at once, so that a browser sees why.

    Args:
        code: The close code, 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 §7.4).
        reason: At most 123 bytes of UTF-8 (RFC 6455 §5.5).

    Raises:
        TypeError: `code` is no `int` or `reason` no `str`.
        ValueError: `code` may not be sent, or `reason` is too long.
    """

    code: int
    reason: str = ""

    def __post_init__(self) -> None:
        check_close(self.code, self.reason)
