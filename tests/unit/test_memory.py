"""The value of `max_memory="auto"`: from the machine's memory, or the limits of a container's cgroups."""

import os
from pathlib import Path

import pytest

from hubbub.memory import memory_for_worker, usable_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
NO_LIMIT_OF_VERSION_1 = "9223372036854771712"


def system(root: Path, cgroups: str, limits: dict[str, str]) -> Path:
    """Create a `proc` and a `sys` with these contents."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroups)
    for path, limit in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit + "\n")
    return root


@pytest.mark.parametrize(
    ("cgroups", "limits", "usable"),
    [
        ("0::/\n", {}, MACHINE),
        ("0::/a/b\n", {"memory.max": "max", "a/memory.max": "max", "a/b/memory.max": "5000000"}, 5_000_000),
        # The limit of a cgroup applies to all processes in it together.
        ("0::/a/b\n", {"a/memory.max": "4000000", "a/b/memory.max": "5000000"}, 4_000_000),
        # In a container the root of the mount is the container's cgroup, and the path may be that of the host.
        ("0::/../../docker/abc\n", {"memory.max": "6000000"}, 6_000_000),
        ("4:memory:/a\n1:cpu:/\n", {"memory/a/memory.limit_in_bytes": "7000000"}, 7_000_000),
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": NO_LIMIT_OF_VERSION_1}, MACHINE),
        ("0::/a\n", {"a/memory.max": str(10 * MACHINE)}, MACHINE),
        ("0::/a\n", {"a/memory.max": "nonsense"}, MACHINE),
    ],
)
def test_the_lowest_limit_counts(tmp_path: Path, cgroups: str, limits: dict[str, str], usable: int) -> None:
    assert usable_memory(system(tmp_path, cgroups, limits)) == usable


def test_without_cgroups_it_is_the_machine(tmp_path: Path) -> None:
    assert usable_memory(tmp_path) == MACHINE


def test_the_workers_share_half_of_it() -> None:
    assert memory_for_worker(1) == usable_memory() // 2
    assert memory_for_worker(4) == usable_memory() // 8
    assert memory_for_worker(10**9) == 8 * 1024 * 1024
