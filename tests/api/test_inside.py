"""What a command may report of its own run, with a token that dies with it."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest

from api.routes import MATRIX
from api.served import client_of, make_key, serving
from api.test_matrix import ROUTES, ask, fresh
from leasehold import client as clients
from leasehold.api import gate
from leasehold.api.serving import Service
from leasehold.domain import run_tokens
from leasehold.domain.lifecycle import ExecutionStatus
from leasehold.domain.redaction import NOTHING
from leasehold.orchestrator import reporting
from leasehold.settings import Settings
from leasehold.store import artifacts, environments, moves
from leasehold.store.database import Database, Row, Tx
from leasehold.vault import keeping
from leasehold.vault.keys import Keys
from store.rows import insert_execution, insert_held, insert_lease, insert_run

INSIDE: Final = "/api/v1/run"
SECRET: Final = "no-one's-business"


def key_of(database: Database) -> str:
    with database.read() as tx:
        return environments.fact(tx, "run_token_key") or ""


def start(database: Database, *, over: bool = False, **changes: Any) -> Row:
    """Start a command that was told where the API is; or leave one to be killed."""
    with database.write("test") as tx:
        if over:
            lease = insert_lease(tx, status="releasing")
            run = insert_run(tx, status="failed", lease=lease)
            tx.run("UPDATE leases SET run_id = :run", run=run["id"])
        else:
            run, lease = insert_held(tx)
            tx.run("UPDATE runs SET step = 'heartbeat' WHERE id = :id", id=run["id"])
        values = {"lease_id": lease["id"], "runtime_url": "http://api", **changes}
        return insert_execution(tx, run, **values)


def token_of(database: Database, execution: Row) -> str:
    return run_tokens.make(key_of(database), execution["id"])


@pytest.fixture
def execution(database: Database) -> Row:
    return start(database)


@pytest.fixture
def token(database: Database, execution: Row) -> str:
    return token_of(database, execution)


@pytest.fixture
def inside(service: Service, token: str) -> Iterator[httpx.Client]:
    with client_of(service, token) as client:
        yield client


def shown(service: Service, database: Database, run_id: str) -> Any:
    with client_of(service, make_key(database)) as client:
        return client.get(f"/api/v1/runs/{run_id}").json()


def end(database: Database, execution: Row) -> None:
    with database.write("test") as tx:
        moves.move(
            tx, "executions", execution["id"], ExecutionStatus.EXITED, ended_at=tx.stamp()
        )
        moves.record(
            tx,
            ("execution.exited", {"execution": execution["id"]}),
            tenant_id="default",
            run_id=execution["run_id"],
        )


def test_a_command_reports_and_its_run_shows_it(
    service: Service, database: Database, inside: httpx.Client, execution: Row
) -> None:
    run_id = execution["run_id"]
    seen = inside.get(INSIDE).json()
    assert seen == {
        "run_id": run_id,
        "execution_id": execution["id"],
        "end_requested": None,
    }
    assert inside.post(f"{INSIDE}/heartbeat").json() == seen
    for body in ({"percent": 10}, {"percent": 99.5, "message": "nearly"}):
        assert inside.post(f"{INSIDE}/progress", json=body).status_code == 200
    for value in (False, [1, "two"], {"rows": 12}):
        assert inside.put(f"{INSIDE}/result", json=value).status_code == 200
    event = {"name": "loaded", "data": {"rows": 12}}
    assert inside.post(f"{INSIDE}/events", json=event).status_code == 201
    run = shown(service, database, run_id)
    assert run["progress"]["percent"] == 99.5
    assert run["progress"]["message"] == "nearly"
    assert run["progress"]["execution"] == execution["id"]
    assert run["result"] == {"rows": 12}
    said = [(e["name"], e["data"]) for e in run["events"] if e["name"].startswith("user.")]
    assert said == [("user.loaded", {"rows": 12, "execution": execution["id"]})]
    with clients.Client(service.url, make_key(database, name="of-client")) as client:
        handle = client.runs.get(run_id)
        assert handle.result == {"rows": 12}
        assert handle.progress is not None
        assert handle.progress["message"] == "nearly"


def test_a_command_sees_that_its_run_is_to_end(
    database: Database, inside: httpx.Client, execution: Row
) -> None:
    with database.write("test") as tx:
        tx.run("UPDATE runs SET end_requested = 'cancel', end_requested_at = {now}")
    assert inside.get(INSIDE).json()["end_requested"] == "cancel"
    assert inside.post(f"{INSIDE}/progress", json={"percent": 1}).status_code == 200


def reports() -> list[tuple[str, str, Any]]:
    return [
        ("GET", INSIDE, None),
        ("POST", f"{INSIDE}/heartbeat", None),
        ("POST", f"{INSIDE}/progress", {"percent": 1}),
        ("POST", f"{INSIDE}/result", 1),
        ("PUT", f"{INSIDE}/result", 1),
        ("POST", f"{INSIDE}/events", {"name": "x"}),
        ("PUT", f"{INSIDE}/artifacts/x", None),
    ]


def left(database: Database) -> str:
    with database.read() as tx:
        tables = ("run_reports", "artifacts", "events", "runs", "executions")
        return str([tx.all(f"SELECT * FROM {table}") for table in tables])


@pytest.mark.parametrize("how", ["exited", "run over", "next start", "told nothing", "forged"])
def test_a_token_dies_with_what_it_was_made_for(
    service: Service, database: Database, how: str
) -> None:
    more = {"runtime_url": None} if how == "told nothing" else {}
    execution = start(database, over=how == "run over", **more)
    token = token_of(database, execution)
    if how in {"exited", "next start"}:
        end(database, execution)
    if how == "next start":
        with database.write("test") as tx:
            run = tx.one("SELECT * FROM runs")
            assert run is not None
            insert_execution(
                tx, run, lease_id=execution["lease_id"], number=2, runtime_url="http://api"
            )
    if how == "forged":
        token = run_tokens.make("another key", execution["id"])
    before = left(database)
    with client_of(service, token) as client:
        for method, path, body in reports():
            answer = client.request(method, path, json=body)
            assert answer.status_code == 401, (how, path)
            assert answer.json()["code"] == "unauthenticated"
    assert left(database) == before


def test_a_report_that_was_let_in_is_refused_if_its_start_ends_first(
    database: Database, execution: Row
) -> None:
    with database.read() as tx:
        speaker = reporting.authenticate(tx, execution["id"])
    end(database, execution)
    event, progress = reporting.EventSpec(name="x"), reporting.ProgressSpec(percent=1)
    late: list[Callable[[Tx], object]] = [
        lambda tx: reporting.beat(tx, speaker),
        lambda tx: reporting.result(tx, speaker, 1, NOTHING),
        lambda tx: reporting.event(tx, speaker, event, NOTHING),
        lambda tx: reporting.progress(tx, speaker, progress, NOTHING),
    ]
    for work in late:
        before = left(database)
        with pytest.raises(reporting.OverError), database.write("test") as tx:
            work(tx)
        assert left(database) == before


def test_a_token_opens_nothing_else(
    service: Service, database: Database, inside: httpx.Client
) -> None:
    for route in ROUTES:
        if route[1].startswith(INSIDE) and not route[1].startswith("/api/v1/runs"):
            continue
        answer = ask(inside, route, fresh(database, route, "default"))
        assert answer.status_code == 403, (route, answer.text)
        assert answer.json()["code"] == "forbidden"
    for path in ("/", "/api/v1", "/api/v1/nowhere", "/api/v1/running", "/metrics"):
        assert inside.get(path).status_code == 403, path
    # What is not there below its own place is not there.
    for path in ("/secrets", "/artifacts", "/other-run", "/events/stream"):
        assert inside.get(INSIDE + path).status_code in {404, 405}, path
    assert MATRIX["GET", "/api/v1/run"].root == 403


def test_what_is_said_of_one_run_is_never_of_another(
    service: Service, database: Database, inside: httpx.Client, execution: Row
) -> None:
    other = start(database)
    assert inside.put(f"{INSIDE}/result", json="mine").status_code == 200
    assert inside.put(f"{INSIDE}/artifacts/mine", content=b"x").status_code == 201
    assert shown(service, database, other["run_id"])["result"] is None
    with database.read() as tx:
        assert artifacts.of_run(tx, other["run_id"]) == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("progress", {}, "percent"),
        ("progress", {"percent": -1}, "percent"),
        ("progress", {"percent": 101}, "percent"),
        ("progress", {"percent": "many"}, "percent"),
        ("progress", {"message": "x" * 501}, "message"),
        ("progress", {"percent": 1, "run_id": "other"}, "run_id"),
        ("events", {"name": "Has Spaces"}, "name"),
        ("events", {"name": ""}, "name"),
        ("events", {"name": "x", "data": [1]}, "data"),
    ],
)
def test_what_is_wrong_is_named(inside: httpx.Client, path: str, body: Any, field: str) -> None:
    answer = inside.post(f"{INSIDE}/{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field


def test_no_report_is_without_a_bound(
    database: Database, inside: httpx.Client, execution: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = "x" * reporting.RESULT_BYTES
    assert inside.put(f"{INSIDE}/result", json=big).status_code == 413
    event = {"name": "x", "data": {"x": "y" * reporting.EVENT_BYTES}}
    assert inside.post(f"{INSIDE}/events", json=event).status_code == 413
    monkeypatch.setattr(reporting, "LINES", 3)
    answers = [inside.post(f"{INSIDE}/events", json={"name": "x"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 413, 413]
    # What is no line goes on.
    assert inside.put(f"{INSIDE}/result", json=1).status_code == 200
    assert inside.put(f"{INSIDE}/artifacts/x", content=b"x").status_code == 201
    with database.read() as tx:
        lines = tx.value(
            "SELECT count(*) FROM events WHERE data IS NOT NULL AND name = 'user.x'"
        )
    assert lines == 3


def test_too_many_reports_are_told_when_to_come_again(
    settings: Settings, database: Database, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_OF_A_RUN_S", 1e-6)
    monkeypatch.setattr(gate, "_OF_A_RUN_BURST", 2)
    other = token_of(database, start(database))
    with serving(settings) as service:
        with client_of(service, token) as client:
            assert [client.get(INSIDE).status_code for _ in range(3)] == [200, 200, 429]
            assert int(client.get(INSIDE).headers["Retry-After"]) >= 1
        with client_of(service, other) as client:
            assert client.get(INSIDE).status_code == 200


def secret_start(database: Database, settings: Settings) -> Row:
    with database.write("test") as tx:
        keys = Keys.load(settings.secret_keys_path)
        version = keeping.put(tx, keys, tenant_id="default", name="word", value=SECRET)
    pins = {"word": version if isinstance(version, int) else 1}
    return start(database, secrets=pins)


def everything(database: Database) -> str:
    with database.read() as tx:
        names = tx.all(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            if tx.dialect == "sqlite"
            else "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"
        )
        return str([tx.all(f"SELECT * FROM {row['name']}") for row in names])


def test_no_secret_and_no_token_comes_into_a_row(
    service: Service, settings: Settings, database: Database
) -> None:
    execution = secret_start(database, settings)
    token = token_of(database, execution)
    said = f"{SECRET} and {token}"
    with client_of(service, token) as client:
        assert client.put(f"{INSIDE}/result", json={said: [said]}).status_code == 200
        body = {"message": said}
        assert client.post(f"{INSIDE}/progress", json=body).status_code == 200
        event = {"name": "x", "data": {"a": {said: said}}}
        assert client.post(f"{INSIDE}/events", json=event).status_code == 201
        path = f"{INSIDE}/artifacts/{run_tokens.secret_part(key_of(database), execution['id'])}"
        assert client.put(path, content=b"x").status_code == 422
    rows = everything(database)
    assert SECRET not in rows
    assert token not in rows
    assert token[-32:] not in rows
    assert "***" in json.dumps(shown(service, database, execution["run_id"]))


def test_who_cannot_hide_a_secret_takes_no_words(
    service: Service, settings: Settings, database: Database
) -> None:
    execution = secret_start(database, settings)
    with database.write("test") as tx:
        tx.run("DELETE FROM secret_versions")
    with client_of(service, token_of(database, execution)) as client:
        assert client.put(f"{INSIDE}/result", json=1).status_code == 409
        assert client.post(f"{INSIDE}/heartbeat").status_code == 200


def test_who_answers_is_proven_without_a_key(service: Service, database: Database) -> None:
    nonce = "0" * 32
    with client_of(service, None) as client:
        answer = client.get(f"{INSIDE}/hello", params={"nonce": nonce})
        assert answer.text == run_tokens.greeting(key_of(database), nonce) + "\n"
        for bad in ("", "0" * 31, "0" * 33, "g" * 32):
            refused = client.get(f"{INSIDE}/hello", params={"nonce": bad})
            assert refused.status_code == 422
        helper = client.get(f"{INSIDE}/helper.sh")
        assert helper.text.startswith("#!/bin/sh")


def test_tokens_that_are_over_are_no_guesses_and_forged_ones_are(
    settings: Settings, database: Database, execution: Row
) -> None:
    token = token_of(database, execution)
    end(database, execution)
    found = settings.model_copy(update={"api_failures_per_minute": 3})
    with serving(found) as service:
        with client_of(service, token) as client:
            assert {client.get(INSIDE).status_code for _ in range(10)} == {401}
        with client_of(service, token[:-1] + "z") as client:
            codes = [client.get(INSIDE).status_code for _ in range(5)]
    assert codes == [401, 401, 401, 429, 429]
