"""What a provider may leave behind on this host: names below its root, processes, cgroups."""

import os
from pathlib import Path


def names_below(root: Path) -> list[str]:
    """Return what lies directly below a root, empty parts of the root's own left out."""
    if not root.exists():
        return []
    return sorted(path.name for path in root.iterdir())


def processes_below(root: Path) -> list[str]:
    """Return the processes that were given a path below `root`, as variable or as word."""
    found = []
    mark = f"{root}/".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        folder = Path("/proc", pid)
        try:
            words = (folder / "cmdline").read_bytes()
            if mark in words or mark in (folder / "environ").read_bytes():
                found.append(f"{pid} {words[:200]!r}")
        except OSError:
            continue
    return found
