"""The URLs of the setting `broker`: where Redis is.

A URL may hold a password, so nothing in here puts a part of one into an error message.
"""

import re
from urllib.parse import unquote

from .kinds import Kind, Refused

__all__ = ["BrokerUrl", "is_prefix", "masked"]

MAX_PORT = 65_535
# Redis has 16 databases unless its configuration says otherwise.
MAX_DATABASE = 1_000_000

_NAME = r"[A-Za-z0-9._~%!$&'()*+,;=\-]"
_HOST = r"\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~\-]+)?\]|[A-Za-z0-9_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_])?\.?"
_PLACE = rf"(?:{_HOST})(?::[0-9]{{1,5}})?"
_USER = rf"(?P<user>{_NAME}*)(?::(?P<password>(?:{_NAME}|:)*))?@"

_URL = re.compile(rf"rediss?://(?:{_USER})?(?P<places>{_PLACE})(?:/(?P<database>[0-9]*))?")
_UNIX_URL = re.compile(rf"redis\+unix://(?:{_USER})?(?P<path>/[^\s?#]+)(?:\?db=(?P<database>[0-9]+))?")
_SENTINEL_URL = re.compile(
    rf"redis\+sentinel://(?:{_USER})?(?P<name>{_NAME}+)@(?P<places>{_PLACE}(?:,{_PLACE})*)(?:/(?P<database>[0-9]*))?"
)
_FORMS = {"redis": _URL, "rediss": _URL, "redis+unix": _UNIX_URL, "redis+sentinel": _SENTINEL_URL}

_PREFIX = re.compile(r"[A-Za-z0-9\-_.:]{1,64}")


class BrokerUrl(Kind):
    """The URL of a Redis or Valkey server; it is a secret, because it may hold a password."""

    @property
    def allowed(self) -> str:
        return (
            "a URL: redis://user:password@host:6379/0, rediss://… (TLS), redis+unix:///path/to/redis.sock, or "
            "redis+sentinel://name@host:26379,host:26379/0"
        )

    @property
    def is_secret(self) -> bool:
        """See `Kind`."""
        return True

    @property
    def metavar(self) -> str:
        """See `Kind`."""
        return "URL"

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise Refused
        scheme, separator, _ = value.partition("://")
        if not separator or scheme not in _FORMS:
            raise Refused("it does not begin with redis://, rediss://, redis+unix:// or redis+sentinel://")
        found = _FORMS[scheme].fullmatch(value)
        if not found:
            raise Refused("it is not complete, or has characters that a URL writes as %40")
        parts = found.groupdict()
        for place in (parts.get("places") or "").split(","):
            port = place.rpartition("]")[2].partition(":")[2]
            if port and not 1 <= int(port) <= MAX_PORT:
                raise Refused(f"a port is 1 to {MAX_PORT}")
        if int(parts["database"] or 0) > MAX_DATABASE:
            raise Refused(f"the number of a database is 0 to {MAX_DATABASE:,}")
        for secret in ("user", "password"):
            try:
                unquote(parts[secret] or "", errors="strict")
            except UnicodeDecodeError:
                raise Refused(f"the {secret} is not UTF-8") from None
        return value


def masked(url: str) -> str:
    """Return a checked URL for people: with `***` in place of a password."""
    scheme = url.partition("://")[0]
    found = _FORMS[scheme].fullmatch(url)
    if not found or not found["password"]:
        return url
    begin, end = found.span("password")
    return f"{url[:begin]}***{url[end:]}"


def is_prefix(text: str) -> bool:
    """Return whether a text may begin the names of all keys and channels in Redis.

    Braces are not allowed: names have their own, which keep all keys of a topic in one slot of a cluster.
    """
    return _PREFIX.fullmatch(text) is not None
