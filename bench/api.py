"""
The REST API with a million runs in PostgreSQL: what does it add to the statements themselves?

    python bench/api.py [--runs 1000000] [--requests 300]

One process serves, one client asks over a kept connection, one request after the other. Beside
each kind of request, in the same run: the same statements through the driver alone, or a bare
FastAPI route that sends the same inserts (`bare_api.py`). Aims: a page of runs in at most
50 ms, a create in at most 1.5 times the bare route. A run of a batch of a thousand is compared
with one alone. Viewers of a stream have a program of their own (`viewers.py`).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any, Final, NamedTuple

import httpx
import psycopg
import pytest

import meter
import stacks
from leasehold.api.asking import cursor
from leasehold.domain.roles import Role
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.embedded import broker
from leasehold.orchestrator import keys, submit
from leasehold.store import database as databases
from leasehold.store import finding
from leasehold.store import sql as sqls
from leasehold.store.database import Database

PAGE_AIM_MS: Final = 50.0
CREATE_AIM: Final = 1.5
BODY: Final = {"environment": "place", "commands": [{"argv": ["true"]}], "labels": {"a": "b"}}
_FILL: Final = """
INSERT INTO runs (id, tenant_id, environment_id, provider, status, spec, labels, priority,
  deadline_at, created_at, admitted_at, started_at, finished_at, code, exit_code)
SELECT 'bench-' || lpad(n::text, 10, '0'), 'default', :place, 'fake',
  CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'succeeded' END,
  '{"commands": [{"argv": ["true"]}]}',
  json_build_object('team', 't' || (n % 1000)), 5,
  at + 1000000000, at, at, at, at,
  CASE WHEN n % 20 = 0 THEN 'command_failed' END, CASE WHEN n % 20 = 0 THEN 1 ELSE 0 END
FROM (SELECT n, {now} - (:count - n) * 100000 AS at
      FROM generate_series(CAST(:first AS bigint), :last) AS n) AS runs_to_be
