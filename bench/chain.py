"""
What a durable run costs, beside a bare Celery chain of five steps on the same broker.

    python bench/chain.py [--runs 2000] [--stack production|embedded|both]

A run is ``true`` on the built-in `fake` provider: all five steps, a lease, a sandbox, an
execution, its history, the release. The runs lie in the queue, held back as if the provider
were unhealthy; then it is healthy, and the drain is measured. After that, 20 runs a second
for 20 seconds: how long from the submit until the command has started.

The fake's world is a directory in memory: it stands for a vendor's cloud, and its file system
is not what is measured. The database is on disk. CPU is that of whole process trees, from
/proc; SQLite has no process of its own, so what it costs stands with the workers.
"""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from statistics import quantiles
from time import monotonic, sleep, time_ns
from typing import Any, Final

import bare
import meter
import sample
import stacks
from leasehold.domain.specs import RunSpec, parse
from leasehold.embedded.broker import FAKEREDIS

SPEC: Final = parse(RunSpec, {"commands": [{"argv": ["true"]}]})
ENVIRONMENT: Final = "bench"
OVER: Final = "finished_at IS NOT NULL"
SHAPES: Final = {"production": (2, 4), "embedded": (1, 4)}
"""Worker processes and threads of each; other shapes were not compared."""


def drain(stack: stacks.Stack, runs: int) -> dict[str, Any]:
    """Submit everything, open the gate, and measure until the last run is over."""
    stack.gate("fake", is_open=False)
    before = stack.count(OVER)
    began = monotonic()
    for _ in range(runs):
        stack.submit(ENVIRONMENT, SPEC)
    submitting_s = monotonic() - began
    parts = _parts(stack)
    cpu = {name: meter.cpu_s(pids) for name, pids in parts.items()}
    transactions = _transactions(stack)
    opened_us = time_ns() // 1000
    stack.gate("fake", is_open=True)
    stack.wait_for(OVER, before + runs, timeout_s=600)
    stack.wait_released(timeout_s=60)
    cpu_ms = {
        name: round((meter.cpu_s(pids) - cpu[name]) / runs * 1e3, 2)
        for name, pids in _parts(stack).items()
    }
    with stack.app.database.read() as tx:
        ends = tx.one(
            "SELECT MIN(finished_at) AS first, MAX(finished_at) AS last FROM runs"
            " WHERE finished_at > :opened",
            opened=opened_us,
        )
    assert ends is not None
    result: dict[str, Any] = {
        "runs_per_s": round((runs - 1) / (ends["last"] - ends["first"]) * 1e6, 1),
        "runs_per_s_from_gate": round(runs / (ends["last"] - opened_us) * 1e6, 1),
        "submits_per_s": round(runs / submitting_s, 1),
        "cpu_ms": cpu_ms,
        "cpu_ms_all": round(sum(cpu_ms.values()), 2),
    }
    if transactions is not None:
        after = _transactions(stack)
        assert after is not None
        result["database_transactions"] = round((after - transactions) / runs, 2)
    if failed := stack.count(f"{OVER} AND status <> 'succeeded'"):
        raise SystemExit(f"bench: {failed} runs did not succeed")
    return result


def _parts(stack: stacks.Stack) -> dict[str, list[int]]:
    """Return the processes that are told apart; the agent's own are the clock's."""
    assert stack.agent is not None
    steps, beats = stack.workers("steps"), stack.workers("beats")
    parts = {
        "workers": [pid for root in steps for pid in meter.tree(root)],
        "beats": [pid for root in beats for pid in meter.tree(root)],
        "broker": [stack.services.broker_pid],
        "clock": [stack.agent.pid],
    }
    if stack.services.database_pid is not None:
        parts["database"] = meter.tree(stack.services.database_pid)
    return parts


