"""The values that handlers and callers receive, except requests: codes, counts, and what a connection is like.

Nothing in here does I/O or knows about a server. `Frame`, the only value created for every message, is a
class of the native core.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict

from .errors import short_number, wrong_type

__all__ = [
    "CloseCode",
    "ConnectionInfo",
    "Data",
    "Opcode",
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

# Type checkers know a typed dict as a `Mapping`, and not as a `dict`.
Sendable: TypeAlias = Data | dict[Any, Any] | Mapping[str, object] | list[Any]
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
    path: str
    """The first 64 bytes of the handshake's path, as in `Request.path`."""
    topics: int
    """The number of topics that it is subscribed to."""
    opened_at: float
    """When the handshake completed, in Unix seconds."""
    last_received_at: float
    """When bytes last came from the client, in Unix seconds."""
    latency: float | None
    """Seconds between the last answered ping of `ping_interval` and its pong; `None` before the first pong."""
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
    messages_expired: int
    """Messages left out because they waited in an outbox for longer than their topic's `ttl`."""
    messages_replaced: int
    history_evicted: int
    """Messages that a later one with the same key replaced in an outbox (`slow_consumer="latest"`)."""
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
