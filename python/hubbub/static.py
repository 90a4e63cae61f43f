"""Serve files over HTTP (RFC 9110 §8, §13, §14): those of a directory, or one page."""

import contextlib
import errno
import mimetypes
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote

from .client import client_path
from .errors import wrong_type
from .headers import Headers, pairs_of
from .requests import Request
from .responses import Response

__all__ = ["CLIENT_NAME", "FileResponse", "Page", "StaticFiles"]

CLIENT_NAME = "hubbub.js"
"""The name under which `Page` serves the browser client."""

# The types that web pages need, independent of the version of Python and of the machine's own list.
_FIXED_TYPES = {
    ".avif": "image/avif",
    ".css": "text/css",
    ".gz": "application/gzip",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
# A new instance knows the types built into Python, and none of the machine's.
_PYTHONS_TYPES = mimetypes.MimeTypes().types_map[True]

_METHODS = ("GET", "HEAD")
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
# One range: from one offset to another, or the last N bytes. A list of ranges, or a malformed header, does not match
# and is answered with the whole file. The number of digits is limited because `int` is slow with very many.
_RANGE = re.compile(r"bytes=(?:([0-9]{1,300})-([0-9]{0,300})|-([0-9]{1,300}))", re.IGNORECASE)
# No name contains a slash or NUL. Backslashes are refused because some software treats them as slashes.
_NAME = re.compile(r"[^./\\\0][^/\\\0]*")

# These errors mean that a path leads nowhere, or not to a file.
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}

# A browser must not run a text file as a script.
_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
# Without it, browsers guess for how long a file with a Last-Modified stays the same.
_REVALIDATED = {"Cache-Control": "no-cache"}
_OWN_HEADERS = {
    "accept-ranges",
    "content-range",
    "content-type",
    "etag",
    "last-modified",
    *(name.lower() for name in _NO_SNIFFING),
}


