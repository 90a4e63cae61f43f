"""The messages to systemd, received on a socket of the test."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub import systemd


@pytest.fixture
def notified() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(10)
        yield notified


@pytest.fixture
def at_path(notified: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """The socket at a path that `NOTIFY_SOCKET` names."""
    path = str(tmp_path / "notify")
    notified.bind(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    return notified


def test_a_path_is_told(at_path: socket.socket) -> None:
    systemd.notify("READY=1", "STATUS=fine")
    assert at_path.recv(1000) == b"READY=1\nSTATUS=fine"


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: the abstract namespace is Linux's")
def test_an_abstract_name_is_told(notified: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    # With an empty name, the kernel chooses a free one.
    notified.bind("")
    name = notified.getsockname()
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:].decode())
    systemd.notify("STOPPING=1")
    assert notified.recv(1000) == b"STOPPING=1"


def test_a_reload_is_told_with_its_time(at_path: socket.socket) -> None:
    before = time.monotonic()
    systemd.reloading()
    reloading, when = at_path.recv(1000).decode().split("\n")
    assert reloading == "RELOADING=1"
    name, _, microseconds = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before - 1e-3 <= int(microseconds) / 1e6 <= time.monotonic()


@pytest.mark.parametrize("path", [None, "", "relative", "/nobody/there", "@hubbub-nobody-there", "/" + "x" * 500])
def test_nobody_there_is_no_failure(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if path is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
    systemd.notify("READY=1")


def test_one_that_takes_nothing_holds_nobody_up(at_path: socket.socket) -> None:
    for _ in range(2000):
        systemd.notify("READY=1")
    assert at_path.recv(1000) == b"READY=1"