def _transactions(stack: stacks.Stack) -> int | None:
    """Return how many transactions PostgreSQL has counted; its processes report at leisure."""
    if stack.services.database_pid is None:
        return None
    sleep(1.5)
    with stack.app.database.read() as tx:
        return int(
            tx.value(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
        )


def steady(stack: stacks.Stack, *, per_s: float, seconds: float) -> dict[str, Any]:
    """Submit at a steady rate, whatever comes of it; return latencies in milliseconds."""
    called: dict[str, int] = {}
    before = stack.count(OVER)
    began, total = monotonic(), int(per_s * seconds)
    for number in range(total):
        sleep(max(0.0, began + number / per_s - monotonic()))
        at = time_ns() // 1000
        called[stack.submit(ENVIRONMENT, SPEC)] = at
    stack.wait_for(OVER, before + total, timeout_s=60)
    with stack.app.database.read() as tx:
        rows = tx.all(
            "SELECT r.id, x.started_at, r.finished_at FROM runs r"
            " JOIN executions x ON x.run_id = r.id WHERE r.created_at >= :since",
            since=min(called.values()) - 1_000_000,
        )
    rows = [row for row in rows if row["id"] in called]
    return {
        "per_s": per_s,
        "runs": len(rows),
        "to_start_ms": _spread([row["started_at"] - called[row["id"]] for row in rows]),
        "to_end_ms": _spread([row["finished_at"] - called[row["id"]] for row in rows]),
    }


def _spread(spans_us: list[int]) -> dict[str, float]:
    cuts = quantiles(spans_us, n=100, method="inclusive")
    ms = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "max": float(max(spans_us))}
    return {name: round(span / 1e3, 2) for name, span in ms.items()}


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one stack and the bare chains on its broker."""
    default_processes, default_threads = SHAPES[kind]
    processes = options.processes or default_processes
    threads = options.threads or default_threads
    with (
        stacks.home() as home,
        stacks.memory() as world,
        stacks.services(kind, home, pure_python=options.pure_python) as services,
    ):
        print(
            f"\n{services.name}: {options.runs} runs, {processes} x {threads} threads",
            flush=True,
        )
        counted = sample.take(services.spare_url, home / "sample", SPEC)
        bares = [
            bare.measure(
                services.broker_url, services.broker_pid, workers=workers, chains=options.chains
            )
            for workers in (2, 1)
        ]
        with stacks.stack(
            services, home, processes=processes, threads=threads, world=world
        ) as stack:
            stack.environment(ENVIRONMENT, "fake")
            for _ in range(100):
                stack.submit(ENVIRONMENT, SPEC)
            stack.wait_for(OVER, 100, timeout_s=60)
            drained = drain(stack, options.runs)
            latency = steady(stack, per_s=options.rate, seconds=options.seconds)
        fsync = meter.fsync_ms(home)
    result = {
        "stack": services.name,
        "broker": services.broker_name,
        "pure_python_broker": services.broker_name == FAKEREDIS.name,
        "processes": processes,
        "threads": threads,
        "runs": options.runs,
        **drained,
        "statements": counted.statements,
        "transactions": counted.transactions,
        "transactions_by_name": counted.by_name,
        "steady": latency,
        "bare": [asdict(one) for one in bares],
        "ratio_two": round(drained["runs_per_s"] / bares[0].chains_per_s, 2),
        "ratio_one": round(drained["runs_per_s"] / bares[1].chains_per_s, 2),
        "fsync_ms": fsync,
    }
    show(result)
    return result


def show(result: dict[str, Any]) -> None:
    """Print one stack's figures, ours beside the bare chain's."""
    two, one = result["bare"]
    split = "  ".join(f"{name} {ms:g}" for name, ms in result["cpu_ms"].items())
    start = result["steady"]["to_start_ms"]
    lines = [
        ("leasehold", f"{result['runs_per_s']:8.1f} runs/s"),
        (
            "bare chain, 2 solo",
            f"{two['chains_per_s']:8.1f} chains/s   {result['ratio_two']:.2f} x",
        ),
        (
            "bare chain, 1 solo",
            f"{one['chains_per_s']:8.1f} chains/s   {result['ratio_one']:.2f} x",
        ),
        ("CPU ms per run", f"{result['cpu_ms_all']:8.2f}   {split}"),
        ("  a bare chain", f"{two['worker_cpu_ms'] + two['broker_cpu_ms']:8.2f}"),
        ("statements per run", f"{result['statements']:8.1f}"),
        ("transactions per run", f"{result['transactions']:8.1f}   {_counted(result)}"),
        (
            "submit to start",
            f"p50 {start['p50']} ms  p99 {start['p99']} ms  at {result['steady']['per_s']:g}/s",
        ),
        ("fsync of 8 KiB", f"{result['fsync_ms']:8.2f} ms"),
    ]
    for name, text in lines:
        print(f"  {name:22}{text}", flush=True)


def _counted(result: dict[str, Any]) -> str:
    counted = result.get("database_transactions")
    return "" if counted is None else f"(the server counted {counted} a run, clocks and all)"


def main() -> None:
    """Measure what was asked for; print it and write it to `bench/results/chain.json`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument(
        "--chains", type=int, help="of the bare chain; default: as many as runs"
    )
    parser.add_argument("--stack", choices=("production", "embedded", "both"), default="both")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--rate", type=float, default=20.0, help="of the steady part, per second"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of the steady part")
    parser.add_argument("--pure-python", action="store_true", help="the broker is fakeredis")
    options = parser.parse_args()
    options.chains = options.chains or options.runs
    os.environ["PYTHONWARNINGS"] = "ignore"
    kinds = ["production", "embedded"] if options.stack == "both" else [options.stack]
    machine = meter.machine()
    print(f"{machine['cores']} cores, load {machine['load_before']}")
    results = [measure(kind, options) for kind in kinds]
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    path = stacks.write_result("chain", {"machine": machine, "stacks": results})
    print(f"\nload after {machine['load_after']}; written to {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
