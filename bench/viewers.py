"""
Five hundred viewers of one run's history: what do they cost, and how late do they see it?

    python bench/viewers.py [--viewers 500] [--seconds 20]

A run gets a line of history five times a second, with the time in it (by the clock that is
never set). The same is shown to one viewer and to all of them, by `leasehold api` over its one
shared poller, and by a bare FastAPI route in which each viewer asks SQL for itself, as often
(`bare_api.py`, `/watch`). All are connections of their own to one process. Told: from the
commit until a viewer has the line, the transactions of the server beyond those that write the
lines, and the CPU of the process that serves.
"""

import argparse
import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter, sleep
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

import meter
import stacks
from api import BODY, address, bare, serving
from leasehold.domain.roles import Role
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.embedded import broker
from leasehold.orchestrator import keys, submit
from leasehold.store import moves

EVERY_S: Final = 0.2
_OPENING_S: Final = 30.0
_SETTLE_S: Final = 2.0


class Crowd:
    """Viewers that are connected; each line that comes says how late it is."""

    def __init__(self, url: str, path: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        headers = (
            f"GET {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"Authorization: Bearer {key}",
        )
        self._request = "\r\n".join((*headers, "", "")).encode()
        self.late_ms: list[float] = []
        self.open = 0

    async def view(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(self._request)
        status = await reader.readline()
        assert b" 200 " in status, status
        self.open += 1
        while line := await reader.readline():
            if b'"sent"' in line and line.startswith(b"data: "):
                sent = json.loads(line[6:])
                sent = sent.get("data", sent)["sent"]
                self.late_ms.append((perf_counter() - sent) * 1000)


@contextmanager
def speaking(stack: stacks.Stack, run_id: str) -> Iterator[None]:
    """Write a line of the run's history again and again."""
    over = threading.Event()

    def speak() -> None:
        while not over.wait(EVERY_S):
            with stack.app.database.write("bench.line") as tx:
                line = ("user.line", {"sent": perf_counter()})
                moves.record(tx, line, tenant_id="default", run_id=run_id)

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _transactions(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database"
            " WHERE datname = current_database()"
        ).fetchone()
        assert row is not None
        return int(row[0])


async def _watch(
    crowd: Crowd, viewers: int, seconds: float, *, pid: int, url: str
) -> dict[str, Any]:
    tasks = [asyncio.create_task(crowd.view()) for _ in range(viewers)]
    until = perf_counter() + _OPENING_S
    while crowd.open < viewers and perf_counter() < until:
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.05)
    assert crowd.open == viewers, f"{crowd.open} of {viewers} viewers are connected"
    await asyncio.sleep(_SETTLE_S)
    crowd.late_ms.clear()
    cpu, sent, began = meter.cpu_s([pid]), _transactions(url), perf_counter()
    await asyncio.sleep(seconds)
    late, took = sorted(crowd.late_ms), perf_counter() - began
    cpu = meter.cpu_s([pid]) - cpu
    await asyncio.sleep(1.5)  # processes of the server report at leisure
    sent = _transactions(url) - sent
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "viewers": viewers,
        "lines_seen": len(late),
        "late_p50_ms": round(late[len(late) // 2], 1),
        "late_p95_ms": round(late[int(len(late) * 0.95)], 1),
        "transactions_per_s": round(sent / (took + 1.5) - 1 / EVERY_S, 1),
        "cpu_of_a_core": round(cpu / took, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Many viewers of one stream.")
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": meter.machine()}
    with ExitStack() as keep:
        home = keep.enter_context(stacks.home())
        services = keep.enter_context(stacks.services("production", home))
        stack = keep.enter_context(stacks.stack(services, home, processes=1, threads=8))
        stack.stop_agent()
        with stack.app.database.write("bench.place") as tx:
            place = parse(EnvironmentSpec, {"name": "place", "provider": "fake"})
            submit.ensure_environment(tx, place, tenant_id="default")
        with stack.app.database.write("bench.key") as tx:
            spec = keys.KeySpec(name="bench", role=Role.VIEWER)
            key = keys.create(tx, spec, tenant_id="default", actor="bench")[1]
        body = {name: value for name, value in BODY.items() if name != "environment"}
        run_id = stack.submit("place", parse(RunSpec, body))
        database = address(stack.app.database)
        orders = {
            "database": database,
            "statements": [],
            "id": run_id,
            "port": broker.free_port(),
        }
        api = keep.enter_context(serving({**os.environ, "LEASEHOLD_API_REQUESTS_PER_S": "0"}))
        other = keep.enter_context(bare(orders))
        ways = {
            "leasehold": (api.url, f"/api/v1/runs/{run_id}/events/stream", api.pid),
            "each for itself": (other.url, f"/watch/{run_id}", other.pid),
        }
        keep.enter_context(speaking(stack, run_id))
        for name, (url, path, pid) in ways.items():
            result[name] = []
            for viewers in (1, options.viewers):
                crowd = Crowd(url, path, key)
                told = _watch(crowd, viewers, options.seconds, pid=pid, url=database)
                result[name].append(asyncio.run(told))
                sleep(_SETTLE_S)
    print(json.dumps(result, indent=1))
    print(f"written: {stacks.write_result('viewers', result).name}")


if __name__ == "__main__":
    main()
