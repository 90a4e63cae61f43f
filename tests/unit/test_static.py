"""Static files: which paths lead to a file, which headers describe it, and which part of it is sent."""

import dataclasses
import errno
import gc
import os
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Page, Request, Response, StaticFiles
from hubbub.static import FileResponse

CONTENT = b"0123456789"
MODIFIED = 1_000_000_000
MODIFIED_DATE = formatdate(MODIFIED, usegmt=True)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with files, and a file next to it that must not be served."""
    site = tmp_path / "site"
    (site / "folder").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / ".git").mkdir()
    for name in ("digits.txt", "folder/index.html", "folder/page.html", ".env", ".git/config", "a b é.txt", "100%.txt"):
        (site / name).write_bytes(CONTENT)
    os.utime(site / "digits.txt", (MODIFIED, MODIFIED))
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return site


def ask(site: Path, path: str, *headers: tuple[str, str], method: str = "GET", query: str = "") -> Response:
    return StaticFiles(site)(None, Request(method, path, query, list(headers), ("192.0.2.7", 4711), "http"))


def body(response: Response) -> bytes:
    """Return what the server would send."""
    if isinstance(response, FileResponse):
        return os.pread(response.descriptor, response.length, response.offset)
    return response.body


# Creating one.


def test_a_directory_that_is_none_is_refused(site: Path) -> None:
    for path in (site / "missing", site / "digits.txt"):
        with pytest.raises(NotADirectoryError, match=path.name):
            StaticFiles(path)
    assert StaticFiles(str(site))


@pytest.mark.parametrize("index", ["", ".", "..", ".hidden", "a/b", "/index.html", "..\\index.html"])
def test_an_index_that_is_no_plain_name_is_refused(site: Path, index: str) -> None:
    with pytest.raises(ValueError, match="index"):
        StaticFiles(site, index)


def test_the_directory_may_be_replaced(site: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(site)
    files = StaticFiles(tmp_path / "current")
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "new.txt").write_bytes(b"new")
    (tmp_path / "link").symlink_to(tmp_path / "next")
    (tmp_path / "link").rename(tmp_path / "current")
    assert body(files(None, Request("GET", "/new.txt", "", [], ("192.0.2.7", 4711), "http"))) == b"new"


# Paths.


@pytest.mark.parametrize("path", ["/digits.txt", "/folder/page.html", "/folder/", "/a%20b%20%C3%A9.txt", "/100%25.txt"])
def test_files_are_found(site: Path, path: str) -> None:
    response = ask(site, path)
    assert (response.status, body(response)) == (200, CONTENT)


def test_the_index_may_have_another_name(site: Path) -> None:
    files = StaticFiles(site, index="digits.txt")
    assert (
        files(None, Request("GET", "/", "", [], ("192.0.2.7", 4711), "http")).content_type
        == "text/plain; charset=utf-8"
    )


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/folder", "", "/folder/"),
        ("/folder", "a=b&c", "/folder/?a=b&c"),
        ("/empty", "", "/empty/"),
    ],
)
def test_a_directory_without_its_slash_is_a_redirect(site: Path, path: str, query: str, location: str) -> None:
    response = ask(site, path, query=query)
    assert (response.status, response.headers["Location"]) == (301, location)


def test_a_redirect_stays_on_this_site(site: Path) -> None:
    (site / "a b%").mkdir()
    assert ask(site, "/a%20b%25").headers["Location"] == "/a%20b%25/"
    for path in ("//folder", "/%2Ffolder", "/\\folder", "/%5cfolder", "//example.com/folder"):
        assert ask(site, path).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/missing",
        "/",
        "/empty/",
        "/digits.txt/",
        "/digits.txt/more",
        "/.env",
        "/.git/config",
        "/folder/.",
        "/./digits.txt",
        "//digits.txt",
        "/folder//page.html",
        "/folder/../digits.txt",
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/folder/..%2f..%2f..%2fsecret.txt",
        "/..\\secret.txt",
        "/..%5csecret.txt",
        "/folder\\page.html",
        "/..%c0%afsecret.txt",
        "/digits.txt%00",
        "/%00",
        "/digits.txt%00.html",
        "/..",
        "/../",
        "*",
        "digits.txt",
        "",
        "/" + "a" * 5000,
        "/" + "a/" * 3000,
    ],
)
def test_other_paths_are_404(site: Path, path: str) -> None:
    assert ask(site, path).status == 404


def test_absolute_paths_are_404(site: Path) -> None:
    secret = str(site.parent / "secret.txt")
    for path in (f"/{secret}", "/" + quote(secret, safe=""), f"/folder/{secret}"):
        assert ask(site, path).status == 404


@given(st.lists(st.sampled_from(["..", ".", "/", "\\", "%2e", "%2f", "%5c", "secret.txt", "folder", "site", "%00"])))
def test_no_path_leads_outside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    outside = tmp_path_factory.getbasetemp() / "outside"
    (outside / "site" / "folder").mkdir(parents=True, exist_ok=True)
    (outside / "secret.txt").write_bytes(b"secret")
    assert body(ask(outside / "site", "/" + "".join(parts))) != b"secret"


def test_symbolic_links_are_followed_within_the_directory(site: Path) -> None:
    (site / "link.txt").symlink_to("folder/page.html")
    (site / "linked").symlink_to(site / "folder")
    for path in ("/link.txt", "/linked/page.html"):
        assert body(ask(site, path)) == CONTENT


def test_a_link_has_the_media_type_of_its_own_name(site: Path) -> None:
    (site / "current.js").symlink_to("digits.txt")
    assert ask(site, "/current.js").content_type == "text/javascript; charset=utf-8"


def test_symbolic_links_that_lead_outside_are_404(site: Path) -> None:
    (site / "link.txt").symlink_to("../secret.txt")
    (site / "linked").symlink_to("..")
    (site / "folder" / "top").symlink_to("/")
    (site / "around").symlink_to("around")
    # The path of this directory begins with that of the served one.
    (site.parent / "site-2").mkdir()
    (site.parent / "site-2" / "secret.txt").write_bytes(b"secret")
    (site / "beside").symlink_to("../site-2")
    for path in ("/link.txt", "/linked/secret.txt", "/folder/top/etc/passwd", "/around", "/beside/secret.txt"):
        assert ask(site, path).status == 404, path


def test_what_is_no_file_is_404_and_not_opened(site: Path) -> None:
    # Opening it for reading would wait for a writer.
    os.mkfifo(site / "pipe")
    assert ask(site, "/pipe").status == 404


def test_a_pipe_that_has_taken_a_files_place_is_404(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(site / "pipe")
    files, of_a_file = StaticFiles(site), os.stat(site / "digits.txt")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *_: of_a_file)
        response = files(None, Request("GET", "/pipe", "", [], ("192.0.2.7", 4711), "http"))
    assert response.status == 404


def test_what_may_not_be_read_is_403(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "as chmod would have it for all but root")

    monkeypatch.setattr(os, "open", refuse)
    assert ask(site, "/digits.txt").status == 403


def test_a_fault_of_the_system_is_not_hidden(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="too many"):
        ask(site, "/digits.txt")


def test_descriptors_are_closed_with_the_responses(site: Path) -> None:
    # What earlier tests have left behind is not to be collected in between.
    gc.collect()
    before = set(os.listdir("/dev/fd"))
    for headers in ([], [("Range", "bytes=1-2")], [("If-None-Match", "*")], [("Range", "bytes=99-")]):
        ask(site, "/digits.txt", *headers)
    gc.collect()
    assert set(os.listdir("/dev/fd")) == before


# The response as handlers have it.


@pytest.mark.parametrize(("headers", "expected"), [([], CONTENT), ([("Range", "bytes=2-4")], b"234")])
def test_the_body_is_what_is_sent(site: Path, headers: list[tuple[str, str]], expected: bytes) -> None:
    response = ask(site, "/digits.txt", *headers)
    assert isinstance(response, FileResponse)
    assert response.body == expected
    assert Response(response.body, response.status, {**response.headers, "X-More": "1"}).body == expected


@pytest.mark.filterwarnings("error")
def test_it_cannot_be_replaced(site: Path) -> None:
    before = set(os.listdir("/dev/fd"))
    with pytest.raises(TypeError):
        dataclasses.replace(ask(site, "/digits.txt"), status=201)
    gc.collect()
    assert set(os.listdir("/dev/fd")) == before


def test_headers_are_sent_with_each_file(site: Path) -> None:
    files = StaticFiles(site, headers={"Cache-Control": "max-age=60"})

    def of(path: str, *headers: tuple[str, str]) -> tuple[int, str | None]:
        response = files(None, Request("GET", path, "", list(headers), ("192.0.2.7", 4711), "http"))
        return response.status, response.headers.get("Cache-Control")

    assert of("/digits.txt") == (200, "max-age=60")
    assert of("/digits.txt", ("Range", "bytes=1-2")) == (206, "max-age=60")
    assert of("/digits.txt", ("If-None-Match", "*")) == (304, "max-age=60")
    assert of("/missing") == (404, None)


@pytest.mark.parametrize("header", [{"etag": "x"}, {"Content-Length": "1"}, {"X": "a\nb"}])
def test_a_header_that_is_not_to_be_sent_is_refused(site: Path, header: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(header))):
        StaticFiles(site, headers=header)


# The headers of a file.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_405(site: Path, method: str) -> None:
    response = ask(site, "/digits.txt", method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.js.map", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.ico", "image/x-icon"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.tar.gz", "application/gzip"),
        ("a.pdf", "application/pdf"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
    ],
)
def test_media_types(site: Path, name: str, content_type: str) -> None:
    (site / name).touch()
    response = ask(site, f"/{name}")
    assert response.content_type == content_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_file_has_validators(site: Path) -> None:
    response = ask(site, "/digits.txt")
    assert response.headers["Last-Modified"] == MODIFIED_DATE
    assert response.headers["Accept-Ranges"] == "bytes"
    tag = response.headers["ETag"]
    assert ask(site, "/digits.txt", method="HEAD").headers["ETag"] == tag
    (site / "digits.txt").write_bytes(CONTENT * 2)
    assert ask(site, "/digits.txt").headers["ETag"] != tag


def test_a_file_from_the_future_was_modified_now(site: Path) -> None:
    os.utime(site / "digits.txt", (2**40, 2**40))
    assert "Last-Modified" in ask(site, "/digits.txt").headers


# Conditions.

OWN_TAG = "the file's own"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": OWN_TAG}, 304),
        ({"If-None-Match": f"W/{OWN_TAG}"}, 304),
        ({"If-None-Match": f'"a,b", W/"c" ,{OWN_TAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"another"'}, 200),
        ({"If-None-Match": ""}, 200),
        ({"If-None-Match": '"*"'}, 200),
        ({"If-None-Match": "malformed"}, 200),
        ({"If-Modified-Since": MODIFIED_DATE}, 304),
        ({"If-Modified-Since": formatdate(MODIFIED + 1, usegmt=True)}, 304),
        ({"If-Modified-Since": formatdate(MODIFIED - 1, usegmt=True)}, 200),
        ({"If-Modified-Since": "Sunday, 09-Sep-01 01:46:40 GMT"}, 304),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Sun, 09 Sep 99999999999999999999 01:46:40 GMT"}, 200),
        ({"If-None-Match": '"another"', "If-Modified-Since": MODIFIED_DATE}, 200),
        ({"If-None-Match": OWN_TAG, "If-Modified-Since": formatdate(0, usegmt=True)}, 304),
    ],
)
def test_conditions(site: Path, headers: dict[str, str], status: int) -> None:
    tag = ask(site, "/digits.txt").headers["ETag"]
    pairs = [(name, value.replace(OWN_TAG, tag)) for name, value in headers.items()]
    for method in ("GET", "HEAD"):
        response = ask(site, "/digits.txt", *pairs, method=method)
        assert response.status == status
        assert (response.headers["ETag"], response.headers["Last-Modified"]) == (tag, MODIFIED_DATE)
        assert (response.content_type is None) == (status == 304)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": OWN_TAG}, 200),
        ({"If-Match": f'"another", {OWN_TAG}'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"another"'}, 412),
        ({"If-Match": f"W/{OWN_TAG}"}, 412),
        ({"If-Unmodified-Since": MODIFIED_DATE}, 200),
        ({"If-Unmodified-Since": formatdate(MODIFIED - 1, usegmt=True)}, 412),
        ({"If-Unmodified-Since": "yesterday"}, 200),
        ({"If-Match": OWN_TAG, "If-Unmodified-Since": formatdate(0, usegmt=True)}, 200),
        ({"If-Match": '"another"', "If-None-Match": "*"}, 412),
    ],
)
def test_who_wants_the_file_of_before_gets_no_other_one(site: Path, headers: dict[str, str], status: int) -> None:
    tag = ask(site, "/digits.txt").headers["ETag"]
    pairs = [(name, value.replace(OWN_TAG, tag)) for name, value in headers.items()]
    assert ask(site, "/digits.txt", *pairs).status == status


# Ranges.


@pytest.mark.parametrize(
    ("asked", "content_range", "content"),
    [
        ("bytes=0-0", "bytes 0-0/10", b"0"),
        ("bytes=2-5", "bytes 2-5/10", b"2345"),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=9-9", "bytes 9-9/10", b"9"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=-30", "bytes 0-9/10", CONTENT),
        ("bytes=5-99999999999999999999999", "bytes 5-9/10", b"56789"),
        ("Bytes=0-0", "bytes 0-0/10", b"0"),
    ],
)
def test_a_range(site: Path, asked: str, content_range: str, content: bytes) -> None:
    response = ask(site, "/digits.txt", ("Range", asked))
    assert (response.status, response.headers["Content-Range"], body(response)) == (206, content_range, content)
    assert response.headers["ETag"] == ask(site, "/digits.txt").headers["ETag"]


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"])
def test_a_range_behind_the_end_is_416(site: Path, asked: str) -> None:
    response = ask(site, "/digits.txt", ("Range", asked))
    assert (response.status, response.headers["Content-Range"]) == (416, "bytes */10")


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_has_no_ranges(site: Path, asked: str) -> None:
    (site / "empty.txt").touch()
    response = ask(site, "/empty.txt", ("Range", asked))
    assert (response.status, response.headers["Content-Range"]) == (416, "bytes */0")


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=5-2", "bytes=-", "bytes=", "bytes", "bytes=a-b", "bytes=1", "bytes=--1", "bytes=0x1-2", "bytes=+1-2",
        "bytes=1-2-3", "lines=1-2", "bytes=0-1,3-4", "bytes=0-0,", "bytes=\u0661-\u0662", "bytes=" + "1" * 5000 + "-",
    ],
)  # fmt: skip
def test_several_ranges_and_malformed_ones_are_answered_with_the_whole_file(site: Path, asked: str) -> None:
    response = ask(site, "/digits.txt", ("Range", asked))
    assert (response.status, body(response)) == (200, CONTENT)


def test_a_range_is_for_get_alone(site: Path) -> None:
    assert ask(site, "/digits.txt", ("Range", "bytes=0-0"), method="HEAD").status == 200


@pytest.mark.parametrize(
    ("known", "status"),
    [
        (OWN_TAG, 206),
        (f"W/{OWN_TAG}", 200),
        ('"another"', 200),
        (MODIFIED_DATE, 206),
        (formatdate(MODIFIED + 1, usegmt=True), 200),
        ("malformed", 200),
    ],
)
def test_a_range_may_depend_on_what_the_client_has(site: Path, known: str, status: int) -> None:
    tag = ask(site, "/digits.txt").headers["ETag"]
    headers = ("Range", "bytes=0-0"), ("If-Range", known.replace(OWN_TAG, tag))
    assert ask(site, "/digits.txt", *headers).status == status


def test_a_condition_comes_before_the_range(site: Path) -> None:
    assert ask(site, "/digits.txt", ("Range", "bytes=0-0"), ("If-None-Match", "*")).status == 304


# Pages.


def test_a_page_is_a_file_that_exists(site: Path) -> None:
    for path in (site / "missing.html", site):
        with pytest.raises(FileNotFoundError, match="the file of Page is not a file"):
            Page(path)


@pytest.mark.parametrize("path", [None, b"page.html", 1])
def test_the_arguments_of_a_page(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be"):
        Page(path)
    with pytest.raises(TypeError, match="client must be a bool"):
        Page(__file__, 1)  # type: ignore[arg-type]


def test_a_page_may_be_behind_a_link(site: Path) -> None:
    link = site.parent / "link.html"
    link.symlink_to(site / "folder/page.html")
    answer = Page(link)(None, Request("GET", "/", "", [], ("192.0.2.7", 4711), "http"))
    assert answer
    assert answer.body == CONTENT
