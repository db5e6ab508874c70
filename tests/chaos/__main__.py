"""
``python -m chaos``: break everything around real runs for a while, then judge.

Exit codes: 0 every promise held, 1 one broke, 2 the options are wrong, 130 after Ctrl-C.
"""

import argparse
import json
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from chaos import evidence, report
from chaos.plan import Plan
from chaos.play import Stage
from leasehold.errors import LeaseholdError
from services import MissingServiceError

RESULTS: Final = Path(__file__).parents[2] / "bench" / "results"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", allow_abbrev=False, description=__doc__)
    parser.add_argument(
        "--seconds",
        type=float,
        default=180.0,
        help="of load, quiet phases included (180); settling comes on top",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides what is broken where")
    parser.add_argument(
        "--stack",
        choices=("production", "embedded"),
        default="production",
        help="PostgreSQL + Redis (default), or SQLite + the embedded broker",
    )
    parser.add_argument(
        "--rate", type=float, default=16.0, help="runs that arrive a second (16)"
    )
    parser.add_argument("--load", type=int, default=500, help="most runs on their way (500)")
    parser.add_argument(
        "--kill-every",
        type=float,
        default=1.0,
        help="seconds between two kills of workers, on average (1)",
    )
    parser.add_argument(
        "--fault-every",
        type=float,
        default=6.0,
        help="seconds between two other faults, on average (6)",
    )
    parser.add_argument("--processes", type=int, default=2, help="workers for steps per host")
    parser.add_argument("--keep", action="store_true", help="keep logs and files")
    parser.add_argument("--json", type=Path, help="where the result is written")
    found = parser.parse_args()
    for name in ("seconds", "rate", "load", "kill_every", "fault_every", "processes"):
        if getattr(found, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above zero")
    return found


def main() -> int:
    """Play it; return the exit code."""
    chosen = options()
    console = Console(highlight=False)
    plan = Plan(
        seconds=chosen.seconds,
        seed=chosen.seed,
        stack=chosen.stack,
        load=chosen.load,
        rate=chosen.rate,
        kill_every_s=chosen.kill_every,
        fault_every_s=chosen.fault_every,
        processes=chosen.processes,
        keep=chosen.keep,
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    command = f"python -m chaos {shlex.join(sys.argv[1:])}".strip()
    console.print(f"chaos: seed {plan.seed}, {plan.stack}, {plan.seconds:g} s")
    stage = Stage(plan, console.print)
    try:
        monkey, watch = stage.play()
        found = evidence.facts(stage)
        verdict = evidence.judge(stage, found)
        result = report.build(stage, monkey, watch, found, verdict)
        result["command"] = command
    finally:
        stage.close()
    place = chosen.json or RESULTS / f"chaos-{plan.stack}-{plan.seed}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(result, indent=2) + "\n")
    report.show(result, console)
    console.print(report.row(result), soft_wrap=True, markup=False)
    console.print(f"{place}", soft_wrap=True)
    return 0 if result["held"] else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        sys.stderr.write("chaos: stopped; nothing is left behind\n")
        raise SystemExit(130) from None
    except (LeaseholdError, MissingServiceError, TimeoutError) as error:
        sys.stderr.write(f"chaos: {error}\n")
        raise SystemExit(1) from None