class FileResponse(Response):
    """A response whose body is a part of an open file. The file is closed with the last reference to the response."""

    __slots__ = ("descriptor", "length", "offset")

    descriptor: int
    offset: int
    length: int

    def __init__(
        self, descriptor: int, offset: int, length: int, status: int, headers: Iterable[tuple[str, str]]
    ) -> None:
        """Take ownership of `descriptor`; `length` bytes of its file are sent, starting at `offset`."""
        object.__setattr__(self, "descriptor", descriptor)
        object.__setattr__(self, "offset", offset)
        object.__setattr__(self, "length", length)
        # Bypass the constructor of `Response`, which would store a body.
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "headers", Headers(headers))
        object.__setattr__(self, "content_type", self.headers["Content-Type"])

    @property
    def body(self) -> bytes:
        """The body, read from the file on each access, and held entirely in memory, however long it is."""
        parts, offset, end = [], self.offset, self.offset + self.length
        # The file may have become shorter.
        while part := os.pread(self.descriptor, end - offset, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        # There is no descriptor if the constructor failed: `dataclasses.replace` passes the arguments of `Response`.
        with contextlib.suppress(AttributeError):
            os.close(self.descriptor)


class StaticFiles:
    """A `request` handler that answers with the files of a directory.

    ```python
    server.on("request", StaticFiles("public"))
    ```

    It answers GET and HEAD, including conditional requests (RFC 9110 §13) and requests for one range of bytes (§14). A
    path that ends in `/` is answered with the directory's `index`. Files outside the directory, including those reached
    through a symbolic link, and names that begin with a dot are treated as not existing. You can also call it from
    another handler: it returns the `Response`. If that response sends a file, its `body` reads the file, and it cannot
    be copied with `dataclasses.replace`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        index: str = "index.html",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = {},
    ) -> None:
        """Serve the files of `directory`.

        Args:
            directory: The directory; may be replaced while it is served, for example by switching a symbolic link.
            index: The name of the file to serve for a directory.
            headers: Further headers for each answer with a file, and for each 304: Cache-Control, for example. They are
                not added to other answers, such as 404. `StaticFiles` itself writes the headers that describe the file.

        Raises:
            NotADirectoryError: `directory` is not a directory, or does not exist.
            TypeError: `directory` is not a path, `index` is not a `str`, or `headers` is neither a mapping nor pairs of
                `str`.
            ValueError: `index` is not a plain file name; or a header is malformed, or is one that `StaticFiles` or the
                server writes itself.
        """
        if not isinstance(directory, str | os.PathLike):
            raise wrong_type("directory", "a str or os.PathLike", directory)
        if not isinstance(index, str):
            raise wrong_type("index", "a str", index)
        self._headers = Response(headers=headers).headers
        if own := next((name for name in self._headers if name.lower() in _OWN_HEADERS), None):
            raise ValueError(f"StaticFiles itself sets the header {own}")
        self._directory = os.path.abspath(os.fspath(directory))
        self._index = index
        if not os.path.isdir(self._directory):
            raise NotADirectoryError(f"the directory of StaticFiles is not a directory: {self._directory}")
        if not _NAME.fullmatch(index):
            raise ValueError(f"the index of StaticFiles is not a plain file name: {index!r}")

    def __call__(self, server: object, request: Request) -> Response:
        """Answer a request.

        Returns:
            200 with the file, or 206 with the requested part of it; 304, 412 or 416 depending on the request's
                conditions; 301 to a directory whose slash is missing; 403 for a file that may not be read, 404 for one
                that does not exist, and 405 for methods other than GET and HEAD.
        """
        return _answered(request, self._answer)

    def _answer(self, request: Request) -> Response:
        # Nothing precedes the first slash, except the `*` of OPTIONS.
        before, *names = request.path.split("/")
        is_directory = names[-1:] == [""]
        if is_directory:
            names[-1] = self._index
        if before or not names or not all(map(_NAME.fullmatch, names)):
            return _not_found()
        path = self._inside(names)
        if path is None:
            return _not_found()
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode) and not is_directory:
            query = f"?{request.query_string}" if request.query_string else ""
            return Response.redirect(f"{quote(request.path)}/{query}", status=301)
        # Opening a device or a pipe may have side effects, or block.
        if not stat.S_ISREG(status.st_mode):
            return _not_found()
        return _file_response(request, path, _media_type(names[-1]), self._headers)

    def _inside(self, names: list[str]) -> str | None:
        """Return the path that `names` lead to, with symbolic links resolved; `None` if it is outside the directory."""
        root = os.path.realpath(self._directory, strict=True)
        path = os.path.realpath(os.path.join(root, *names), strict=True)
        return path if path.startswith(os.path.join(root, "")) else None


class Page:
    """A `request` handler that serves one file at the path of its endpoint and, beside it, `hubbub.js`.

    ```python
    home = Endpoint("/")
    home.on("request", Page("index.html"))
    server.include(home)
    ```

    Beside it means: in the same directory of the URL. A page at `/` imports `/hubbub.js`, one at `/chat/` imports
    `/chat/hubbub.js`, and both may write `./hubbub.js`. An endpoint of your own at that path takes precedence. As the
    server's own `request` handler, it serves the page at `/`, and `/hubbub.js`; other paths are 404.

    GET, HEAD, conditional requests and ranges are answered as by `StaticFiles`. The file is opened for each request, so
    a change takes effect at once, and `Cache-Control: no-cache` tells browsers to ask each time whether it has changed.
    """

    def __init__(self, path: str | os.PathLike[str], client: bool = True) -> None:
        """Serve the file at `path`.

        Args:
            path: The file; it may be replaced while it is served. While it does not exist, the answer is 404.
            client: Whether to serve `hubbub.js` beside it.

        Raises:
            FileNotFoundError: `path` is not a file, or does not exist.
            TypeError: `path` is not a path, or `client` is not a `bool`.
        """
        if not isinstance(path, str | os.PathLike):
            raise wrong_type("path", "a str or os.PathLike", path)
        if not isinstance(client, bool):
            raise wrong_type("client", "a bool", client)
        self._path = os.path.abspath(os.fspath(path))
        if not os.path.isfile(self._path):
            raise FileNotFoundError(f"the file of Page is not a file: {self._path}")
        self.client = client

    def __call__(self, server: object, request: Request) -> Response | None:
        """Answer a request; see `StaticFiles` for the statuses.

        Returns:
            The answer, or `None` (404) for another path, where this is the server's own handler.
        """
        if self.client and request.path.endswith(f"/{CLIENT_NAME}"):
            path, home = str(client_path()), f"/{CLIENT_NAME}"
        else:
            path, home = self._path, "/"
        # The server's own handler is called for all paths that no endpoint matches.
        if not request._parts.endpoint and request.path != home:
            return None
        return _answered(request, lambda request: _page_response(request, path))


def _page_response(request: Request, path: str) -> Response:
    path = os.path.realpath(path, strict=True)
    # Opening a device or a pipe may have side effects, or block.
    if not stat.S_ISREG(os.stat(path).st_mode):
        return _not_found()
    return _file_response(request, path, _media_type(path), _REVALIDATED)


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return Response(f"{reason}\n", status, {**_NO_SNIFFING, **(headers or {})}, "text/plain; charset=utf-8")


def _not_found() -> Response:
    # A response of its own each time: the caller may add cookies to it.
    return _refusal(404, "not found")


def _answered(request: Request, answer: Callable[[Request], Response]) -> Response:
    """Return an answer with a file, or the reason why there is none."""
    if request.method not in _METHODS:
        return _refusal(405, "only GET and HEAD are allowed", {"Allow": ", ".join(_METHODS)})
    try:
        return answer(request)
    except PermissionError:
        return _refusal(403, "this file may not be read")
    except OSError as error:
        if error.errno in _NOT_THERE:
            return _not_found()
        raise


def _file_response(request: Request, path: str, media_type: str, further: Mapping[str, str]) -> Response:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    headers = (*_headers(media_type, status).items(), *pairs_of(further))
    file = FileResponse(descriptor, 0, status.st_size, 200, headers)
    if not stat.S_ISREG(status.st_mode):
        return _not_found()
    if _is_another(request, file):
        return _refusal(412, "the file has changed")
    if _is_unchanged(request, file):
        names = ("ETag", "Last-Modified", *_NO_SNIFFING, *further)
        kept = [(name, value) for name, value in headers if name in names]
        return Response(status=304, headers=kept)
    return _part(request, file)


def _headers(media_type: str, status: os.stat_result) -> dict[str, str]:
    return {
        "Content-Type": media_type,
        "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
        # Last-Modified must not be in the future (RFC 9110 §8.8.2.1).
        "Last-Modified": formatdate(int(min(status.st_mtime, time.time())), usegmt=True),
        "Accept-Ranges": "bytes",
        **_NO_SNIFFING,
    }


def _media_type(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    media_type = _FIXED_TYPES.get(suffix) or _PYTHONS_TYPES.get(suffix) or "application/octet-stream"
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def _is_another(request: Request, file: FileResponse) -> bool:
    """Return whether the client requires another version of the file than this one (RFC 9110 §13.1.1, §13.1.4)."""
    tags = request.headers.get("if-match")
    if tags is not None:
        # A strong comparison: a weak tag never matches, as ours are all strong.
        return tags.strip() != "*" and file.headers["ETag"] not in _ENTITY_TAG.findall(tags)
    since = _seconds(request.headers.get("if-unmodified-since", ""))
    modified = _seconds(file.headers["Last-Modified"])
    return since is not None and modified is not None and modified > since


def _is_unchanged(request: Request, file: FileResponse) -> bool:
    """Return whether the client already has this version (RFC 9110 §13.1.2, §13.1.3)."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        known = [tag.removeprefix("W/") for tag in _ENTITY_TAG.findall(tags)]
        return tags.strip() == "*" or file.headers["ETag"] in known
    since = _seconds(request.headers.get("if-modified-since", ""))
    modified = _seconds(file.headers["Last-Modified"])
    return since is not None and modified is not None and modified <= since


def _seconds(date: str) -> float | None:
    """Return the Unix time of an HTTP date; `None` if it is malformed."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _part(request: Request, file: FileResponse) -> Response:
    """Return the requested range (RFC 9110 §14.2), or the whole file."""
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if request.method != "GET" or not asked or not _is_same(request, file):
        return file
    size, (first, last, suffix) = file.length, asked.groups()
    if suffix:
        start, end = max(size - int(suffix), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return file
    if start >= end:
        return _refusal(416, "the range begins after the end of the file", {"Content-Range": f"bytes */{size}"})
    headers = (*pairs_of(file.headers), ("Content-Range", f"bytes {start}-{end - 1}/{size}"))
    return FileResponse(os.dup(file.descriptor), start, end - start, 206, headers)


def _is_same(request: Request, file: FileResponse) -> bool:
    """Return whether the parts that the client already has are of this version of the file (RFC 9110 §13.1.5)."""
    known = request.headers.get("if-range")
    return known is None or known in (file.headers["ETag"], file.headers["Last-Modified"])
