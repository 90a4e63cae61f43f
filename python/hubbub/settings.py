"""Every setting of the server, each defined once.

A setting is one field of `Settings`: its type, its default, the values it may take and its documentation
are in one place. The keywords of `Server`, the options of `hubbub run`, the environment variables and all error
messages derive from that table, so a new setting is one new field.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, TypedDict

from .broker_url import BrokerUrl, is_prefix
from .errors import SettingsError
from .kinds import (
    Choice,
    FilePath,
    FilePaths,
    Flag,
    Integer,
    Kind,
    OneOrMore,
    OrAuto,
    Origins,
    OrNone,
    Refused,
    Seconds,
    Secret,
    Strings,
    Text,
    as_host,
    as_host_pattern,
    as_network,
    as_path,
    as_subprotocol,
    is_request_path,
    is_root_path,
    network_of,
    short_repr,
)

__all__ = ["WITH_APPLICATION", "ServerSettings", "Setting", "Settings", "more_follow"]

KIB = 1024
MIB = 1024 * KIB

MAX_WORKERS = 64
MAX_BYTES = 2**31 - 1
MAX_MEMORY = 2**40

WITH_APPLICATION: Mapping[str, object] = {
    "origins": "*",
    "health_path": None,
    "max_body_size": None,
    "max_header_size": 64 * KIB,
}
"""The defaults that differ for a server with an ASGI application: it decides these things itself."""


_more_follow = ContextVar("_more_follow", default=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of one setting, for `Settings`, the command line and the documentation."""

    name: str
    """The keyword of `Server`: `max_message_size`."""
    default: object
    """The value if it is not set anywhere."""
    kind: Kind
    """The allowed values: `kind.allowed` describes them in words."""
    doc: str
    """What the setting means, and what raising it costs."""

    @property
    def option(self) -> str:
        """The option of `hubbub run`: `--max-message-size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def negation(self) -> str | None:
        """The option that turns it off, if the setting is a switch: `--no-compression`."""
        return "--no-" + self.name.replace("_", "-") if isinstance(self.kind, Flag) else None

    @property
    def variable(self) -> str:
        """The environment variable: `HUBBUB_MAX_MESSAGE_SIZE`."""
        return "HUBBUB_" + self.name.upper()

    def read(self, value: object, source: str = "keyword") -> object:
        """Check `value`, and return it in the form in which it is stored.

        Raises:
            SettingsError: The value is not allowed; the message names `source` as its origin.
        """
        try:
            return self.kind.check(value)
        except ValueError as error:
            raise self._refusal(value, source, error) from None

    def read_text(self, text: str, source: str) -> object:
        """Parse `text`, and return the value in the form in which it is stored; raises as `read` does."""
        try:
            return self.kind.check(self.kind.parse(text))
        except ValueError as error:
            raise self._refusal(text, source, error) from None

    def _refusal(self, given: object, source: str, error: ValueError) -> SettingsError:
        detail = f": {error}" if isinstance(error, Refused) and error.args else ""
        shown = f"<{type(given).__name__}>" if self.kind.is_secret else short_repr(given)
        problem = f"{shown} ({source}) is not allowed{detail}"
        return SettingsError(f"{self.name}: {problem}; allowed is {self.kind.allowed}")


def _setting(default: object, kind: Kind, doc: str) -> Any:
    return field(default=default, repr=not kind.is_secret, metadata={"kind": kind, "doc": doc})


class ServerSettings(TypedDict, total=False):
    """The keywords of `Server` beside host, port and workers, for type checkers; see `Settings`."""

    uds: str | os.PathLike[str] | None
    fd: int | None
    max_connections: int
    max_message_size: int
    send_queue_size: int
    slow_consumer: Literal["close", "drop"]
    max_memory: int | Literal["auto"]
    max_topics: int
    threads: int
    receive_queue: int
    ping_interval: float | None
    ping_timeout: float | None
    message_timeout: float | None
    idle_timeout: float | None
    handshake_timeout: float
    close_timeout: float
    keep_alive_timeout: float
    shutdown_timeout: float
    origins: str | Sequence[str]
    allowed_hosts: str | Sequence[str] | None
    subprotocols: str | Sequence[str]
    compression: bool
    compression_threshold: int
    max_header_size: int
    max_body_size: int | None
    limit_concurrency: int | None
    history_memory: int
    broker: str | None
    broker_prefix: str
    broker_queue_size: int
    broker_required: bool
    max_requests: int | None
    ssl_certfile: str | os.PathLike[str] | None
    ssl_keyfile: str | os.PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_ca_certs: str | os.PathLike[str] | None
    trusted_proxies: str | Sequence[str]
    proxy_protocol: bool
    health_path: str | None
    root_path: str
    lifespan: Literal["auto", "on", "off"]
    metrics_port: int | None
    control: str | os.PathLike[str] | None
    log_level: str
    backlog: int
    access_log: bool
    reload_dirs: Sequence[str | os.PathLike[str]]
    stuck_after: float | None
    stuck_restart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server, checked; sizes in bytes, times in seconds.

    `describe` returns what each setting means, its allowed values and what raising it costs.

    Raises:
        SettingsError: A value has the wrong type or is out of range, or two values contradict each other.
    """

    host: str | tuple[str, ...] = _setting(
        "127.0.0.1",
        OneOrMore(Strings("host names or IP addresses", as_host, not_empty=True), "a host name or an IP address"),
        "The address to listen on, or a list of them, all on the same port; a name means all its addresses. `0.0.0.0` "
        "lets other machines in over IPv4, `::` over IPv6 only; `0.0.0.0,::` is both.",
    )
    port: int = _setting(9501, Integer(0, 65535), "The TCP port to listen on; 0 picks any free one.")
    uds: str | None = _setting(
        None,
        OrNone(FilePath()),
        "The path of a Unix socket to listen on, instead of `host` and `port`, for a proxy on the same machine. The "
        "file gets the permissions that the umask of the process leaves (a client needs the permission to write), "
        "replaces a socket on which nobody listens, and is removed when the server stops. Its clients count as "
        "127.0.0.1, so `trusted_proxies` trusts them by default. `port` then only names the control socket.",
    )
    fd: int | None = _setting(
        None,
        OrNone(Integer(0, MAX_BYTES)),
        "The descriptor of a listening TCP or Unix socket that the process has inherited, to be used instead of `host` "
        "and `port`. It stays open when the server stops, so that clients can wait for the next one. With `uds` and "
        "`fd` unset, sockets that systemd hands over (socket activation, `LISTEN_FDS`) are used in the same way.",
    )
    workers: int | None = _setting(
        None,
        OrNone(Integer(1, MAX_WORKERS)),
        "The number of worker processes; None starts one per core. Each costs a Python interpreter with your program "
        "in it; more workers than cores gain nothing.",
    )
    max_connections: int = _setting(
        100_000,
        Integer(1, 10_000_000),
        "The maximum number of open WebSockets in the whole server; beyond it, a handshake gets 503 with Retry-After. "
        "Each costs a file descriptor, under 1 KB idle (about 4.5 KB more with TLS), and a row in shared memory, which "
        "is reserved at the start. Connections that have ended but whose handlers are still running do not count: each "
        "worker may have this many of them, plus a tenth, plus 1,000; beyond that, a handshake gets 503 too.",
    )
    max_message_size: int = _setting(
        1 * MIB,
        Integer(1, MAX_BYTES, "bytes"),
        "The longest message accepted, also after decompression; if a message is longer, the connection is closed "
        "with 1009. Each connection may hold that much memory while its message arrives.",
    )
    send_queue_size: int = _setting(
        4 * MIB,
        Integer(1 * KIB, MAX_BYTES, "bytes"),
        "The size of one connection's outbox. Each client that reads too slowly may hold that much memory.",
    )
    slow_consumer: Literal["close", "drop"] = _setting(
        "close",
        Choice(("close", "drop")),
        "What to do if an outbox is full: `close` the connection with 1013, or `drop` the message and count it.",
    )
    max_memory: int | Literal["auto"] = _setting(
        "auto",
        OrAuto(Integer(1 * MIB, MAX_MEMORY, "bytes")),
        "The memory that all connections of one worker together may hold for queued messages and unfinished input; "
        "beyond it, the connections that hold the most are closed: with 1013 (unread messages), 1009 (an unfinished "
        "message) or 413 (a request body). `auto` is half of the machine's memory, or of the cgroup's limit if that is "
        "less, divided by the number of workers. Raising it lets slow or hostile clients take more memory from the "
        "rest of the machine.",
    )
    max_topics: int = _setting(
        10_000,
        Integer(1, MAX_BYTES, "topics"),
        "The number of topics that one connection may be subscribed to; beyond it, `subscribe` returns False, which is "
        "counted and logged. Raising it lets each connection hold more memory.",
    )
    threads: int = _setting(
        8,
        Integer(1, 1024),
        "The number of threads in each worker's pool for threaded handlers. Each costs a stack, and all share one GIL.",
    )
    receive_queue: int = _setting(
        64,
        Integer(1, 65536, "messages"),
        "The number of messages that may wait for one connection's handler before the server stops reading its socket; "
        "all but the first may have at most `max_message_size` bytes together. Raising it lets each connection hold "
        "more memory.",
    )
    ping_interval: float | None = _setting(
        20.0,
        OrNone(Seconds()),
        "The time between two pings to a connection; None sends none. Raising it means that vanished clients are "
        "noticed later; above a minute, proxies may cut idle connections.",
    )
    ping_timeout: float | None = _setting(
        20.0,
        OrNone(Seconds()),
        "The time to wait for the pong before the connection is closed with 1011; None waits forever. Raising it "
        "keeps vanished clients longer.",
    )
    message_timeout: float | None = _setting(
        60.0,
        OrNone(Seconds()),
        "How long an unfinished message may go without progress before the connection is closed with 1008; None "
        "waits forever. Raising it lets clients hold the memory of unfinished messages longer.",
    )
    idle_timeout: float | None = _setting(
        None,
        OrNone(Seconds()),
        "The time without any message, in either direction, after which a connection is closed with 1000; pings do not "
        "count. It is closed at most an eighth of that time later. None never closes it. Raising it keeps connections "
        "that nobody uses longer.",
    )
    handshake_timeout: float = _setting(
        10.0,
        Seconds(),
        "The time for a client to send its whole request. Every 16 KiB of body received extends the deadline by one "
        "second. Raising it lets slow attackers hold sockets longer.",
    )
    close_timeout: float = _setting(
        5.0,
        Seconds(),
        "The time for the peer to answer in the closing handshake; then the socket is cut. It starts when the Close "
        "frame has been sent. Before that, the peer has to read at least 16 KiB of the queued data in each period of "
        "that length. Raising it keeps the sockets of vanished clients longer.",
    )
    keep_alive_timeout: float = _setting(
        15.0,
        Seconds(),
        "The time for which an HTTP connection may wait for its next request. Raising it keeps more idle sockets.",
    )
    shutdown_timeout: float = _setting(
        10.0,
        Seconds(),
        "The time that a graceful stop gives running handlers and closing connections before it cancels them. Raising "
        "it makes a stop slower; keep it below the stop timeout of your process manager.",
    )
    origins: str | tuple[str, ...] = _setting(
        "same",
        Origins(),
        "The web pages that may connect from a browser: `same` (the page's host and port are those of the server), a "
        "list of origins, or `*` for all. Pages of each origin that you add can act with their visitors' cookies. The "
        "default of a server with an ASGI application is `*`: the application decides, as with other ASGI servers.",
    )
    allowed_hosts: tuple[str, ...] | None = _setting(
        None,
        OrNone(
            Strings(
                "hosts (app.example.com, *.example.com, [::1]), with or without a port", as_host_pattern, not_empty=True
            )
        ),
        "The hosts that requests may name; requests for others get 400. This stops web pages whose own host name was "
        "made to resolve to this server (DNS rebinding). None allows any host. Unless this is set, `hubbub demo` and "
        "`hubbub run --reload` on a loopback address accept only the loopback names, such as `localhost`.",
    )
    subprotocols: tuple[str, ...] = _setting(
        (),
        Strings("subprotocol names (RFC 9110 tokens), each once", as_subprotocol, unique=True),
        "The subprotocols that the server supports, the preferred one first.",
    )
    compression: bool = _setting(
        False,
        Flag(),
        "Offer permessage-deflate without context takeover. This saves bytes and costs CPU for each message.",
    )
    compression_threshold: int = _setting(
        1 * KIB,
        Integer(0, MAX_BYTES, "bytes"),
        "Messages shorter than this are sent uncompressed. Lowering it costs CPU for messages that hardly shrink; "
        "raising it costs bandwidth.",
    )
    max_header_size: int = _setting(
        16 * KIB,
        Integer(256, 1 * MIB, "bytes"),
        "The longest request head; a longer one gets 431. Each client may hold that much memory before it is "
        "identified. The default of a server with an ASGI application is 64 KiB.",
    )
    max_body_size: int | None = _setting(
        1 * MIB,
        OrNone(Integer(0, MAX_BYTES, "bytes")),
        "The longest request body; a longer one gets 413. Each client may hold that much memory. With None, only "
        "`max_memory` limits it; that is the default of a server with an ASGI application.",
    )
    limit_concurrency: int | None = _setting(
        None,
        OrNone(Integer(1, MAX_BYTES, "requests")),
        "The number of requests and WebSockets that the ASGI application of one worker may serve at the same time; "
        "beyond it, clients get 503 with Retry-After. None sets no limit. Raising it lets more of them share the "
        "memory and the database connections of one process.",
    )
    history_memory: int = _setting(
        64 * 1024 * 1024,
        Integer(0, MAX_BYTES, "bytes"),
        "Memory for the history of all topics together (`topic_options`). Above it, the oldest messages of the topic "
        "that was used least recently go first. The master holds it, or the process of an embedded server.",
    )
    broker: str | None = _setting(
        None,
        OrNone(BrokerUrl()),
        "The Redis or Valkey server through which servers on several hosts are one: all that have the same `broker` "
        "and `broker_prefix`. `redis://user:password@host:6379/0`, `rediss://` with TLS, "
        "`redis+unix:///path/to/redis.sock`, or `redis+sentinel://name@host:26379,host:26379/0` for the master of "
        "that name. All users of the machine can read options, so set the variable if the URL has a password. The URL "
        "is not shown in `repr(settings)` or in error messages, and the log has `***` for the password. Whoever can "
        "write to that Redis can push to any client. With None, this server is alone. An embedded server cannot have "
        "a broker.",
    )
    broker_prefix: str = _setting(
        "hubbub",
        Text("1 to 64 letters, digits, or characters of -_.:", is_prefix),
        "What the names of all keys and channels in Redis begin with. Servers with different prefixes have nothing to "
        "do with each other, so several applications, or a test and a live system, can share one Redis.",
    )
    broker_queue_size: int = _setting(
        64 * MIB,
        Integer(1 * MIB, MAX_BYTES, "bytes"),
        "What may wait for Redis, and as much again that has come from it and waits for the hub. While Redis is away, "
        "messages for other hosts wait here, for at most 5 seconds; what does not fit, or has waited longer, is "
        "dropped and counted. The master holds it. It is at least twice `send_queue_size`. Raising it lets a Redis "
        "that is away or slow take more memory.",
    )
    broker_required: bool = _setting(
        True,
        Flag(),
        "Whether the server refuses to start (exit status 1) if it gets no host number within 10 seconds: Redis is "
        "away, refuses the password, or cannot be written to. If off, a warning is logged, and the server serves "
        "alone and joins the others as soon as it can. Once a server has joined, it goes on without Redis in either "
        "case.",
    )
    max_requests: int | None = _setting(
        None,
        OrNone(Integer(1, MAX_BYTES, "requests")),
        "The number of handshakes and requests after which a worker stops gracefully and is replaced, against memory "
        "that the program leaks. Each worker takes up to a tenth more or less, so that they are not replaced together. "
        "None never replaces one. Has no effect in an embedded server, which has no master to do this.",
    )
    ssl_certfile: str | None = _setting(
        None,
        OrNone(FilePath()),
        "The certificate chain (PEM); with this and `ssl_keyfile`, the server speaks wss and https. When the file "
        "changes, it is read again, for new handshakes.",
    )
    ssl_keyfile: str | None = _setting(
        None,
        OrNone(FilePath()),
        "The private key (PEM) of the certificate in `ssl_certfile`; see `ssl_keyfile_password` if it is encrypted.",
    )
    ssl_keyfile_password: str | None = _setting(
        None,
        OrNone(Secret()),
        "The password of an encrypted `ssl_keyfile` (PKCS #8: `BEGIN ENCRYPTED PRIVATE KEY`); it is ignored if the key "
        "is not encrypted. All users of the machine can read options, so rather set the variable. It is not shown in "
        "the log, in error messages, or in `repr(settings)`.",
    )
    ssl_ca_certs: str | None = _setting(
        None,
        OrNone(FilePath()),
        "Certificates of authorities (PEM, one or more): each client must show a certificate of one of them, and no "
        "other client gets past the TLS handshake, health checks included. `request.peer_certificate` is what it has "
        "shown. When the file changes, it is read again, for new handshakes. Handshakes cost more CPU than without, "
        "because TLS sessions are not resumed.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        ("127.0.0.1", "::1"),
        Strings("IP addresses and networks (10.0.0.0/8)", as_network),
        "The peers whose X-Forwarded-For and X-Forwarded-Proto are trusted. Any of them can pretend to be any client.",
    )
    proxy_protocol: bool = _setting(
        False,
        Flag(),
        "Each connection begins with a PROXY header (version 1 or 2) that names its client, as HAProxy, nginx and load "
        "balancers send it. Only `trusted_proxies` may connect then; others, and connections without a valid header, "
        "get 400, or are closed where the server speaks TLS. So a health check has to send the header too.",
    )
    health_path: str | None = _setting(
        "/health",
        OrNone(Text("a path that begins with /, in ASCII, without a query", is_request_path)),
        "The path that answers GET and HEAD with 200 `ok`, or with 503 while the worker is stopping; None turns it "
        "off, and is the default of a server with an ASGI application.",
    )
    root_path: str = _setting(
        "",
        Text("empty, or a path that begins with /, does not end with it, and has no query", is_root_path),
        "The path below which a proxy serves the ASGI application, `root_path` in its scope: `/api`. The application "
        "needs it to write links to itself.",
    )
    lifespan: Literal["auto", "on", "off"] = _setting(
        "auto",
        Choice(("auto", "on", "off")),
        "Whether each worker tells its ASGI application when it starts and stops. With `auto`, an application that "
        "raises or returns without any answer is served without that; with `on`, that is a failed start.",
    )
    metrics_port: int | None = _setting(
        None,
        OrNone(Integer(1, 65535)),
        "The port on 127.0.0.1 that serves `/metrics` for Prometheus; None turns it off. Needs the package "
        "prometheus-client (`hubbub[metrics]`).",
    )
    control: str | None = _setting(
        "auto",
        OrNone(FilePath()),
        "The path of the control socket, through which other processes push; `auto` is "
        "`hubbub-UID/PORT.sock` in the system's directory for temporary files; None turns it off.",
    )
    log_level: str = _setting(
        "info",
        Choice(("debug", "info", "warning", "error", "critical")),
        "The level of the logger `hubbub`; the access log does not depend on it. If the server is embedded, the "
        "program decides where the lines go.",
    )
    backlog: int = _setting(
        4096,
        Integer(1, 65535, "connections"),
        "The number of connections that the kernel queues until they are accepted; the kernel may have a lower limit. "
        "In a rush, a higher value lets clients wait longer instead of trying again.",
    )
    access_log: bool = _setting(
        False,
        Flag(),
        "Log a line for each handshake and request to the logger `hubbub.access`. Each line is formatted and written "
        "in Python. The level is INFO, whatever `log_level` says. If the server is embedded in a program that does not "
        "set up logging, the lines are not written anywhere.",
    )

    reload_dirs: tuple[str, ...] = _setting(
        (),
        FilePaths("directories", as_path),
        "Further directories that `hubbub run --reload` watches, with all kinds of files: pages and configuration, for "
        "example. Hidden files do not count. Do not list a directory in which the server itself writes.",
    )

    stuck_after: float | None = _setting(
        30.0,
        OrNone(Seconds()),
        "The time for which the event loop of a worker may be blocked, because a handler does not return or its "
        "process is stopped. After that, the log names the worker and the handler, the metric `hubbub_worker_stuck` is "
        "1, and the worker gets no new connections; None turns the check off. If it is low, handlers are reported that "
        "would soon have ended by themselves. The log also names a worker that takes this long to start.",
    )
    stuck_restart: bool = _setting(
        False,
        Flag(),
        "Kill a worker that is stuck (see `stuck_after`), and start another in its place: its connections are lost, "
        "and their `close` handlers do not run. Has no effect in an embedded server, which has no master to do this.",
    )

    def __post_init__(self) -> None:
        for setting in SETTINGS.values():
            object.__setattr__(self, setting.name, setting.read(getattr(self, setting.name)))
        if not _more_follow.get():
            self._check_together()

    def _check_together(self) -> None:
        if self.ssl_certfile is not None and self.ssl_keyfile is None:
            raise SettingsError("ssl_keyfile: missing, although ssl_certfile is set; allowed is both or neither")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise SettingsError("ssl_certfile: missing, although ssl_keyfile is set; allowed is both or neither")
        if self.ssl_keyfile_password is not None and self.ssl_keyfile is None:
            raise SettingsError("ssl_keyfile_password: set, although ssl_keyfile is not; allowed is only both")
        if self.ssl_ca_certs is not None and self.ssl_certfile is None:
            raise SettingsError("ssl_ca_certs: set, although ssl_certfile is not; allowed is only both")
        if self.uds is not None and self.fd is not None:
            raise SettingsError("fd: set, although uds is set too; allowed is one of them")
        if self.broker is not None and self.broker_queue_size < 2 * self.send_queue_size:
            # A message as large as an outbox has to fit, with what surrounds it.
            raise SettingsError(
                f"broker_queue_size: {self.broker_queue_size} is below twice send_queue_size; "
                f"allowed is {2 * self.send_queue_size} or more"
            )
        if isinstance(self.max_memory, int):
            for name in ("max_message_size", "max_body_size"):
                size: int | None = getattr(self, name)
                if size is not None and self.max_memory < size:
                    raise SettingsError(f"max_memory: {self.max_memory} is below {name}; allowed is {size} or more")

    @classmethod
    def load(
        cls,
        keywords: Mapping[str, object],
        *,
        environ: Mapping[str, str] = os.environ,
        options: Mapping[str, str] = {},
        defaults: Mapping[str, object] = {},
    ) -> Self:
        """Combine the settings from all three places; an option beats a variable, a variable beats a keyword.

        Text is parsed according to the kind of the setting: lists are separated by commas, `none` is None (for a list:
        the empty list), and true, false, 1 and 0 are booleans; neither these words nor those of a choice
        are case-sensitive. A value that is overridden is not checked.

        Args:
            keywords: The keywords given by the program, as Python values, by name.
            environ: The environment variables. An empty one counts as not set, so that a compose file may contain
                `HUBBUB_PORT=${PORT:-}`. Unknown ones are ignored here; the server warns about them when it starts. A
                `HUBBUB_PORT` of the form `tcp://10.0.0.1:80`, which Kubernetes injects for a Service named hubbub, is
                ignored too; so is a `HUBBUB_METRICS_PORT` of that form, for a Service named hubbub-metrics.
            options: The options of the command line, as text, by the name of the setting.
            defaults: Values, by name, that replace the table's defaults for settings that are not given anywhere.

        Raises:
            SettingsError: A name is unknown, a value has the wrong type or is out of range, or two values
                contradict each other.
        """
        for source, names in (("keyword", keywords), ("option", options)):
            for name in names:
                if name not in SETTINGS:
                    raise _unknown(name, source)
        values: dict[str, Any] = dict(defaults)
        for name, setting in SETTINGS.items():
            variable = environ.get(setting.variable, "")
            if name in options:
                values[name] = setting.read_text(options[name], f"option {setting.option}")
            elif variable and not (name in ("port", "metrics_port") and variable.startswith("tcp://")):
                values[name] = setting.read_text(variable, f"variable {setting.variable}")
            elif name in keywords:
                values[name] = keywords[name]
        return cls(**values)

    @staticmethod
    def describe() -> tuple[Setting, ...]:
        """Return the description of each setting, in the order of the documentation."""
        return tuple(SETTINGS.values())

    @property
    def worker_count(self) -> int:
        """The number of worker processes: `workers`, or one per core that this process may use, at most 64."""
        return self.workers or min(_usable_cores(), MAX_WORKERS)

    @property
    def hosts(self) -> tuple[str, ...]:
        """`host`, always as a tuple."""
        return (self.host,) if isinstance(self.host, str) else self.host

    @property
    def trusted_networks(self) -> tuple[str, ...]:
        """`trusted_proxies`, each as a network: `10.0.0.0/8`, `127.0.0.1/32`."""
        return tuple(map(network_of, self.trusted_proxies))

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """`origins`, always as a tuple: `("same",)`, `("*",)` or the list."""
        return (self.origins,) if isinstance(self.origins, str) else self.origins


@contextmanager
def more_follow() -> Iterator[None]:
    """Accept settings that contradict each other in this block: the options that complete them are laid over later."""
    token = _more_follow.set(True)
    try:
        yield
    finally:
        _more_follow.reset(token)


SETTINGS: Mapping[str, Setting] = {
    each.name: Setting(each.name, each.default, each.metadata["kind"], each.metadata["doc"])
    for each in fields(Settings)
}


def _unknown(name: str, source: str) -> SettingsError:
    import difflib  # Only needed for a mistake, so `import hubbub` should not wait for it.

    close = difflib.get_close_matches(name, SETTINGS, n=1)
    hint = f"did you mean {close[0]}?" if close else "the settings are " + ", ".join(SETTINGS)
    return SettingsError(f"{name}: unknown setting ({source}); {hint}")


def _usable_cores() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
