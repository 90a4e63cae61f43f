"""The published files can be installed into an empty environment, without a compiler, on each installed Python."""

import html
import subprocess
import sys
import tarfile
from email.parser import Parser
from pathlib import Path

import pytest
from published import PYTHONS, VERSION, WheelFor

# The first test to run for each Python waits for cargo.
pytestmark = pytest.mark.timeout(900)

NEW_USER = Path(__file__).with_name("new_user.py")


@pytest.mark.parametrize("python", PYTHONS)
def test_a_wheel_runs_the_demo_in_an_empty_environment(python: str, wheel_for: WheelFor) -> None:
    done = subprocess.run(
        [python, NEW_USER, wheel_for(python)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "works in an empty environment" in done.stdout


def test_python_3_10_is_told_that_it_is_too_old(sdist: Path, tmp_path: Path) -> None:
    page = tmp_path / "hubbub" / "index.html"
    page.parent.mkdir()
    # A package index repeats the metadata of a distribution.
    page.write_text(
        f'<a href="{sdist.as_uri()}" data-requires-python="{html.escape(required_python(sdist))}">{sdist.name}</a>'
    )
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path, "--index-url", tmp_path.as_uri())
    done = subprocess.run([*pip, "--python-version", "3.10", "hubbub"], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert f"require a different python version: {VERSION} Requires-Python >=3.11" in done.stderr


def required_python(sdist: Path) -> str:
    """Return the versions of Python that the source distribution says it supports."""
    with tarfile.open(sdist) as archive:
        content = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert content is not None
        return str(Parser().parsestr(content.read().decode())["Requires-Python"])
