"""The kinds of settings: which values each allows, how text is parsed, and in which form values are stored."""

import ipaddress
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from .headers import TOKEN

__all__ = [
    "Choice",
    "FilePath",
    "Flag",
    "Integer",
    "Kind",
    "OneOrMore",
    "OrAuto",
    "OrNone",
    "Origins",
    "Refused",
    "Seconds",
    "Secret",
    "Strings",
    "Text",
    "as_host",
    "as_host_pattern",
    "as_network",
    "as_path",
    "as_subprotocol",
    "is_request_path",
    "is_root_path",
    "network_of",
    "short_repr",
]

MIN_SECONDS = 0.001
MAX_SECONDS = 7 * 24 * 3600.0

# An origin as RFC 6454 §6.2 serializes it; `*.` may replace the first label. Pages of desktop and mobile applications
# have schemes of their own, such as app:// with the host `.`; file:// has no host.
_ORIGIN = re.compile(
    r"file://|(?P<scheme>[a-z][a-z0-9+.\-]*)://"
    r"(?P<host>\[[0-9a-f:.]+\]|\.|(?:\*\.)?[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The value of a Host header (RFC 9110 §7.2); `*.` may replace the first label.
_HOST_PATTERN = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*\.?)(?::(?P<port>[0-9]{1,5}))?"
)


class Refused(ValueError):
    """A value is not allowed; the text, if any, gives a detail.

    `Setting.read` builds the whole message: only there the setting's name and the value's origin are known.
    """


class Kind(ABC):
    """The values that a setting may take, how text is parsed, and the form in which values are stored."""

    @property
    @abstractmethod
    def allowed(self) -> str:
        """The allowed values, as the end of a sentence that begins with "allowed is"."""

    @property
    def metavar(self) -> str:
        """The placeholder for the value in the help of an option: its type or unit."""
        return "TEXT"

    @property
    def limits(self) -> str:
        """The limits, as shown in the help of an option; empty if the setting's doc says enough."""
        return ""

    @property
    def is_secret(self) -> bool:
        """Whether a value must be shown to nobody, not even in an error message."""
        return False

    @abstractmethod
    def check(self, value: object) -> object:
        """Return `value` in the form in which it is stored; raise `ValueError` if it is not allowed."""

    def parse(self, text: str) -> object:
        """Return the value that the text of an option or a variable means; raise `ValueError` if it means none."""
        return text


