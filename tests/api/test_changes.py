"""PATCH of an environment: merged, checked anew, and told by the names of fields alone."""

from typing import Any

import httpx
import pytest

from api.served import client_of, make_key
from command_line import serve
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store import environments
from leasehold.store.database import Database
from store.rows import insert_held, insert_lease, insert_run

LAB = "/api/v1/environments/lab"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string"},
        "size": {"type": "integer"},
        "net": {"type": "object"},
        "token": {"type": "object", "x-secret": True},
    },
}


@pytest.fixture
def lab(client: httpx.Client, database: Database) -> httpx.Client:
    with database.write("test") as tx:
        host = tx.value("SELECT host_id FROM providers WHERE key = 'fake'")
        serve(tx, key="fake", host_id=host, schema=SCHEMA)
        schema: dict[str, Any] = {"type": "object", "properties": {"where": {"type": "string"}}}
        schema |= {"required": ["where"], "additionalProperties": False}
        serve(tx, key="cloud", host_id=host, schema=schema)
    body = {
        "name": "lab",
        "provider": "fake",
        "config": {"image": "one", "size": 1, "net": {"a": 1, "b": {"c": 2}}},
        "env": {"A": "1", "T": {"secret": "old"}},
        "limits": {"max_concurrent": 3},
        "idle_ttl_s": "10m",
        "description": "rockets",
    }
    assert client.post("/api/v1/environments", json=body).status_code == 201
    return client


def spec_of(database: Database) -> Any:
    with database.read() as tx:
        return environments.get(tx, "lab", tenant_id="default")["spec"]


def events_of(database: Database) -> list[str]:
    with database.read() as tx:
        return [r["data"] for r in tx.all("SELECT * FROM events WHERE name LIKE '%.changed'")]


@pytest.mark.parametrize(
    ("patch", "field", "value", "changed"),
    [
        (
            {"config": {"image": "two", "net": {"b": {"c": None, "d": 4}}}},
            "config",
            {"image": "two", "size": 1, "net": {"a": 1, "b": {"d": 4}}},
            ["config.image", "config.net"],
        ),
        (
            {"config": {"size": None, "net": None}},
            "config",
            {"image": "one"},
            ["config.net", "config.size"],
        ),
        ({"config": None}, "config", {}, ["config.image", "config.net", "config.size"]),
        (
            {"env": {"A": None, "B": "2", "T": {"secret": "new"}}},
            "env",
            {"B": "2", "T": {"secret": "new"}},
            ["env.A", "env.B", "env.T"],
        ),
        (
            {"limits": {"max_concurrent": None}},
            "limits",
            {"max_concurrent": None},
            ["limits.max_concurrent"],
        ),
        ({"idle_ttl_s": None}, "idle_ttl_s", None, ["idle_ttl_s"]),
        ({"description": None}, "description", "", ["description"]),
        (
            {"policy": "reuse_by_environment"},
            "policy",
            "reuse_by_environment",
            ["policy"],
        ),
        ({"requires": {"gpu": "1"}}, "requires", {"gpu": "1"}, ["requires.gpu"]),
        (
            {"provider": "cloud", "config": {"where": "north"}},
            "config",
            {"where": "north"},
            [
                "config.image",
                "config.net",
                "config.size",
                "config.where",
                "provider",
            ],
        ),
    ],
    ids=str,
)
def test_what_is_given_is_merged_and_null_removes(
    lab: httpx.Client,
    database: Database,
    patch: Any,
    field: str,
    value: Any,
    changed: list[str],
) -> None:
    before = spec_of(database)
    answer = lab.patch(LAB, json=patch)
    assert answer.status_code == 200, answer.text
    assert answer.json()["changed"] == changed
    after = spec_of(database)
    assert after[field] == value
    others = {name for name in before if before[name] != after[name]}
    assert others == {name.partition(".")[0] for name in changed}
    (event,) = events_of(database)
    assert all(name in event for name in changed)
    assert not any(text in event for text in ("north", "two", '"new"', "rockets"))
    assert lab.patch(LAB, json=patch).json()["changed"] == []
    assert len(events_of(database)) == 1, "what changes nothing is no change"


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"config": {"size": "big"}}, "config.size"),
        ({"config": {"colour": 1}}, "config.colour"),
        ({"config": {"token": "plain"}}, "config.token"),
        ({"provider": "cloud"}, "config"),
        ({"provider": "nowhere"}, "provider"),
        ({"provider": None}, "provider"),
        ({"env": {"LD_PRELOAD": "x"}}, "env.LD_PRELOAD"),
        ({"env": {"A": 1}}, "env.A"),
        ({"limits": {"max_concurrent": 0}}, "limits.max_concurrent"),
        ({"name": "other"}, "name"),
        ({"status": "archived"}, "status"),
        ([], "body"),
    ],
    ids=str,
)
def test_what_would_be_wrong_is_refused_and_nothing_changes(
    lab: httpx.Client, database: Database, patch: Any, field: str
) -> None:
    before = spec_of(database)
    answer = lab.patch(LAB, json=patch)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field, answer.text
    assert spec_of(database) == before
    assert events_of(database) == []


