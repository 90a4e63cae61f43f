"""The server as seen by curl, which many scripts call."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outside_server import APP_DIR, PATIENCE, OutsideServer

# The application serves its own directory.
FILE = "outside_app.py"
CONTENT = (APP_DIR / FILE).read_bytes()
# curl adds this header by itself if it sends more than 1 MiB.
EXPECT = "Expect: 100-continue"


@pytest.fixture(scope="session")
def curl(installed: Callable[..., str]) -> str:
    """The path of curl."""
    return installed("curl")


class Curl:
    """curl, to be called with options and a path."""

    def __init__(self, program: str, server: OutsideServer) -> None:
        self._program = program
        self._server = server

    def __call__(self, *options: str, path: str = "/") -> bytes:
        """Run it, and return its output. It must succeed."""
        command = [self._program, "--silent", "--show-error", "--noproxy", "*", *options, self.url(path)]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    def json(self, *options: str) -> Any:
        """The requests that the application received."""
        return json.loads(self(*options))

    def status(self, *options: str, path: str = "/") -> int:
        return int(self("--output", os.devnull, "--write-out", "%{http_code}", *options, path=path))

    def head(self, *options: str, path: str) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer to HEAD; names in lower case."""
        status_line, *lines = self("--head", *options, path=path).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status_line.split()[1]), headers

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.port}{path}"


@pytest.fixture
def ask(curl: str, server: OutsideServer) -> Curl:
    """curl, and a server for it."""
    return Curl(curl, server)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """A file to send, nearly as large as the server accepts."""
    path = tmp_path / "upload"
    path.write_bytes(os.urandom(1_000_000))
    return path


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
def test_any_method_and_version(ask: Curl, version: str, method: str) -> None:
    answer = ask.json(version, "--request", method)
    assert answer == [method, 0, hashlib.sha256(b"").hexdigest()]


@pytest.mark.parametrize(
    "options",
    [
        ["--http1.1"],
        ["--http1.0"],
        ["--http1.1", "--header", EXPECT],
        ["--http1.1", "--header", "Transfer-Encoding: chunked"],
        ["--http1.1", "--header", "Transfer-Encoding: chunked", "--header", EXPECT],
    ],
    ids=" ".join,
)
def test_a_file_is_uploaded(ask: Curl, upload: Path, options: list[str]) -> None:
    answer = ask.json(*options, "--data-binary", f"@{upload}")
    assert answer == ["POST", 1_000_000, hashlib.sha256(upload.read_bytes()).hexdigest()]


def test_a_100_is_sent_for_what_will_be_read(ask: Curl, upload: Path) -> None:
    answers = ask("--include", "--header", EXPECT, "--expect100-timeout", "20", "--data-binary", f"@{upload}")
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("header", [EXPECT, "Expect:", "Transfer-Encoding: chunked"])
def test_too_much_is_413(ask: Curl, upload: Path, header: str) -> None:
    upload.write_bytes(bytes((1 << 20) + 1))
    assert ask.status("--header", header, "--data-binary", f"@{upload}") == 413


def test_other_expectations_are_417(ask: Curl) -> None:
    assert ask.status("--header", "Expect: a-miracle", "--data", "x") == 417


def test_a_connection_is_used_again(ask: Curl) -> None:
    nowhere = "--output", os.devnull
    others = [*nowhere, ask.url("/"), *nowhere, ask.url("/missing.py"), *nowhere, ask.url(f"/{FILE}")]
    assert ask("--write-out", "%{num_connects}", *others, *nowhere) == b"1000"


def test_head_tells_of_a_file(ask: Curl) -> None:
    status, headers = ask.head(path=f"/{FILE}")
    assert (status, headers["content-length"]) == (200, str(len(CONTENT)))
    assert {"date", "etag", "last-modified", "accept-ranges", "content-type"} <= headers.keys()


def test_a_file_and_its_parts(ask: Curl) -> None:
    assert ask(path=f"/{FILE}") == CONTENT
    assert ask("--range", "10-19", path=f"/{FILE}") == CONTENT[10:20]
    assert ask("--range", "-10", path=f"/{FILE}") == CONTENT[-10:]
    assert ask("--range", "10-", path=f"/{FILE}") == CONTENT[10:]
    assert ask.status("--range", f"{len(CONTENT)}-", path=f"/{FILE}") == 416


def test_a_download_that_was_cut_off_is_continued(ask: Curl, tmp_path: Path) -> None:
    download = tmp_path / "download"
    download.write_bytes(CONTENT[:100])
    ask("--continue-at", "-", "--output", str(download), path=f"/{FILE}")
    assert download.read_bytes() == CONTENT


def test_a_file_is_not_loaded_twice(ask: Curl, tmp_path: Path) -> None:
    tag, copy = tmp_path / "tag", tmp_path / "copy"
    ask("--etag-save", str(tag), "--remote-time", "--output", str(copy), path=f"/{FILE}")
    assert ask.status("--etag-compare", str(tag), path=f"/{FILE}") == 304
    assert ask.status("--time-cond", str(copy), path=f"/{FILE}") == 304


@pytest.mark.parametrize("path", [f"/../outside/{FILE}", "/..%2foutside%2fconftest.py", "/../unit/test_static.py"])
def test_nothing_outside_the_directory(ask: Curl, path: str) -> None:
    assert ask.status("--path-as-is", path=path) == 404