@dataclass(frozen=True)
class Integer(Kind):
    """An `int` within a range, both ends included."""

    minimum: int
    maximum: int
    unit: str = ""

    @property
    def allowed(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"an integer from {self.minimum:,} to {self.maximum:,}{unit}"

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return self.unit.upper() or "INTEGER"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return f"{self.minimum:,} to {self.maximum:,}"

    def check(self, value: object) -> object:
        # A bool is an int to Python, but `backlog=True` is a mistake.
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused
        if not self.minimum <= value <= self.maximum:
            raise Refused
        return int(value)

    def parse(self, text: str) -> object:
        return int(text)


class Seconds(Kind):
    """A time in seconds, from a millisecond to a week, stored as `float`."""

    @property
    def allowed(self) -> str:
        return f"a number of seconds from {MIN_SECONDS} to {MAX_SECONDS:,.0f}"

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "SECONDS"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return f"{MIN_SECONDS} to {MAX_SECONDS:,.0f}"

    def check(self, value: object) -> object:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Refused
        # NaN fails every comparison, so it is refused here too.
        if not MIN_SECONDS <= value <= MAX_SECONDS:
            raise Refused
        return float(value)

    def parse(self, text: str) -> object:
        return float(text)


class Flag(Kind):
    """A `bool`."""

    @property
    def allowed(self) -> str:
        return "True or False"

    def check(self, value: object) -> object:
        if not isinstance(value, bool):
            raise Refused
        return value

    def parse(self, text: str) -> object:
        match text.strip().lower():
            case "true" | "1":
                return True
            case "false" | "0":
                return False
        raise Refused


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words, in lower case."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join(repr(word) for word in self.words)

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "[" + "|".join(self.words) + "]"

    def check(self, value: object) -> object:
        if value not in self.words:
            raise Refused
        return value

    def parse(self, text: str) -> object:
        return text.strip().lower()


@dataclass(frozen=True)
class Text(Kind):
    """A `str` for which `accepts` returns true."""

    allowed_text: str
    accepts: Callable[[str], bool]

    @property
    def allowed(self) -> str:
        return self.allowed_text

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not self.accepts(value):
            raise Refused
        return value


class FilePath(Kind):
    """A path in the file system: `str` or `os.PathLike`, stored as `str`."""

    @property
    def allowed(self) -> str:
        return "a path (str or os.PathLike)"

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "PATH"

    def check(self, value: object) -> object:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(path, str):
            raise Refused
        try:
            return as_path(path)
        except ValueError:
            raise Refused from None


class Secret(Kind):
    """A `str` that is shown nowhere, such as a password."""

    @property
    def allowed(self) -> str:
        return "a text (str), not empty"

    @property
    def is_secret(self) -> bool:
        """See `Kind`."""
        return True

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "TEXT"

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not value:
            raise Refused
        value.encode()  # Raises `ValueError` for what an environment variable that is not UTF-8 becomes.
        return value


@dataclass(frozen=True)
class Strings(Kind):
    """A list of `str`, stored as a tuple; in text, separated by commas.

    `entry` returns an entry in the form in which it is stored, and raises `ValueError` for an invalid one.
    """

    entries: str
    entry: Callable[[str], str]
    unique: bool = False
    not_empty: bool = False

    @property
    def allowed(self) -> str:
        return f"a list of {self.entries}" + (", not empty" if self.not_empty else "")

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "LIST"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return f"{self.entries}; separated by commas"

    def check(self, value: object) -> object:
        if not isinstance(value, list | tuple) or (self.not_empty and not value):
            raise Refused
        kept: list[str] = []
        for given in value:
            kept.append(self._check_entry(given))
            if self.unique and kept[-1] in kept[:-1]:
                raise Refused(f"{short_repr(given)} is listed twice")
        return tuple(kept)

    def parse(self, text: str) -> object:
        # A list cannot be None, so `none` can mean the empty list.
        if text.strip().lower() == "none":
            return ()
        return tuple(entry.strip() for entry in text.split(",") if entry.strip())

    def _check_entry(self, given: object) -> str:
        try:
            if isinstance(given, str):
                return self.entry(given)
        except ValueError:
            pass
        raise Refused(f"{short_repr(given)} is not one")


class FilePaths(Strings):
    """A list of paths, each `str` or `os.PathLike`, stored as `str`."""

    def _check_entry(self, given: object) -> str:
        return super()._check_entry(os.fspath(given) if isinstance(given, os.PathLike) else given)


@dataclass(frozen=True)
class OneOrMore(Kind):
    """A single `str`, stored unchanged, or a list of them, stored as a tuple; in text, a comma makes it a list."""

    several: Strings
    one: str

    @property
    def allowed(self) -> str:
        return f"{self.one}, or a list of them"

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "LIST"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return f"{self.one}, or several of them, separated by commas"

    def check(self, value: object) -> object:
        if isinstance(value, str):
            return self.several.entry(value)
        return self.several.check(value)

    def parse(self, text: str) -> object:
        return self.several.parse(text) if "," in text else text


class Origins(Kind):
    """`"same"` or `"*"`, stored as that word; or a list of origins, stored as a tuple."""

    @property
    def allowed(self) -> str:
        return "'same', '*', or a list of " + _ORIGIN_LIST.entries

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "LIST"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return f"same, *, or {_ORIGIN_LIST.limits}"

    def check(self, value: object) -> object:
        kept = _ORIGIN_LIST.check([value] if isinstance(value, str) else value)
        for word in ("same", "*"):
            if kept == (word,):
                return word
        if isinstance(kept, tuple) and "same" in kept:
            raise Refused("'same' must stand alone: list the origin of your own pages instead")
        return kept

    def parse(self, text: str) -> object:
        return _ORIGIN_LIST.parse(text)


@dataclass(frozen=True)
class OrNone(Kind):
    """The values of another kind, or `None`, which is `none` in text."""

    kind: Kind

    @property
    def allowed(self) -> str:
        return f"{self.kind.allowed}, or None"

    @property
    def is_secret(self) -> bool:
        """See `Kind`."""
        return self.kind.is_secret

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return f"{self.kind.metavar}|none"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return self.kind.limits

    def check(self, value: object) -> object:
        return None if value is None else self.kind.check(value)

    def parse(self, text: str) -> object:
        return None if text.strip().lower() == "none" else self.kind.parse(text)


@dataclass(frozen=True)
class OrAuto(Kind):
    """The values of another kind, or the word `auto`."""

    kind: Kind

    @property
    def allowed(self) -> str:
        return f"{self.kind.allowed}, or 'auto'"

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return f"{self.kind.metavar}|auto"

    @property
    def limits(self) -> str:
        """See `Kind`."""
        return self.kind.limits

    def check(self, value: object) -> object:
        return value if value == "auto" else self.kind.check(value)

    def parse(self, text: str) -> object:
        word = text.strip().lower()
        return word if word == "auto" else self.kind.parse(text)


def as_path(text: str) -> str:
    """Return text that may be a path; raise `ValueError` if it cannot be one."""
    if not text or "\0" in text:
        raise ValueError
    os.fsencode(text)  # Raises `ValueError` for characters that no path can have.
    return text


def as_host(text: str) -> str:
    """Return text that may be a host's name or address; raise `ValueError` if it cannot be either."""
    # `isprintable` excludes NUL, other controls and characters that cannot be encoded; a space is printable.
    if not text or not text.isprintable() or set(text) & set(" ,"):
        raise ValueError
    return text


def is_request_path(text: str) -> bool:
    """Return whether clients can request this path exactly as it is."""
    return text.startswith("/") and text.isascii() and text.isprintable() and not set(text) & set(" ?#")


def is_root_path(text: str) -> bool:
    """Return whether other paths can be appended to this one: it is empty, or begins with a slash but ends without."""
    return not text or (
        text.startswith("/") and not text.endswith("/") and text.isprintable() and not set(text) & set("?#")
    )


def as_subprotocol(text: str) -> str:
    """Return the name of a subprotocol (RFC 6455 §4.1); raise `ValueError` if it is invalid."""
    if not TOKEN.fullmatch(text):
        raise ValueError
    return text


def as_network(text: str) -> str:
    """Return an address or a network; raise `ValueError` if it is neither."""
    # Not strict: "172.17.0.1/16" clearly means the network that contains that address.
    ipaddress.ip_network(text, strict=False)
    return text


def network_of(text: str) -> str:
    """Return an address or a network, as `as_network` accepts it, in the form of a network: `10.0.0.0/8`."""
    return str(ipaddress.ip_network(text, strict=False))


def as_host_pattern(text: str) -> str:
    """Return a host pattern for `allowed_hosts`, in lower case; raise `ValueError` if it is invalid."""
    match = _HOST_PATTERN.fullmatch(text.lower())
    if not match:
        raise ValueError
    if match["host"].startswith("["):
        ipaddress.IPv6Address(match["host"][1:-1])
    if match["port"] and not 0 < int(match["port"]) <= 65535:
        raise ValueError
    return match[0]


def _as_browsers_write(address: ipaddress.IPv6Address) -> str:
    """Return an address in the shortest form (RFC 5952), but with an embedded IPv4 address in hexadecimal."""
    mapped = address.ipv4_mapped
    return f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}" if mapped else str(address)


def _origin(text: str) -> str:
    """Return an origin as a browser sends it: in lower case and without its scheme's default port."""
    origin = text.lower()
    if origin in ("same", "*", "null"):
        return origin
    match = _ORIGIN.fullmatch(origin)
    if not match:
        raise Refused
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if scheme is None:
        return origin
    if host.startswith("["):
        host = f"[{_as_browsers_write(ipaddress.IPv6Address(host[1:-1]))}]"
    if port is None:
        return f"{scheme}://{host}"
    if not 0 < int(port) <= 65535:
        raise Refused
    if int(port) == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


_ORIGIN_LIST = Strings("origins (https://app.example.com, https://*.example.com, file://, null)", _origin)


def short_repr(value: object) -> str:
    """Return the `repr` of a value, shortened to fit into an error message."""
    try:
        text = repr(value)
    except Exception:  # Any value may be given, even an int with more digits than `repr` accepts.
        return f"<{type(value).__name__}>"
    return text if len(text) <= 100 else text[:97] + "..."
