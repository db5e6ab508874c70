"""What processes cost: CPU and memory of whole trees, read from /proc."""

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def parents() -> dict[int, int]:
    """Return pid → parent of every process there is."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (fields := _stat(int(entry))):
            found[int(entry)] = int(fields[1])
    return found


def tree(root: int, *, known: Mapping[int, int] | None = None) -> list[int]:
    """Return a process and all that descend from it."""
    above = parents() if known is None else known
    members, grew = {root}, True
    while grew:
        more = {pid for pid, parent in above.items() if parent in members} - members
        members |= more
        grew = bool(more)
    return sorted(members)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name; empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def is_running(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU that these processes and their reaped children have used, in seconds."""
    total = 0
    for pid in pids:
        fields = _stat(pid)
        total += sum(int(ticks) for ticks in fields[11:15])
    return total * TICK_S


def own_bytes(pid: int) -> int:
    """Return the memory that only this process holds (its unique set), in bytes."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    sizes = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
    kib = sum(int(sizes[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
    return kib * 1024


def shared_bytes(pid: int) -> int:
    """Return a process's fair part of memory (proportional set), in bytes."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next(line for line in text.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def machine() -> dict[str, object]:
    """Return what a figure must be read with."""
    return {
        "cores": os.cpu_count(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def fsync_ms(directory: Path, *, times: int = 100) -> float:
    """Return what one write of 8 KiB with fsync takes there, in milliseconds (median)."""
    path = directory / f"fsync-{os.getpid()}"
    spent = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(times):
            began = perf_counter()
            os.write(handle, b"x" * 8192)
            os.fdatasync(handle)
            spent.append(perf_counter() - began)
    finally:
        os.close(handle)
        path.unlink()
    return round(median(spent) * 1000, 2)
