"""
What a thousand waiting commands cost the worker that looks after them.

    python bench/waiting.py [--commands 1000] [--seconds 120]

Each command is a real ``sleep`` in a `local` sandbox; one steps process and one beat lane
carry them all. Measured over a window in which all of them wait: CPU of the worker, the beat
lane, the agent with its clock, database and broker; and how much memory each of ours has
gained per command. The commands and their supervisors stand apart. In the end all are
cancelled, and nothing may be left: no process, no sandbox, no live lease.
"""

import argparse
import os
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import meter
import stacks
from leasehold.domain.lifecycle import EndKind
from leasehold.domain.specs import RunSpec, parse
from leasehold.orchestrator import ending
from leasehold.store import history, invariants

ENVIRONMENT: Final = "bench"
WARM: Final = 20
_SETTLE_S: Final = 5.0
_GIVE_UP_S: Final = 600.0


def processes(stack: stacks.Stack) -> dict[str, list[int]]:
    """Return our processes, and apart from them what the commands consist of."""
    assert stack.agent is not None
    above = meter.parents()
    workers = stack.workers("steps")
    zygotes = [pid for pid, parent in above.items() if parent in workers]
    forked = {pid for root in zygotes for pid in meter.tree(root, known=above)}
    parts = {
        "steps": workers,
        "zygote": zygotes,
        "beats": stack.workers("beats"),
        "clock": [stack.agent.pid],
        "broker": [stack.services.broker_pid],
        "commands": sorted(forked - set(zygotes)),
    }
    if stack.services.database_pid is not None:
        parts["database"] = meter.tree(stack.services.database_pid, known=above)
    return parts


def start(stack: stacks.Stack, commands: int, seconds: float) -> list[str]:
    """Submit all commands and wait until each of them runs."""
    spec = parse(RunSpec, {"commands": [{"argv": ["sleep", str(seconds)]}], "grace_s": 1})
    ids = [stack.submit(ENVIRONMENT, spec) for _ in range(commands)]
    stack.wait_for("status = 'running' AND step = 'heartbeat'", commands, timeout_s=_GIVE_UP_S)
    return ids


def window(stack: stacks.Stack, window_s: float) -> dict[str, Any]:
    """Return what each part used while everything waits, in percent of a core."""
    parts = processes(stack)
    parts.pop("commands")
    cpu = {name: meter.cpu_s(pids) for name, pids in parts.items()}
    began = monotonic()
    sleep(window_s)
    spent = monotonic() - began
    used = {name: meter.cpu_s(pids) - cpu[name] for name, pids in parts.items()}
    return {name: round(seconds / spent * 100, 2) for name, seconds in used.items()}


def memory(stack: stacks.Stack) -> dict[str, int]:
    """Return the memory that only each of our processes holds, in bytes."""
    parts = processes(stack)
    ours = ("steps", "zygote", "beats", "clock")
    return {name: sum(map(meter.own_bytes, parts[name])) for name in ours}


def commands_memory(pids: list[int]) -> tuple[int, int]:
    """Return how many supervisors and commands there are, and their memory together."""
    return len(pids), sum(meter.shared_bytes(pid) for pid in pids)


def cancel(stack: stacks.Stack, ids: list[str], before: int) -> float:
    """Cancel all, wait until each is over and released; return how long it took, in seconds."""
    began = monotonic()
    for run_id in ids:
        with stack.app.database.write("bench.cancel") as tx:
            ending.request_end(tx, stack.context, run_id, EndKind.CANCEL, actor="bench")
    stack.wait_for("finished_at IS NOT NULL", before + len(ids), timeout_s=_GIVE_UP_S)
    stack.wait_released(timeout_s=_GIVE_UP_S)
    return monotonic() - began


