"""What a chaos has shown: for people as tables, for machines as JSON."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from chaos.checks import Breach, Facts
from chaos.evidence import throughput, work_done
from chaos.monkey import Monkey
from chaos.play import INTERVAL_S, Stage
from chaos.recovery import Watch, summary

CHILD_AIM_S: Final = 1.0
HOST_AIM_S: Final = 12.0 + INTERVAL_S
THROUGHPUT_AIM: Final = 0.95
SHOWN: Final = 10
_BAR: Final = 40


def build(
    stage: Stage,
    monkey: Monkey,
    watch: Watch,
    found: list[Facts],
    verdict: Mapping[str, list[Breach]],
) -> dict[str, Any]:
    """Return everything that was seen, ready to be written as JSON."""
    before = throughput(stage, stage.times.before)
    after = throughput(stage, stage.times.after)
    recovery = {
        kind: {
            "alone": summary(watch.samples, kind, alone=True),
            "amid_other_faults": summary(watch.samples, kind, alone=False),
        }
        for kind in ("child", "host")
    }
    result = {
        "date": datetime.fromtimestamp(stage.times.after[1] / 1e6, tz=UTC).date().isoformat(),
        "plan": asdict(stage.plan),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "cut_off_by": next(host.wire.kind for host in stage.hosts if host.wire is not None),
        "limits_of_this_machine": stage.loud,
        "faults": dict(sorted(monkey.counts.items())),
        "kills": dict(sorted(monkey.kills.items())),
        "kills_in_all": sum(monkey.kills.values()),
        "work": work_done(found),
        "throughput": {
            "before_per_s": round(before, 2),
            "after_per_s": round(after, 2),
            "share": round(after / before, 3) if before else None,
            "at_once_before": stage.at_once,
            "turned_away": stage.feeder.turned_away,
        },
        "recovery": recovery,
        "never_recovered": watch.never,
        "promises": {name: [str(each) for each in each_] for name, each_ in verdict.items()},
        "held": not any(verdict.values()),
    }
    result["aims"] = aims(result)
    return result


def aims(result: Mapping[str, Any]) -> dict[str, bool | None]:
    """Say which aims were met; None: nothing was measured."""

    def within(kind: str, limit: float) -> bool | None:
        seen = result["recovery"][kind]["alone"]
        return seen["p99_s"] <= limit if seen["samples"] else None

    share = result["throughput"]["share"]
    return {
        f"child: claimed again, p99 < {CHILD_AIM_S:g} s": within("child", CHILD_AIM_S),
        f"host: claimed elsewhere, p99 ≤ {HOST_AIM_S:g} s": within("host", HOST_AIM_S),
        f"throughput after ≥ {THROUGHPUT_AIM:.0%} of before": None
        if share is None
        else share >= THROUGHPUT_AIM,
    }


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print it for a person."""
    console.print(_faults(result))
    for kind, parts in result["recovery"].items():
        for name, part in parts.items():
            _histogram(console, f"{kind}, {name.replace('_', ' ')}", part)
    work, speed = result["work"], result["throughput"]
    console.print(
        f"work: {work['runs']} runs, {work['executions']} executions,"
        f" {work['idempotent_started_again']} idempotent commands started again elsewhere,"
        f" {work['outputs_cut_by_a_full_disk']} outputs cut by a full disk (and said so)"
    )
    console.print(
        f"throughput: {speed['before_per_s']} runs/s before, {speed['after_per_s']} after;"
        f" {speed['at_once_before']} at once before the first fault,"
        f" {speed['turned_away']} arrivals found no room"
    )
    for text in result["limits_of_this_machine"]:
        console.print(f"[bold yellow]NOT AS IT SHOULD BE[/]: {text}")
    for name, met in result["aims"].items():
        word = {True: "[green]aim met[/]   ", False: "[yellow]aim missed[/]"}.get(
            met, "[yellow]not measured[/]"
        )
        console.print(f"{word} {name}")
    for name, breaches in result["promises"].items():
        console.print(f"{'[bold red]BROKEN[/]' if breaches else '[green]held[/]  '} {name}")
        for text in breaches[:SHOWN]:
            console.print(f"         {text}", markup=False)
        if len(breaches) > SHOWN:
            console.print(f"         … and {len(breaches) - SHOWN} more")


def _faults(result: Mapping[str, Any]) -> Table:
    grid = Table(title="What was broken", title_justify="left")
    grid.add_column("fault")
    grid.add_column("times", justify="right")
    for kind, times in result["kills"].items():
        grid.add_row(f"SIGKILL: {kind}", str(times))
    for kind, times in result["faults"].items():
        grid.add_row(kind, str(times))
    return grid


def _histogram(console: Console, title: str, part: Mapping[str, Any]) -> None:
    if not part["samples"]:
        return
    console.print(
        f"recovery, {title}: {part['samples']} samples, p50 {part['p50_s']} s,"
        f" p99 {part['p99_s']} s, at most {part['max_s']} s"
        f" (given up: p50 {part['given_up_p50_s']} s, p99 {part['given_up_p99_s']} s)"
    )
    most = max(number for _, number in part["histogram"])
    for name, number in part["histogram"]:
        console.print(f"  {name:>8} {number:>5} {'█' * round(_BAR * number / most)}")


def row(result: Mapping[str, Any]) -> str:
    """Return the line for docs/reliability.md."""
    kills = ", ".join(f"{number} {kind}" for kind, number in result["kills"].items())
    share = result["throughput"]["share"]
    fields = [
        result["date"],
        f"`{result['command']}`",
        f"{result['kills_in_all']} ({kills})",
        sum(result["faults"].values()),
        f"{result['work']['runs']:,}",
        *(_times(result["recovery"][kind]["alone"]) for kind in ("child", "host")),
        "-" if share is None else f"{share:.0%}",
        "all held" if result["held"] else "BROKEN",
    ]
    return "| " + " | ".join(map(str, fields)) + " |"


def _times(part: Mapping[str, Any]) -> str:
    if not part["samples"]:
        return "-"
    return f"{part['p50_s']:.1f} / {part['p99_s']:.1f} s ({part['samples']})"
