"""
The monitor's pages with 1,000,000 runs and 10,000 live leases in PostgreSQL, beside bare SQL.

Fills a private server, then asks for each page over HTTP, one at a time, and runs the
statements behind it alone. Both are measured in one run, on the same rows.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from leasehold import settings as knobs
from leasehold.store import failures, finding, overview, queues, schema, troubles, views
from leasehold.store.database import Database, Tx

# Not beside it: `api` is a benchmark here and a package there.
sys.path[0] = str(Path(__file__).parents[1] / "tests")

DAY_US: Final = 86_400_000_000
DAYS: Final = 30
TENANT: Final = "default"
ROUNDS: Final = 40


def clone(tx: Tx, table: str, row: str, count: int, changes: Mapping[str, str]) -> None:
    """Insert copies of a row; `changes` are expressions of it, `t`, and a number, `g`."""
    columns = [
        one["column_name"]
        for one in tx.all(
            "SELECT column_name FROM information_schema.columns WHERE table_name = :name",
            name=table,
        )
        if (table, one["column_name"]) != ("leases", "number")
    ]
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(changes.get(column, f't."{column}"') for column in columns)
    tx.run(
        f"INSERT INTO {table} ({names}) SELECT {values}"
        f" FROM {table} t, generate_series(1, {count}) g WHERE t.id = :row",
        row=row,
    )


def fill(database: Database, runs: int) -> None:
    """Insert a month of history, with what is under way older than the last of it."""
    from store.rows import insert_lease, insert_run

    with database.write("bench") as tx:
        tx.run("SET LOCAL statement_timeout = 0")
        tx.run("SET LOCAL session_replication_role = replica")
        rows = {
            status: insert_run(tx, status=status, code=code)["id"]
            for status, code in (
                ("queued", None),
                ("running", None),
                ("succeeded", None),
                ("failed", "command_failed"),
            )
        }
        for status, count in (("succeeded", runs * 9 // 10), ("failed", runs // 10)):
            at = f"t.created_at - (g::bigint * {DAYS * DAY_US} / {count})"
            changes = {"created_at": at, "finished_at": f"{at} + 60000000"}
            clone(tx, "runs", rows[status], count, {"id": f"'{status}' || g", **changes})
        old = f"t.created_at - {DAYS * DAY_US}"
        then = {"created_at": f"{old} - g"}
        clone(tx, "runs", rows["queued"], 1000, {"id": "'queued' || g", **then})
        lease = {"lease_id": "'live' || g"}
        clone(tx, "runs", rows["running"], 9000, {"id": "'running' || g", **then, **lease})
        live = insert_lease(tx, status="idle")["id"]
        sandbox = {"sandbox_id": "'s' || g"}
        clone(tx, "leases", live, 10_000, {"id": "'live' || g", **sandbox})
        over = insert_lease(tx, status="released")["id"]
        clone(tx, "leases", over, runs * 3 // 10, {"id": "'over' || g"})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as bare:
        bare.exec_driver_sql("SET statement_timeout = 0")
        bare.exec_driver_sql("VACUUM ANALYZE")


def front(tx: Tx) -> None:
    now = tx.now()
    overview.waiting(tx, tenant_id=TENANT)
    overview.steps(tx, tenant_id=TENANT)
    overview.leases(tx, tenant_id=TENANT)
    overview.ends_by_minute(tx, tenant_id=TENANT, since=now - overview.HOUR_US)
    overview.failures(tx, tenant_id=TENANT, since=now - DAY_US)


def listed(*statuses: str) -> Callable[[Tx], Any]:
    return lambda tx: finding.run_rows(tx, tenant_id=TENANT, statuses=statuses, limit=51)


def stuck(tx: Tx) -> None:
    limits: dict[str, Any] = {"tenant_id": TENANT, "silent_us": 10_000_000}
    troubles.runs(tx, **limits, late_us=10_000_000, ending_us=60_000_000, tries=2)
    troubles.parked(tx, **limits)
    troubles.leases(tx, **limits, late_us=10_000_000)
    troubles.waiting(tx, tenant_id=TENANT)


PAGES: Final[Mapping[str, Callable[[Tx], Any]]] = {
    "": front,
    "/runs": listed(),
    "/runs?status=failed": listed("failed"),
    "/runs?status=running": listed("running"),
    "/runs?status=queued": listed("queued"),
    "/trouble": stuck,
    "/failures": lambda tx: failures.look(tx, tenant_id=TENANT, since_us=tx.now() - DAY_US),
    "/failures?days=30": lambda tx: failures.look(
        tx, tenant_id=TENANT, since_us=tx.now() - 30 * DAY_US
    ),
    "/queues": lambda tx: queues.look(tx, tenant_id=TENANT),
    "/leases": lambda tx: views.lease_rows(tx, tenant_id=TENANT, live=True, limit=51),
    "/runs/succeeded5": lambda tx: views.whole_run(tx, "succeeded5", tenant_id=TENANT),
}


def times(work: Callable[[], Any]) -> list[float]:
    """Return milliseconds, sorted."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append((time.perf_counter() - start) * 1000)
    return sorted(found)


def measure(database: Database) -> None:
    from api.browsing import browsing
    from api.served import make_key, serving

    def bare(look: Callable[[Tx], Any]) -> None:
        with database.read() as tx:
            look(tx)

    p50, p95 = ROUNDS // 2, ROUNDS * 95 // 100
    print(f"{'page':<24}{'p50 ms':>9}{'p95 ms':>9}{'SQL p50':>9}{'SQL p95':>9}")
    with (
        serving(knobs.load()) as service,
        browsing(service, make_key(database)) as browser,
    ):
        for path, look in PAGES.items():
            assert browser.get(path).status_code == 200
            page = times(lambda path=path: browser.get(path))  # type: ignore[misc]
            alone = times(lambda look=look: bare(look))  # type: ignore[misc]
            shown = (page[p50], page[p95], alone[p50], alone[p95])
            print(f"{path or '/':<24}" + "".join(f"{value:9.1f}" for value in shown))


def main() -> None:
    from services import run_postgres

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    asked = parser.parse_args()
    with (
        run_postgres() as postgres,
        postgres.database() as url,
        tempfile.TemporaryDirectory() as home,
    ):
        os.environ |= {
            "LEASEHOLD_DATABASE_URL": url,
            "LEASEHOLD_HOME": home,
            "LEASEHOLD_API_REQUESTS_PER_S": "0",
        }
        database = Database(url)
        schema.upgrade(database)
        fill(database, asked.runs)
        print(f"{asked.runs} runs, 10000 live leases")
        measure(database)
        database.close()


if __name__ == "__main__":
    main()
