"""The wheel and the source distribution contain everything that belongs there, and nothing else."""

import re
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from published import PYTHONS, ROOT, VERSION, WheelFor

# The first test to run waits for cargo.
pytestmark = pytest.mark.timeout(900)

LICENSES = ["LICENSE", "THIRD-PARTY-LICENSES.txt"]


@pytest.fixture
def wheel(wheel_for: WheelFor) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel_for(PYTHONS[0])) as archive:
        yield archive


def files_below(*directories: str) -> set[str]:
    """Return the files that belong to the repository: not those that Python and the compiler put beside them."""
    paths = (path for directory in directories for path in (ROOT / directory).rglob("*"))
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".so", ".dylib"}
    }


def test_a_wheel_has_the_package_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    (native,) = (name for name in installed if re.fullmatch(r"hubbub/_core\..*\.so", name))
    assert installed - {native} == {path.removeprefix("python/") for path in files_below("python")}
    assert {
        "hubbub/py.typed",
        "hubbub/_core.pyi",
        "hubbub/client/hubbub.js",
        "hubbub/demo/page/index.html",
    } <= installed


def test_a_wheel_brings_its_licenses(wheel: zipfile.ZipFile) -> None:
    information = f"hubbub-{VERSION}.dist-info"
    said = metadata(wheel.read(f"{information}/METADATA"))
    assert said.get_all("License-File") == LICENSES
    assert said["License-Expression"] == "MIT"
    for name in LICENSES:
        assert wheel.read(f"{information}/licenses/{name}") == (ROOT / name).read_bytes()


def test_the_source_distribution_has_what_building_needs_and_nothing_else(sdist: Path) -> None:
    root = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {member.name.removeprefix(f"{root}/") for member in archive.getmembers() if member.isfile()}
    beside = {"Cargo.lock", "Cargo.toml", "PKG-INFO", "README.md", "pyproject.toml", *LICENSES}
    assert packed == files_below("crates", "python") | beside


def test_the_version_stands_in_one_place_and_the_changelog_begins_with_it(sdist: Path) -> None:
    assert sdist.name == f"hubbub-{VERSION}.tar.gz"
    first = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert first[1] == VERSION


def metadata(content: bytes) -> Message:
    return Parser().parsestr(content.decode())