def test_what_waits_goes_to_the_new_provider_and_what_is_on_its_way_hinders(
    lab: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        place = tx.value("SELECT id FROM environments WHERE name = 'lab'")
        waits = insert_run(tx, status="queued", environment_id=place)["id"]
        kept = insert_lease(tx, status="idle", environment_id=place)["id"]
        named = insert_run(tx, status="queued", environment_id=place, wanted_lease_id=kept)[
            "id"
        ]
        held, _ = insert_held(tx, environment_id=place)
        coming = insert_run(tx, status="running", environment_id=place)["id"]
    patch = {"provider": "cloud", "config": {"where": "north"}}
    refused = lab.patch(LAB, json=patch)
    assert refused.status_code == 409
    assert "1 runs are on their way to fake" in refused.json()["message"]
    assert lab.patch(LAB, json={"limits": {"max_concurrent": 9}}).status_code == 200
    with database.write("test") as tx:
        tx.run("DELETE FROM events WHERE run_id = :id", id=coming)
        tx.run("DELETE FROM runs WHERE id = :id", id=coming)
    assert lab.patch(LAB, json=patch).status_code == 200
    with database.read() as tx:
        rows = {row["id"]: row["provider"] for row in tx.all("SELECT * FROM runs")}
        most = tx.value("SELECT max_concurrent FROM environments WHERE name = 'lab'")
    assert rows == {waits: "cloud", named: "fake", held["id"]: "fake"}
    assert most == 9


def test_who_wants_to_delete_sees_first_what_that_touches(
    lab: httpx.Client, database: Database, service: Service
) -> None:
    assert lab.get(f"{LAB}/blast-radius").json() == {
        "unfinished_runs": 0,
        "live_leases": 0,
        "held_leases": 0,
        "runs": {},
        "leases": {},
    }
    with database.write("test") as tx:
        place = tx.value("SELECT id FROM environments WHERE name = 'lab'")
        for status in ("queued", "queued", "failed"):
            insert_run(tx, status=status, environment_id=place)
        insert_lease(tx, status="idle", environment_id=place, held_until=2**60)
        insert_lease(tx, status="retained", environment_id=place)
    with client_of(service, make_key(database, Role.VIEWER)) as viewer:
        assert viewer.get(f"{LAB}/blast-radius").json() == {
            "unfinished_runs": 2,
            "live_leases": 2,
            "held_leases": 1,
            "runs": {"queued": 2},
            "leases": {"idle": 1, "retained": 1},
        }
    for confirm in ("true", "2", "lab2", ""):
        assert lab.delete(LAB, params={"confirm": confirm}).status_code == 409
    assert lab.delete(LAB, params={"confirm": "lab"}).json()["deleted"] is True


def test_a_viewer_sees_no_value_of_what_was_changed(
    lab: httpx.Client, service: Service, database: Database
) -> None:
    lab.patch(LAB, json={"config": {"image": "hidden-one"}, "env": {"A": "hidden-two"}})
    with client_of(service, make_key(database, Role.VIEWER)) as viewer:
        seen = viewer.get(LAB).text + viewer.get("/api/v1/environments").text
    assert "hidden" not in seen
    assert "hidden-one" in lab.get(LAB).text
    assert "hidden-two" not in lab.get(LAB).text