def left_behind(stack: stacks.Stack, pids: list[int], home: Path) -> list[str]:
    """Return what should not be there any more."""
    until = monotonic() + 20
    while (alive := [pid for pid in pids if meter.is_running(pid)]) and monotonic() < until:
        sleep(0.1)
    left = [f"process {pid}" for pid in alive]
    left += [str(path) for path in (home / "host" / "sandboxes" / "local").glob("sb-*")]
    with stack.app.database.read() as tx:
        left += [f"invariant: {row}" for row in invariants.check(tx)]
        left += [f"history: {row}" for row in history.verify(tx)]
    return left


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start, look, cancel, and look again."""
    os.environ["LEASEHOLD_HOST_CAPACITY"] = str(options.commands + WARM)
    with (
        stacks.home() as home,
        stacks.services(options.stack, home) as services,
        stacks.stack(services, home, processes=1, threads=options.threads) as stack,
    ):
        print(f"{services.name}: {options.commands} x sleep {options.seconds:g}", flush=True)
        stack.environment(ENVIRONMENT, "local")
        true = parse(RunSpec, {"commands": [{"argv": ["true"]}]})
        for _ in range(WARM):
            stack.submit(ENVIRONMENT, true)
        stack.wait_for("finished_at IS NOT NULL", WARM, timeout_s=60)
        before = memory(stack)
        began = monotonic()
        ids = start(stack, options.commands, options.seconds)
        starting_s = monotonic() - began
        print(f"all of them run after {starting_s:.1f} s", flush=True)
        sleep(_SETTLE_S)
        percent = window(stack, options.window)
        after = memory(stack)
        pids = processes(stack)["commands"]
        count, together = commands_memory(pids)
        waiting = stack.count("status = 'running' AND step = 'heartbeat'")
        cancelling_s = cancel(stack, ids, WARM)
        left = left_behind(stack, pids, home)
        cancelled = stack.count("status = 'cancelled'")
    kb = {name: (after[name] - before[name]) / options.commands / 1024 for name in before}
    ours = [percent[name] for name in percent if name != "broker"]
    return {
        "stack": services.name,
        "commands": options.commands,
        "still_waiting_after_window": waiting,
        "starting_s": round(starting_s, 1),
        "started_per_s": round(options.commands / starting_s, 1),
        "cpu_percent": percent,
        "cpu_percent_all": round(sum(ours), 2),
        "kb_per_run": {name: round(size, 2) for name, size in kb.items()},
        "kb_per_run_all": round(sum(kb.values()), 2),
        "bytes_before": before,
        "command_processes": count,
        "command_kb_per_run": round(together / options.commands / 1024, 1),
        "cancelling_s": round(cancelling_s, 1),
        "cancelled": cancelled,
        "left_behind": left,
    }


def show(result: dict[str, Any]) -> None:
    cpu = "  ".join(f"{name} {share:g}" for name, share in result["cpu_percent"].items())
    size = "  ".join(f"{name} {kb:g}" for name, kb in result["kb_per_run"].items())
    processes_ = result["command_processes"]
    lines = [
        ("starting", f"{result['starting_s']} s, {result['started_per_s']}/s"),
        ("waiting after window", f"{result['still_waiting_after_window']}"),
        ("CPU, % of a core", f"{result['cpu_percent_all']:g} without the broker   {cpu}"),
        ("memory, KB per run", f"{result['kb_per_run_all']:g}   {size}"),
        (
            "apart: the commands",
            f"{processes_} processes, {result['command_kb_per_run']} KB a run",
        ),
        ("cancelling", f"{result['cancelling_s']} s, {result['cancelled']} cancelled"),
        ("left behind", f"{len(result['left_behind'])}   {result['left_behind'][:3]}"),
    ]
    for name, text in lines:
        print(f"  {name:22}{text}")


def main() -> None:
    """Measure; exit 1 if something stayed behind or a command ended too early."""
    parser = argparse.ArgumentParser(description="A thousand waiting commands on one worker.")
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120.0, help="that each command sleeps")
    parser.add_argument("--window", type=float, default=30.0, help="seconds that are measured")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--stack", choices=("embedded", "production"), default="embedded")
    options = parser.parse_args()
    machine = meter.machine()
    print(f"{machine['cores']} cores, load {machine['load_before']}")
    result = measure(options)
    show(result)
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    path = stacks.write_result("waiting", {"machine": machine, **result})
    print(f"load after {machine['load_after']}; written to {path}")
    if result["left_behind"] or result["still_waiting_after_window"] < options.commands:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
