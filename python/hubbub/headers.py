"""The headers of an answer, and cookies: what may be in them, so that none can end its line."""

import re
from collections.abc import Iterable, Iterator, Mapping

from .errors import short_number, wrong_type

__all__ = ["TOKEN", "Headers", "cookie", "expired_cookie", "pairs_of"]

# The syntax of the name of a header, method or subprotocol (RFC 9110 §5.6.2).
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# A value is sent as latin-1 and must not be able to end its line (RFC 9110 §5.5).
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# RFC 6265 §4.1.1: no white space, quote, comma, semicolon or backslash.
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
_COOKIE_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_COOKIE_DOMAIN = re.compile(r"\.?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
# Browsers ignore a cookie whose name and value are longer together, or whose attribute is longer.
_MAX_COOKIE, _MAX_ATTRIBUTE = 4096, 1024
_SAME_SITE = {"lax": "Lax", "strict": "Strict", "none": "None"}


class Headers(Mapping[str, str]):
    """Headers in their order, read-only; as a mapping, the values of a repeated name are joined by `, `.

    `pairs` are the headers as they are sent.
    """

    __slots__ = ("_spellings", "_values", "pairs")

    def __init__(
        self, headers: Mapping[str, str] | Iterable[tuple[str, str]], reserved: frozenset[str] = frozenset()
    ) -> None:
        """Check and copy headers.

        Args:
            headers: A mapping, or pairs in which a name may be repeated.
            reserved: Names, in lower case, of headers that the server writes itself.

        Raises:
            TypeError: `headers` is neither a mapping nor pairs of `str`.
            ValueError: A header cannot be sent, or is reserved.
        """
        self.pairs = tuple(_pairs(headers))
        self._spellings: dict[str, str] = {}
        self._values: dict[str, str] = {}
        for name, value in self.pairs:
            if not TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a header name")
            if not _FIELD_VALUE.fullmatch(value):
                raise ValueError(f"the header {name} contains a control character or is not Latin-1: {value!r}")
            if name.lower() in reserved:
                raise ValueError(f"the server itself sets the header {name}")
            # RFC 9110 §5.3. The first spelling counts.
            name = self._spellings.setdefault(name.lower(), name)
            self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[self._spellings.get(name.lower(), name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"

    def values_of(self, name: str) -> list[str]:
        """Return all values of a header; `name` is in lower case."""
        return [value for other, value in self.pairs if other.lower() == name]


def pairs_of(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return headers as they are sent."""
    return list(headers.pairs if isinstance(headers, Headers) else headers.items())


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    wanted = "a mapping of str to str, or pairs of str"
    if isinstance(headers, Headers):
        yield from headers.pairs
        return
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise wrong_type("headers", wanted, headers)
    for pair in headers.items() if isinstance(headers, Mapping) else headers:
        match pair:
            case (str(name), str(value)):
                yield name, value
            case _:
                raise TypeError(f"headers must be {wanted}, but contain {pair!r}")


def cookie(
    name: str,
    value: str,
    *,
    max_age: int | None,
    path: str,
    domain: str | None,
    secure: bool,
    httponly: bool,
    samesite: str | None,
) -> str:
    """Return the value of a Set-Cookie header (RFC 6265 §4.1); see `Response.set_cookie`."""
    _check_cookie(name, value)
    parts = [f"{name}={value}"]
    if max_age is not None:
        if not isinstance(max_age, int) or isinstance(max_age, bool):
            raise wrong_type("max_age", "an int or None", max_age)
        if not 0 <= max_age < 2**63:
            raise ValueError(f"max_age must be from 0 to 2^63 - 1 seconds, not {short_number(max_age)}")
        parts.append(f"Max-Age={max_age}")
    parts.append(f"Path={_attribute('path', path, _COOKIE_PATH, 'begin with / and contain no semicolon')}")
    if domain is not None:
        if not isinstance(domain, str):
            raise wrong_type("domain", "a str or None", domain)
        parts.append(f"Domain={_attribute('domain', domain, _COOKIE_DOMAIN, 'be a host name')}")
    for argument, given in (("secure", secure), ("httponly", httponly)):
        if not isinstance(given, bool):
            raise wrong_type(argument, "a bool", given)
    if samesite is not None:
        if not isinstance(samesite, str):
            raise wrong_type("samesite", "a str or None", samesite)
        if samesite.lower() not in _SAME_SITE:
            raise ValueError(f"samesite must be 'lax', 'strict', 'none' or None, not {samesite!r}")
    _check_promises(name, path, domain, secure, samesite)
    if secure:
        parts.append("Secure")
    if httponly:
        parts.append("HttpOnly")
    if samesite is not None:
        parts.append(f"SameSite={_SAME_SITE[samesite.lower()]}")
    return "; ".join(parts)


def expired_cookie(name: str, *, path: str, domain: str | None) -> str:
    """Return the value of a Set-Cookie header that makes browsers forget a cookie."""
    # Browsers ignore one with such a name that is not secure, also if it is to delete.
    secure = isinstance(name, str) and name.lower().startswith(("__secure-", "__host-"))
    return cookie(name, "", max_age=0, path=path, domain=domain, secure=secure, httponly=True, samesite="lax")


def _check_cookie(name: str, value: str) -> None:
    for argument, given in (("name", name), ("value", value)):
        if not isinstance(given, str):
            raise wrong_type(argument, "a str", given)
    if not TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a cookie")
    if not _COOKIE_VALUE.fullmatch(value):
        raise ValueError(
            f"the value of the cookie {name} contains white space, a quote, comma, semicolon, backslash, control or "
            "non-ASCII character: encode it, for example with urllib.parse.quote"
        )
    if len(name) + len(value) > _MAX_COOKIE:
        raise ValueError(f"the cookie {name[:100]} is longer than {_MAX_COOKIE} bytes, and browsers would ignore it")


def _attribute(argument: str, given: str, form: re.Pattern[str], must: str) -> str:
    if not isinstance(given, str):
        raise wrong_type(argument, "a str", given)
    if not form.fullmatch(given) or len(given) > _MAX_ATTRIBUTE:
        raise ValueError(f"the {argument} of a cookie must {must}: {given[:_MAX_ATTRIBUTE]!r}")
    return given


def _check_promises(name: str, path: str, domain: str | None, secure: bool, samesite: str | None) -> None:
    """Refuse cookies that browsers ignore, because they lack what their name or `samesite` promises."""
    if samesite is not None and samesite.lower() == "none" and not secure:
        raise ValueError("browsers ignore a cookie with samesite='none' that is not secure")
    if name.lower().startswith(("__secure-", "__host-")) and not secure:
        raise ValueError(f"browsers ignore a cookie with the name {name} that is not secure")
    if name.lower().startswith("__host-") and (path != "/" or domain is not None):
        raise ValueError(f"browsers ignore a cookie with the name {name} that has a domain, or a path other than /")
