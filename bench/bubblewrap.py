"""
What the bubblewrap provider adds to `bwrap` itself, and how many sandboxes stand at once.

Beside each other in one run: a plain `bwrap … true` by subprocess, and the provider's calls for
the same command, each p50 in milliseconds; then many sandboxes at once on one provider. Writes
JSON to stdout with `--json`.
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from statistics import median

from leasehold.provider import (
    Budget,
    Command,
    ExecutionState,
    LeaseRef,
    PollItem,
    ReleaseMode,
    Target,
)
from leasehold_bubblewrap import engine, mounts
from leasehold_bubblewrap.provider import BubblewrapProvider

TTL = timedelta(minutes=10)
PLAIN = [*engine.trial(), "--tmpfs", "/tmp", "--", "true"]


class Bench:
    def __init__(self, root: Path) -> None:
        self.provider = BubblewrapProvider(root=root, deployment="bench", host_id="bench")
        self.ended: dict[str, threading.Event] = {}
        self.provider.watch(lambda name: self.ended[name].set())

    def acquire(self, name: str, config: dict[str, object]) -> Target:
        lease = LeaseRef(id=name, number=1, deployment="bench")
        sandbox = self.provider.acquire(
            lease, config, known=None, ttl=TTL, fence=1, budget=Budget(60)
        )
        return Target(lease=lease, handle=sandbox.handle, config=config)

    def start(self, target: Target, name: str, *argv: str) -> None:
        self.ended[name] = threading.Event()
        self.provider.start(
            target, fence=1, execution_id=name, command=Command(argv=argv), budget=Budget(60)
        )

    def wait(self, target: Target, name: str) -> None:
        if not self.ended[name].wait(60):
            raise SystemExit(f"{name} has not ended")
        item = PollItem(target=target, execution_id=name, handle={})
        polled = self.provider.poll([item], limit_bytes=1000, budget=Budget(60))[0]
        if polled.state is not ExecutionState.EXITED:
            raise SystemExit(f"{name}: {polled}")

    def release(self, target: Target) -> None:
        self.provider.release(target, fence=1, mode=ReleaseMode.DESTROY, budget=Budget(60))


def timed(steps: dict[str, list[float]], name: str, began: float) -> float:
    now = time.perf_counter()
    steps.setdefault(name, []).append(1000 * (now - began))
    return now


def one_by_one(bench: Bench, rounds: int, config: dict[str, object]) -> dict[str, float]:
    steps: dict[str, list[float]] = {}
    for number in range(rounds):
        began = time.perf_counter()
        subprocess.run(["bwrap", *PLAIN], check=True)
        began = timed(steps, "plain bwrap", began)
        name = f"one-{number}-{len(config)}"
        target = bench.acquire(name, config)
        began = timed(steps, "acquire", began)
        first = began
        bench.start(target, name, "true")
        timed(steps, "start", began)
        bench.wait(target, name)
        began = timed(steps, "start to exit seen", first)
        bench.release(target)
        timed(steps, "release", began)
    return {name: round(median(values), 2) for name, values in steps.items()}


def at_once(bench: Bench, number: int) -> dict[str, float]:
    began = time.perf_counter()
    targets = {f"many-{index}": bench.acquire(f"many-{index}", {}) for index in range(number)}
    for name, target in targets.items():
        bench.start(
            target,
            name,
            "sh",
            "-c",
            f"echo up; until [ -e {mounts.WORK}/go ]; do sleep 1; done",
        )
    started = time.perf_counter()
    items = [PollItem(target=t, execution_id=name, handle={}) for name, t in targets.items()]
    while True:
        polled = bench.provider.poll(items, limit_bytes=100, budget=Budget(60))
        if all(one.stdout == b"up\n" for one in polled):
            break
        time.sleep(0.01)
    up = time.perf_counter()
    for target in targets.values():
        (Path(bench.provider._sandboxes.path(target.lease.id)) / "work/go").touch()  # noqa: SLF001
    for name, target in targets.items():
        bench.wait(target, name)
    over = time.perf_counter()
    for target in targets.values():
        bench.release(target)
    return {
        "sandboxes": number,
        "all started s": round(started - began, 2),
        "all up s": round(up - began, 2),
        "all ended s": round(over - up, 2),
        "all released s": round(time.perf_counter() - over, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder:
        bench = Bench(Path(folder) / "root")
        limits = bench.provider.describe().capabilities
        found: dict[str, dict[str, float]] = {
            "without limits (p50, ms)": one_by_one(bench, options.rounds, {})
        }
        if limits.memory == "enforced" and limits.pids == "enforced":
            config: dict[str, object] = {"memory_mb": 256, "pids": 64}
            found["with limits (p50, ms)"] = one_by_one(bench, options.rounds, config)
        found["at once"] = at_once(bench, options.many)
        bench.provider.close()
    if options.json:
        print(json.dumps(found))
        return
    for title, numbers in found.items():
        print(title)
        for name, value in numbers.items():
            print(f"  {name:20} {value:8}")


if __name__ == "__main__":
    main()
