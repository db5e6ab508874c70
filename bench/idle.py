"""
What a host agent costs that has nothing to do.

    python bench/idle.py [--seconds 60] [--processes 1] [--stack production|embedded]

One agent with its workers, nothing queued, nothing running. Measured over a window: the
transactions that the database counts (an idle agent's have one statement each) and the CPU of
the agent's whole tree, of the broker and of the database. The server's own vacuum is off
meanwhile, since its transactions are counted as well. The aim: at most one statement a second
and 0.5 % of a core.
"""

import argparse
import json
from time import monotonic, sleep
from typing import Any, Final

import meter
import stacks

STATEMENTS_PER_S: Final = 1.0
CORE_PERCENT: Final = 0.5
_SETTLE_S: Final = 20.0


def transactions(stack: stacks.Stack) -> int | None:
    """Return what PostgreSQL has counted in this database; None on SQLite."""
    if stack.app.database.dialect != "postgresql":
        return None
    with stack.app.database.read() as tx:
        return int(
            tx.value(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database"
                " WHERE datname = current_database()"
            )
        )


def without_vacuum(stack: stacks.Stack) -> None:
    """Let our private PostgreSQL do nothing by itself: it counts that like our own work."""
    database = stack.app.database
    if database.dialect != "postgresql":
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as plain:
        plain.exec_driver_sql("ALTER SYSTEM SET autovacuum = off")
        plain.exec_driver_sql("SELECT pg_reload_conf()")


def parts(stack: stacks.Stack) -> dict[str, list[int]]:
    assert stack.agent is not None
    found = {
        "agent": [stack.agent.pid],
        "workers": [pid for pid in meter.tree(stack.agent.pid) if pid != stack.agent.pid],
        "broker": [stack.services.broker_pid],
    }
    if stack.services.database_pid is not None:
        found["database"] = meter.tree(stack.services.database_pid)
    return found


def window(stack: stacks.Stack, seconds: float) -> dict[str, Any]:
    without_vacuum(stack)
    sleep(_SETTLE_S)
    pids = parts(stack)
    before = {name: meter.cpu_s(group) for name, group in pids.items()}
    counted, began = transactions(stack), monotonic()
    sleep(seconds)
    took = monotonic() - began
    after = transactions(stack)
    percent = {
        name: round(100 * (meter.cpu_s(group) - before[name]) / took, 3)
        for name, group in pids.items()
    }
    result: dict[str, Any] = {"seconds": round(took, 1), "core_percent": percent}
    result["core_percent_of_ours"] = round(percent["agent"] + percent["workers"], 3)
    if counted is not None and after is not None:
        # Our own two looks are not the agent's; statistics lag by less than a second.
        result["statements_per_s"] = round((after - counted - 1) / took, 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="What an idle host agent costs.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--stack", choices=("production", "embedded"), default="production")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": meter.machine(), "aim": {}}
    with (
        stacks.home() as home,
        stacks.services(options.stack, home) as services,
        stacks.stack(services, home, processes=options.processes, threads=8) as stack,
    ):
        result["services"], result["processes"] = services.name, options.processes
        result |= window(stack, options.seconds)
    result["aim"] = {"statements_per_s": STATEMENTS_PER_S, "core_percent": CORE_PERCENT}
    path = stacks.write_result(f"idle-{options.stack}", result)
    print(json.dumps(result, indent=2))
    print(f"written: {path.name}")


if __name__ == "__main__":
    main()
