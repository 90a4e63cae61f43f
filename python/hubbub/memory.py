"""How much memory this process may use: the machine's memory, or the limit of its control groups (cgroups)."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["memory_for_worker", "usable_memory"]

# Even on a machine with very little memory, each worker may hold a few messages.
LEAST = 8 * 1024 * 1024


def memory_for_worker(workers: int) -> int:
    """Return the value of `max_memory="auto"` for this number of workers: each one's share of half of the memory."""
    return max(usable_memory() // 2 // workers, LEAST)


def usable_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may use: the machine's memory, or the lowest limit of its cgroups.

    Args:
        root: The directory that contains `proc` and `sys`.
    """
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits of the cgroups of this process, and of all cgroups above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _along(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _along(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _along(mount: Path, path: str, name: str) -> Iterator[int]:
    # In a container the path may be the host's, and only the mount's root exists: the container's own cgroup.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts) + 1):
        try:
            text = mount.joinpath(*parts[:count], name).read_text().strip()
        except OSError:
            continue
        # "max" means no limit; version 1 uses a number larger than any memory for that.
        if text.isdecimal():
            yield int(text)
