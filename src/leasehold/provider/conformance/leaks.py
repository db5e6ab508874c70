"""What a provider may leave behind on this host: names below its root, processes, cgroups."""

import os
from pathlib import Path


def names_below(root: Path) -> list[str]:
    """Return what lies directly below a root, empty parts of the root's own left out."""
    if not root.exists():
        return []
    return sorted(path.name for path in root.iterdir())


def processes_below(root: Path) -> list[str]:
    """Return the processes that were given a path below `root`: as variable, word or mount."""
    found = []
    mark = f"{root}/".encode()
    ours = _mounts("self")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        folder = Path("/proc", pid)
        try:
            words = (folder / "cmdline").read_bytes()
            own = mark in words or mark in (folder / "environ").read_bytes()
            # Every process of a mount namespace has the same mounts; ours are not looked at.
            if own or (_mounts(pid) != ours and mark in (folder / "mountinfo").read_bytes()):
                found.append(f"{pid} {words[:200]!r}")
        except OSError:
            continue
    return found


def _mounts(pid: str) -> str:
    return str(Path("/proc", pid, "ns/mnt").readlink())