"""
_STEP: Final = 10_000


class Server(NamedTuple):
    """A process that serves, and where."""

    url: str
    pid: int


def fill(database: Database, count: int) -> None:
    """Make so many ended runs, a tenth of a second apart."""
    spec = parse(EnvironmentSpec, {"name": "place", "provider": "fake"})
    with database.write("bench.place") as tx:
        place = submit.ensure_environment(tx, spec, tenant_id="default")["id"]
    for first in range(1, count + 1, _STEP):
        last = min(first + _STEP - 1, count)
        with database.write("bench.fill") as tx:
            tx.run(_FILL, place=place, count=count, first=first, last=last)


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[Server]:
    program = [sys.executable, "-m", "leasehold", "api", "--port", "0", "--json"]
    process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(json.loads(process.stdout.readline())["url"], process.pid)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def bare(orders: dict[str, Any]) -> Iterator[Server]:
    program = [sys.executable, str(Path(__file__).parent / "bare_api.py")]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(orders) + "\n")
        process.stdin.close()
        url = f"http://127.0.0.1:{orders['port']}"
        until = monotonic() + 30
        while True:
            try:
                httpx.get(f"{url}/nothing")
                break
            except httpx.TransportError:
                if monotonic() > until:
                    raise
                sleep(0.1)
        yield Server(url, process.pid)
    finally:
        process.kill()
        process.wait(30)


def spread(times: int, call: Callable[[], object]) -> dict[str, float]:
    """Return median and 95th percentile in milliseconds, after a warm-up."""
    for _ in range(max(5, times // 10)):
        call()
    spent = []
    for _ in range(times):
        began = perf_counter()
        call()
        spent.append((perf_counter() - began) * 1000)
    return {
        "p50_ms": round(median(spent), 2),
        "p95_ms": round(sorted(spent)[int(times * 0.95)], 2),
    }


def recorded(call: Callable[[], Any]) -> tuple[Any, list[tuple[str, list[Any]]]]:
    """Return what `call` returns, and the statements that it sent."""
    sent: list[tuple[str, list[Any]]] = []
    original = databases.Tx.send

    def send(tx: databases.Tx, text: str, params: Any) -> Any:
        sql, names = sqls.ready(text, tx.dialect)
        sent.append((sql, [params[name] for name in names]))
        return original(tx, text, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases.Tx, "send", send)
        return call(), sent


def pages(client: httpx.Client, database: Database, times: int) -> dict[str, Any]:
    """Measure pages of runs, each beside its own statement through the driver alone."""
    with database.read() as tx:
        deep = tx.one(
            "SELECT created_at, id FROM runs ORDER BY created_at DESC, id DESC"
            " OFFSET (SELECT count(*) / 2 FROM runs) LIMIT 1"
        )
    assert deep is not None
    asked: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "first page": ({}, {}),
        "from the middle": (
            {"cursor": cursor(deep["created_at"], deep["id"])},
            {"after": (deep["created_at"], deep["id"])},
        ),
        "status failed (5 %)": ({"status": "failed"}, {"statuses": ["failed"]}),
        "status running (none)": ({"status": "running"}, {"statuses": ["running"]}),
        "label (0.1 %)": ({"label": "team=t77"}, {"labels": {"team": "t77"}}),
        "label (none)": ({"label": "team=nobody"}, {"labels": {"team": "nobody"}}),
        "environment": ({"environment": "place"}, {"environment": "place"}),
    }
    return {name: _page(client, database, times, *both) for name, both in asked.items()}


def _page(
    client: httpx.Client,
    database: Database,
    times: int,
    query: dict[str, Any],
    arguments: dict[str, Any],
) -> dict[str, Any]:
    with database.read() as tx:
        rows, sent = recorded(lambda: finding.run_rows(tx, tenant_id="default", **arguments))
    sql, values = sent[-1]
    few = times if len(rows) == 100 else max(10, times // 10)
    http = spread(few, lambda: client.get("/api/v1/runs", params=query).raise_for_status())
    with psycopg.connect(address(database)) as connection:
        driver = psycopg.RawCursor(connection)
        alone = spread(few, lambda: driver.execute(sql, values).fetchall())
    return {"rows": len(rows), "api": http, "sql": alone}


def address(database: Database) -> str:
    return database.url.render_as_string(hide_password=False).replace("+psycopg", "")


def creates(client: httpx.Client, stack: stacks.Stack, times: int) -> dict[str, Any]:
    """Measure a create beside a bare route with the same statements."""
    spec = parse(RunSpec, {k: v for k, v in BODY.items() if k != "environment"})
    run_id, sent = recorded(lambda: stack.submit("place", spec))
    orders = {
        "database": address(stack.app.database),
        "statements": sent,
        "id": run_id,
        "port": broker.free_port(),
    }
    with bare(orders) as (url, _), httpx.Client(base_url=url) as other:
        plain = spread(times, lambda: other.post("/runs", json=BODY).raise_for_status())
        ours = spread(times, lambda: client.post("/api/v1/runs", json=BODY).raise_for_status())
    return {"statements": len(sent), "api": ours, "bare": plain}


def batches(client: httpx.Client, times: int, *, size: int = 1000) -> dict[str, Any]:
    """Measure a request for many runs; also for each of them."""
    body = {"runs": [BODY] * size}

    def post() -> None:
        made = client.post("/api/v1/runs/batch", json=body).raise_for_status().json()
        assert made["created"] == size, made

    spent = spread(max(10, times // 20), post)
    return {"runs": size, **spent, "p50_ms_each": round(spent["p50_ms"] / size, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description="The REST API, beside bare SQL and FastAPI.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": meter.machine(), "runs": options.runs}
    with ExitStack() as keep:
        home = keep.enter_context(stacks.home())
        services = keep.enter_context(stacks.services("production", home))
        stack = keep.enter_context(stacks.stack(services, home, processes=1, threads=8))
        # It has said what its host offers; what is created now waits, and disturbs nobody.
        stack.stop_agent()
        began = monotonic()
        fill(stack.app.database, options.runs)
        result["filling_s"] = round(monotonic() - began, 1)
        with psycopg.connect(address(stack.app.database), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE runs")
        with stack.app.database.write("bench.key") as tx:
            spec = keys.KeySpec(name="bench", role=Role.ADMIN)
            key = keys.create(tx, spec, tenant_id="default", actor="bench")[1]
        url, _ = keep.enter_context(
            serving({**os.environ, "LEASEHOLD_API_REQUESTS_PER_S": "0"})
        )
        client = keep.enter_context(
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        )
        nothing = spread(options.requests, lambda: client.get("/api/v1/version"))
        result["no rows at all"] = nothing
        result["pages"] = pages(client, stack.app.database, options.requests)
        run_id = client.post("/api/v1/runs", json=BODY).raise_for_status().json()["id"]
        result["get"] = spread(options.requests, lambda: client.get(f"/api/v1/runs/{run_id}"))
        result["create"] = creates(client, stack, options.requests)
        result["batch"] = batches(client, options.requests)
    path = stacks.write_result("api", result)
    print(json.dumps(result, indent=1))
    print(f"written: {path.name}")


if __name__ == "__main__":
    main()
