"""The URLs of the setting `broker`: where Redis is."""

import re

from ._core import broker_address
from .kinds import Kind, Refused

__all__ = ["BrokerUrl", "is_prefix"]

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
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused("it is not UTF-8") from None
        try:
            broker_address(value)
        except ValueError as error:
            raise Refused(str(error)) from None
        return value


def is_prefix(text: str) -> bool:
    """Return whether a text may begin the names of all keys and channels in Redis.

    Braces are not allowed: names have their own, which keep all keys of a topic in one slot of a cluster.
    """
    return _PREFIX.fullmatch(text) is not None
