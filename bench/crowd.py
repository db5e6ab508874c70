"""Many sandboxes at once on one worker: how long, how much memory, and whether all is gone."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

import meter
from leasehold.provider import ExecutionState, Target
from leasehold.provider.conformance.leaks import names_below

if TYPE_CHECKING:
    from providers import Bench

_PATIENCE_S: Final = 30.0
_MIB: Final = 1024 * 1024


def at_once(bench: "Bench", number: int, *, threads: int) -> dict[str, Any]:
    """Acquire them all, run `sleep` in each, look, release; `left` should be empty."""
    mark = f"LEASEHOLD_BENCH={bench.deployment}"
    name, _, value = mark.partition("=")
    free = _free_mib()
    times = {}
    with ThreadPoolExecutor(threads) as pool:
        targets, times["acquire_s"] = _each(pool, bench.acquire, range(1, number + 1))
        names, times["start_s"] = _each(
            pool, lambda one: bench.start(one, "sleep", "600", env={name: value}), targets
        )
        _await_running(bench, list(zip(targets, names, strict=True)))
        pids = _family(mark.encode(), f"{bench.root}/".encode())
        memory = sum(map(meter.shared_bytes, pids)) / _MIB
        gained = free - _free_mib()
        _, times["release_s"] = _each(pool, bench.release, targets)
    left = _left(bench, mark.encode())
    result = {
        "provider": bench.key,
        "at_once": number,
        "threads": threads,
        **times,
        "processes": len(pids),
        "pss_mib": round(memory, 1),
        "pss_mib_each": round(memory / number, 2),
        "machine_mib": round(gained, 1),
        "left": left,
    }
    show(result)
    return result


def show(result: dict[str, Any]) -> None:
    n = result["at_once"]
    print(f"\n{result['provider']}: {n} sandboxes at once, each running sleep")
    for phase in ("acquire", "start", "release"):
        spent = result[f"{phase}_s"]
        print(f"  {phase + ' all':14}{spent:8.2f} s   {spent / n * 1e3:7.2f} ms each")
    print(f"  memory        {result['pss_mib']:8.1f} MiB {result['pss_mib_each']:7.2f} MiB each"
          f"   in {result['processes']} processes; the machine has {result['machine_mib']:.0f}"
          " MiB less")  # fmt: skip
    print(f"  left          {result['left'] or 'nothing'}")


def _each(
    pool: ThreadPoolExecutor, call: Callable[[Any], Any], items: Iterable[Any]
) -> tuple[list[Any], float]:
    began = perf_counter()
    done = list(pool.map(call, items))
    return done, round(perf_counter() - began, 3)


def _await_running(bench: "Bench", pairs: list[tuple[Target, str]]) -> None:
    until = perf_counter() + _PATIENCE_S
    while pairs:
        pairs = [one for one in pairs if bench.state(*one) is not ExecutionState.RUNNING]
        if pairs and perf_counter() > until:
            raise SystemExit(f"bench: {len(pairs)} of them do not run, as {pairs[0][1]}")


def _marked(*marks: bytes) -> list[int]:
    """Return the processes that were given one of the marks, as variable or as word."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                said = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except OSError:
                continue
            if any(mark in said for mark in marks):
                found.append(int(folder.name))
    return found


def _family(*marks: bytes) -> list[int]:
    """Return them and what stands between them and whoever is above us all."""
    parents = meter.parents()
    # Neither we nor what we came from is part of a sandbox, though it may know the directory.
    above: set[int] = {0, 1}
    me = Path("/proc/self").readlink().name
    pid = int(me)
    while pid not in above:
        above.add(pid)
        pid = parents.get(pid, 1)
    family: set[int] = set()
    for member in _marked(*marks):
        while member not in above and member not in family:
            family.add(member)
            member = parents.get(member, 1)  # noqa: PLW2901  climbing
    return sorted(family)


def _left(bench: "Bench", mark: bytes) -> list[str]:
    until = perf_counter() + _PATIENCE_S
    while True:
        left = [*bench.left(), *(f"process {pid}" for pid in _marked(mark))]
        if not left or perf_counter() > until:
            return [*left, *names_below(bench.root)]
        sleep(0.05)


def _free_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0
