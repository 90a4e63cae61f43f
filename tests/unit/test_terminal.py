"""What can be known about a terminal; tests that need real ones are in tests/processes."""

import errno
import os

import pytest

from hubbub.terminal import Terminal


@pytest.mark.parametrize(
    ("before", "now", "is_closed"),
    [
        (None, None, False),
        (None, errno.ENXIO, True),
        (None, errno.EIO, True),
        (errno.ENXIO, errno.ENXIO, False),
        (errno.ENOENT, errno.ENOENT, False),
        # There is no free descriptor.
        (None, errno.EMFILE, False),
    ],
)
def test_it_is_closed_if_it_was_there_and_is_not(
    monkeypatch: pytest.MonkeyPatch, before: int | None, now: int | None, is_closed: bool
) -> None:
    original = os.open

    def answer(error: int | None) -> None:
        def open_terminal(path: str, flags: int) -> int:
            assert path == "/dev/tty"
            if error is not None:
                raise OSError(error, os.strerror(error))
            return original(os.devnull, flags)

        monkeypatch.setattr(os, "open", open_terminal)

    answer(before)
    terminal = Terminal()
    answer(now)
    assert terminal.is_closed() is is_closed
