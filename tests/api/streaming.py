"""Streams as their clients read them, and runs whose history and output grow by hand."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from leasehold.api.serving import Service
from leasehold.api.watch import Watch
from leasehold.store import executions, moves
from leasehold.store.database import Database, Row
from leasehold.store.runs import insert_row
from store.rows import insert_execution

RUNS: Final = "/api/v1/runs"
QUICK: Final[dict[str, Any]] = {"tick_s": 0.02, "keep_alive_s": 0.2}


@dataclass(frozen=True)
class Message:
    name: str
    id: str
    data: Any


@contextmanager
def streaming(
    client: httpx.Client, path: str, *, after: str | None = None, **params: str
) -> Iterator[Iterator[Message]]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with client.stream("GET", f"{RUNS}/{path}", headers=headers, params=params) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield messages(answer.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """Read Server-Sent Events as a browser does."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            data = json.loads(fields["data"])
            yield Message(fields.get("event", ""), fields.get("id", ""), data)
        fields = {}


def whole(client: httpx.Client, path: str, **options: Any) -> list[Message]:
    with streaming(client, path, **options) as coming:
        return list(coming)


def written(coming: list[Message], stream: str) -> bytes:
    """Return the bytes of a stream, each piece at its offset."""
    pieces: dict[int, bytes] = {}
    for message in coming:
        if not message.name and message.data["stream"] == stream:
            data, start = message.data, message.data["start"]
            text = (
                base64.b64decode(data["base64"]) if "base64" in data else data["text"].encode()
            )
            known = pieces.get(start, b"")
            assert data["offset"] == len(known)
            pieces[start] = known + text
    return b"".join(pieces[start] for start in sorted(pieces))


def watch_of(service: Service) -> Watch:
    watch: Watch = service.application.state.watch
    return watch


def tell(database: Database, run_id: str, name: str, **columns: Any) -> None:
    """Write one more line of a run's history."""
    with database.write("test") as tx:
        line = {"tenant_id": "default", "run_id": run_id, "at": tx.now(), "name": name}
        insert_row(tx, "events", line | {"data": {}} | columns)


def end(database: Database, run_id: str) -> None:
    with database.write("test") as tx:
        tx.run(
            "UPDATE runs SET status = 'succeeded', step = NULL, due_at = NULL, timer_at = NULL,"
            " finished_at = {now}, exit_code = 0 WHERE id = :id",
            id=run_id,
        )
        tx.run(
            "UPDATE leases SET status = 'released', finished_at = {now},"
            " cleanup_status = 'success' WHERE run_id = :id",
            id=run_id,
        )
        for lease in tx.all("SELECT id FROM leases WHERE run_id = :id", id=run_id):
            names = ("lease.releasing", "lease.released")
            moves.record(tx, *names, tenant_id="default", lease_id=lease["id"])
        moves.record(tx, "run.succeeded", tenant_id="default", run_id=run_id)


def start(database: Database, run_id: str, number: int) -> Row:
    with database.write("test") as tx:
        lease = tx.value("SELECT lease_id FROM runs WHERE id = :id", id=run_id)
        return insert_execution(
            tx, {"id": run_id, "tenant_id": "default"}, lease_id=lease, number=number
        )


def write(database: Database, execution: Row, data: bytes, stream: str = "stdout") -> None:
    with database.write("test") as tx:
        place = f"SELECT {stream}_offset FROM executions WHERE id = :id"
        offset = tx.value(place, id=execution["id"])
        executions.append(tx, execution["id"], stream=stream, offset=offset, data=data)


def leave(database: Database, execution: Row, exit_code: int = 0) -> None:
    with database.write("test") as tx:
        tx.run(
            "UPDATE executions SET status = 'exited', exit_code = :code, ended_at = {now}"
            " WHERE id = :id",
            id=execution["id"],
            code=exit_code,
        )
        about = ("execution.exited", {"execution": execution["id"]})
        moves.record(tx, about, tenant_id="default", run_id=execution["run_id"])
