"""
A host under constant load for a while: does anything grow?

    python bench/soak.py [--seconds 1200] [--rate 20] [--stack production|embedded]

Runs of one quick command are submitted at a constant rate, while a few commands run all the
time. Every ten seconds: the memory (unique set) and the descriptors of agent and workers, the
milliseconds of the two statements that every clock and every worker asks, and how long the
last runs took from submit to end. Printed are the means of the first and of the last fifth,
after a warm-up; nothing is judged, since a trend needs eyes.
"""

import argparse
import json
from collections import deque
from contextlib import suppress
from pathlib import Path
from statistics import mean, median
from time import monotonic, perf_counter, sleep
from typing import Any, Final

import meter
import stacks
from leasehold.domain.specs import RunSpec, parse
from leasehold.store import history, invariants, pulse, runs

ENVIRONMENT: Final = "soak"
EVERY_S: Final = 10.0
WARM_S: Final = 30.0
_SECOND_US: Final = 1_000_000


def descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def asked_ms(stack: stacks.Stack) -> float:
    """Return what one pulse and one look for due rows take, the median of nine."""
    spent = []
    for _ in range(9):
        began = perf_counter()
        with stack.app.database.read() as tx:
            pulse.read(tx, grace_us=60 * _SECOND_US)
        with stack.app.database.write("soak.due") as tx:
            runs.due(tx, limit=1)
        spent.append((perf_counter() - began) * 1000)
    return median(spent)


def sample(stack: stacks.Stack, at: float) -> dict[str, float]:
    assert stack.agent is not None
    found: dict[str, float] = {"at_s": round(at, 1)}
    groups = {
        "agent": [stack.agent.pid],
        "steps": stack.workers("steps"),
        "beats": stack.workers("beats"),
    }
    for name, pids in groups.items():
        found[f"{name}_mib"] = sum(meter.own_bytes(pid) for pid in pids) / 1024**2
        found[f"{name}_fds"] = sum(descriptors(pid) for pid in pids)
    found["statements_ms"] = asked_ms(stack)
    with stack.app.database.read() as tx:
        row = tx.one(
            "SELECT count(*) AS rows, AVG(finished_at - created_at) AS took FROM runs"
            " WHERE finished_at > {now} - :window",
            window=int(EVERY_S * _SECOND_US),
        )
    assert row is not None
    found["ended_per_s"] = row["rows"] / EVERY_S
    found["run_ms"] = float(row["took"] or 0) / 1000
    return found


def load(stack: stacks.Stack, *, seconds: float, rate: float) -> list[dict[str, float]]:
    quick = parse(RunSpec, {"commands": [{"argv": ["true"]}]})
    long = parse(RunSpec, {"commands": [{"argv": ["sleep", str(seconds + 60)]}], "grace_s": 1})
    for _ in range(10):
        stack.submit(ENVIRONMENT, long)
    began = monotonic()
    due, look_at = began, began + WARM_S
    samples: list[dict[str, float]] = []
    while (now := monotonic()) < began + seconds:
        if now >= due:
            stack.submit(ENVIRONMENT, quick)
            due += 1 / rate
        if now >= look_at:
            samples.append(sample(stack, now - began))
            print(json.dumps({name: round(value, 2) for name, value in samples[-1].items()}))
            look_at += EVERY_S
        sleep(max(0.0, min(due, look_at) - monotonic()))
    return samples


def summary(samples: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the means of the first and the last fifth, and how they differ."""
    size = max(1, len(samples) // 5)
    first, last = samples[:size], deque(samples, maxlen=size)
    names = [name for name in samples[0] if name != "at_s"]
    found = {}
    for name in names:
        start, end = mean(s[name] for s in first), mean(s[name] for s in last)
        found[name] = {
            "start": round(start, 2),
            "end": round(end, 2),
            "percent": round(100 * (end - start) / start, 1) if start else 0.0,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Constant load: does anything grow?")
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--rate", type=float, default=20.0, help="runs a second")
    parser.add_argument("--stack", choices=("production", "embedded"), default="production")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": meter.machine(), "rate": options.rate}
    with (
        stacks.home() as home,
        stacks.services(options.stack, home) as services,
        stacks.stack(services, home, processes=1, threads=8) as stack,
    ):
        stack.environment(ENVIRONMENT, "local")
        result["services"] = services.name
        samples = load(stack, seconds=options.seconds, rate=options.rate)
        end_all(stack)
        stack.wait_released(timeout_s=300)
        with stack.app.database.read() as tx:
            result["broken"] = len(invariants.check(tx)) + len(history.verify(tx))
    result["samples"] = samples
    result["summary"] = summary(samples)
    path = stacks.write_result(f"soak-{options.stack}", result)
    print(json.dumps({**result["summary"], "broken": result["broken"]}, indent=2))
    print(f"written: {path.name}")


def end_all(stack: stacks.Stack) -> None:
    """Cancel what still runs."""
    from leasehold.domain.lifecycle import EndKind
    from leasehold.orchestrator import ending

    with stack.app.database.read() as tx:
        live = tx.all("SELECT id FROM runs WHERE finished_at IS NULL")
    for row in live:
        with stack.app.database.write("soak.end") as tx:
            ending.request_end(tx, stack.context, row["id"], EndKind.CANCEL)


if __name__ == "__main__":
    main()
