"""The path of the control socket, and its owner."""

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.control import MAX_PATH, Control, open_control, path_for
from hubbub.errors import CannotServe

PORT = 9501

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give a directory away")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def directory(temporary: Path) -> Path:
    """The directory in which "auto" puts the socket; it does not exist yet."""
    return temporary / f"hubbub-{os.geteuid()}"


@contextlib.contextmanager
def opened(setting: str = "auto", port: int = PORT, *, is_temporary: bool = False) -> Iterator[Control]:
    """Hold a control socket, and leave it behind as a killed server does."""
    control = open_control(setting, port, is_temporary=is_temporary)
    assert control
    try:
        yield control
    finally:
        os.close(control.listener)
        os.close(control.lease)


def can_connect(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except ConnectionRefusedError:
            return False
        return True


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_off_is_none() -> None:
    assert open_control(None, PORT) is None


def test_a_client_finds_it_by_the_port(directory: Path) -> None:
    with opened() as control:
        assert path_for(PORT) == control.path == str(directory / "9501.sock")
        assert can_connect(control.path)


def test_only_its_user_can_reach_it(directory: Path) -> None:
    with opened() as control:
        assert mode(directory) == 0o700
        assert mode(control.path) == 0o600
        assert mode(control.path + ".lease") == 0o600


def test_a_directory_that_is_too_open_is_closed(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with opened():
        assert mode(directory) == 0o700


def test_a_path_of_ones_own(temporary: Path) -> None:
    path = temporary / "here.sock"
    with opened(str(path)) as control:
        assert control.path == str(path)
        assert can_connect(control.path)


def test_removing_leaves_the_lease() -> None:
    with opened() as control:
        control.remove()
        assert not os.path.exists(control.path)
        assert os.path.exists(control.path + ".lease")


def test_of_a_port_that_was_any_nothing_is_left(directory: Path) -> None:
    with opened(is_temporary=True) as control:
        control.remove()
    assert os.listdir(directory) == []


def test_the_socket_of_a_killed_server_is_replaced() -> None:
    with opened() as control:
        pass
    assert not can_connect(control.path)
    with opened() as control:
        assert can_connect(control.path)


def test_with_auto_the_socket_of_a_live_server_is_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    with opened() as control:
        assert open_control("auto", PORT) is None
        assert can_connect(control.path)
    assert control.path in caplog.text


def test_a_path_that_a_live_server_has_is_refused(temporary: Path) -> None:
    path = str(temporary / "here.sock")
    with opened(path), pytest.raises(CannotServe, match="belongs to another running server"):
        open_control(path, PORT)


def test_a_file_that_is_no_socket_is_not_replaced(temporary: Path) -> None:
    path = temporary / "precious"
    path.write_text("text")
    with pytest.raises(CannotServe, match="precious is not a socket"):
        open_control(str(path), PORT)
    assert path.read_text() == "text"
    # A second attempt succeeds, because the first one has released the lease.
    path.unlink()
    with opened(str(path)):
        pass


def test_a_path_whose_directory_is_missing_is_refused(temporary: Path) -> None:
    path = temporary / "missing" / "here.sock"
    with pytest.raises(CannotServe) as refusal:
        open_control(str(path), PORT)
    assert str(path) in str(refusal.value)
    assert "No such file" in str(refusal.value)


def test_a_path_that_is_too_long_is_refused(temporary: Path) -> None:
    path = str(temporary / ("x" * MAX_PATH))
    with pytest.raises(CannotServe, match=f"at most {MAX_PATH} bytes"):
        open_control(path, PORT)


def test_a_link_in_the_place_of_the_directory_is_not_used(
    temporary: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.symlink_to(temporary)
    assert open_control("auto", PORT) is None
    assert "is not a directory" in caplog.text
    with pytest.raises(ConnectionError, match="is not a directory"):
        path_for(PORT)


@needs_root
def test_a_directory_of_another_user_is_not_used(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    assert open_control("auto", PORT) is None
    assert "belongs to another user" in caplog.text
    with pytest.raises(ConnectionError, match="belongs to another user"):
        path_for(PORT)
