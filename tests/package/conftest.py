"""Builds what is published, as a release does: the source distribution, and from it a wheel for each Python."""

import sys
import tarfile
import time
from pathlib import Path

import pytest
from published import ROOT, WheelFor, run


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, as `python -m build` makes it."""
    directory = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", directory, ROOT)
    (archive,) = directory.iterdir()
    return archive


@pytest.fixture(scope="session")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, outside this repository."""
    directory = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter=as_new)
    (source,) = directory.iterdir()
    return source


def as_new(member: tarfile.TarInfo, directory: str) -> tarfile.TarInfo:
    """Give a file the current time: from its time in the archive, cargo would conclude that it is compiled already."""
    return tarfile.data_filter(member, directory).replace(mtime=time.time(), deep=False)


@pytest.fixture(scope="session")
def wheel_for(source: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelFor:
    """`wheel_for(python)` is the wheel for that Python, built once, by `pip wheel`, from the source distribution."""
    made: dict[str, Path] = {}

    def wheel_for(python: str) -> Path:
        if python not in made:
            directory = tmp_path_factory.mktemp("wheel")
            run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", directory, source)
            (made[python],) = directory.iterdir()
        return made[python]

    return wheel_for
