"""The answers that handlers return to requests."""

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self
from unicodedata import category
from urllib.parse import quote

from .errors import short_number, wrong_type
from .events import Data, check_close
from .headers import TOKEN, Headers, cookie, expired_cookie, pairs_of

__all__ = ["Accept", "Refuse", "Response"]

TYPE_OF_TEXT = "text/html; charset=utf-8"
TYPE_OF_BYTES = "application/octet-stream"
"""The content types of bodies whose type is not given."""

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
    """The body as it is sent; if it is streamed, the async iterable of its parts."""
    status: int
    """The status code."""
    headers: Mapping[str, str] = field(repr=False)
    """The headers, including Content-Type but not those that the server writes itself. Read-only; the values of a name
    that is repeated are joined by `, `."""
    content_type: str | None
    """The media type, `None` for an empty body without one."""

    def __init__(
        self,
        body: Data | AsyncIterable[Data] = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = {},
        content_type: str | None = None,
    ) -> None:
        """Create a response.

        Args:
            body: `str` is sent as UTF-8. An async iterable of `str` or bytes-like parts, such as an async generator, is
                streamed: each part is sent as soon as it is made, and the next one is made once the client has taken
                enough. If the client leaves, the generator is closed (its `finally` runs).
            status: 200 to 599; 204 and 304 have no body (RFC 9110 §6.4.1).
            headers: Further headers, as a mapping or, for names that are repeated, as pairs. The server itself writes
                Connection, Content-Length and Transfer-Encoding.
            content_type: `None` means `text/html; charset=utf-8` for `str`, `application/octet-stream` for
                bytes and streams, and no Content-Type for an empty body. It may be given in `headers` instead.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: `status` is out of range; it allows no body but `body` is not empty; a header is malformed
                (contains a control character, for example) or reserved; or there are two different content types.
        """
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type("status", "an int", status)
        if not 200 <= status <= 599:
            raise ValueError(f"status {short_number(status)} is out of range; allowed are 200 to 599")
        if not isinstance(content_type, (str, type(None))):
            raise wrong_type("content_type", "a str or None", content_type)
        payload = _body_bytes(body)
        if payload and status in (204, 304):
            raise ValueError(f"a response with status {status} cannot have a body")
        if headers.__class__ is dict and not headers:
            named = content_type or _default_content_type(body)
            self._store(payload, status, _NO_HEADERS if named is None else _only_type(named), named)
            return
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
        self._store(payload, status, checked, named)

    def _store(
        self, body: bytes | AsyncIterable[Data], status: int, headers: Headers, content_type: str | None
    ) -> None:
        # The class is frozen, so the constructor has to bypass its `__setattr__`.
        store = object.__setattr__
        store(self, "body", body)
        store(self, "status", int(status))
        store(self, "headers", headers)
        store(self, "content_type", content_type)

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
            ValueError: `url` contains a control character or a lone surrogate, `status` is none of these, or a header
                is malformed, reserved, or Location.
        """
        if not isinstance(url, str):
            raise wrong_type("url", "a str", url)
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type("status", "an int", status)
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"status {short_number(status)} is not a redirect; allowed are 301, 302, 303, 307 and 308")
        if any(category(character) == "Cc" for character in url):
            raise ValueError(f"the URL contains a control character: {url!r}")
        if any("\ud800" <= character <= "\udfff" for character in url):
            raise ValueError(f"the URL contains a lone surrogate, which UTF-8 cannot express: {url!r}")
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


_NO_HEADERS = Headers(())


# Most answers have no other header, and checking and copying take time.
@lru_cache(maxsize=64)
def _only_type(content_type: str) -> Headers:
    return Headers((("Content-Type", content_type),))


# RFC 3986 §2.2, and the percent sign of parts already encoded; `quote` itself adds §2.3.
_URL_CHARACTERS = "%:/?#[]@!$&'()*+,;="


def _body_bytes(body: Data | AsyncIterable[Data]) -> bytes | AsyncIterable[Data]:
    if isinstance(body, str):
        return body.encode()
    if body.__class__ is bytes or isinstance(body, AsyncIterable):
        return body
    try:
        return bytes(memoryview(body))
    except TypeError:
        raise wrong_type("body", "str or bytes-like (for JSON there is Response.json)", body) from None


def _default_content_type(body: Data | AsyncIterable[Data]) -> str | None:
    if not body:
        return None
    return TYPE_OF_TEXT if isinstance(body, str) else TYPE_OF_BYTES


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
        if not isinstance(subprotocol, (str, type(None))):
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
