"""Environments, leases and the fleet over HTTP: who sees what, and what changes."""

from typing import Any

import httpx
import pytest

from api.served import client_of, make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store import views
from leasehold.store.database import Database
from store.rows import insert_held, insert_lease, insert_run

ENVIRONMENTS = "/api/v1/environments"
LEASES = "/api/v1/leases"


def refused(answer: httpx.Response, status: int, field: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    return str(answer.json()["message"])


def events_of(database: Database, name: str) -> list[dict[str, Any]]:
    with database.read() as tx:
        return tx.all("SELECT data FROM events WHERE name = :name", name=name)


def test_an_environment_is_made_put_aside_taken_up_and_deleted(
    client: httpx.Client, database: Database
) -> None:
    body = {"name": "lab", "provider": "fake", "config": {"image": "a"}, "env": {"A": "1"}}
    made = client.post(ENVIRONMENTS, json=body)
    assert made.status_code == 201, made.text
    shown = client.get(made.headers["Location"]).json()
    assert shown["config"] == {"image": "a"}
    assert shown["env_names"] == ["A"]
    assert (shown["unfinished_runs"], shown["live_leases"]) == (0, 0)
    assert client.get(f"{ENVIRONMENTS}/{shown['id']}").json() == shown
    archived = client.post(f"{ENVIRONMENTS}/lab/archive").json()
    assert archived["status"] == "archived"
    run = {"environment": "lab", "commands": [{"argv": ["true"]}]}
    assert "archived" in refused(client.post("/api/v1/runs", json=run), 409)
    assert client.post(f"{ENVIRONMENTS}/lab/archive").status_code == 200
    assert client.post(f"{ENVIRONMENTS}/lab/unarchive").json()["status"] == "active"
    assert client.delete(f"{ENVIRONMENTS}/lab").json()["deleted"] is True
    assert client.get(f"{ENVIRONMENTS}/lab").status_code == 404
    for name in ("environment.active", "environment.archived", "environment.deleted"):
        data = [event["data"] for event in events_of(database, name)]
        assert any('"lab"' in str(each) and "key:" in str(each) for each in data), name


def test_a_wrong_environment_is_refused_by_field(client: httpx.Client) -> None:
    good = {"name": "lab", "provider": "fake"}
    for changes, status, field in (
        ({"name": "place"}, 409, None),
        ({"name": "a/b"}, 422, "name"),
        ({"provider": "nowhere"}, 422, "provider"),
        ({"config": []}, 422, "config"),
        ({"policy": "hoard"}, 422, "policy"),
        ({"colour": "red"}, 422, "colour"),
        ({"limits": {"max_concurrent": 0}}, 422, "limits.max_concurrent"),
    ):
        refused(client.post(ENVIRONMENTS, json=good | changes), status, field)


def test_what_is_nested_too_deeply_is_refused(client: httpx.Client) -> None:
    for depth in (65, 900, 100_000):
        content = b'{"name":"deep","provider":"fake","config":{"a":' + b"[" * depth
        content += b"]" * depth + b"}}"
        headers = {"Content-Type": "application/json"}
        refused(client.post(ENVIRONMENTS, content=content, headers=headers), 422, "body")


def test_deleting_what_is_in_use_says_how_much_and_wants_consent(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
        insert_run(tx, status="queued", environment_id=place)
        insert_lease(tx, status="retained", environment_id=place)
    words = refused(client.delete(f"{ENVIRONMENTS}/place"), 409)
    assert "1 unfinished runs and 1 live leases" in words
    assert "?confirm=place" in words
    gone = client.delete(f"{ENVIRONMENTS}/place", params={"confirm": "place"}).json()
    assert (gone["unfinished_runs"], gone["live_leases"]) == (1, 1)
    with database.write("test") as tx:
        tx.run("DELETE FROM runs")
        tx.run("DELETE FROM events")
        tx.run("DELETE FROM leases")


def test_environments_are_found_by_status_and_provider(client: httpx.Client) -> None:
    client.post(ENVIRONMENTS, json={"name": "old", "provider": "fake"})
    client.post(f"{ENVIRONMENTS}/old/archive")

    def found(**params: str) -> list[str]:
        return [e["name"] for e in client.get(ENVIRONMENTS, params=params).json()["items"]]

    assert found() == ["old", "place"]
    assert found(status="active") == ["place"]
    assert found(status="archived") == ["old"]
    assert found(provider="ssh") == []
    refused(client.get(ENVIRONMENTS, params={"status": "lost"}), 422, "status")


def test_a_viewer_sees_names_of_a_config_and_nobody_values_of_variables(
    client: httpx.Client, service: Service, database: Database
) -> None:
    body = {"name": "lab", "provider": "fake", "config": {"image": "quiet"}}
    client.post(ENVIRONMENTS, json=body | {"env": {"PASS": "loud"}})
    facts = {"v": 1, "config": {"image": "quiet"}, "environment_env": {"PASS": "loud"}}
    with database.write("test") as tx:
        row = insert_lease(tx, status="idle", facts=facts)
    lease, shown = row["id"], views.lease_view(row)["metadata"]
    assert shown["environment_env_names"] == ["PASS"]
    assert "loud" not in str(shown)
    with client_of(service, make_key(database, Role.VIEWER)) as viewer:
        for path in (f"{ENVIRONMENTS}/lab", ENVIRONMENTS, f"{LEASES}/{lease}", LEASES):
            seen, all_of_it = viewer.get(path).text, client.get(path).text
            assert "loud" not in seen + all_of_it
            assert "PASS" in seen
            assert "quiet" in all_of_it
            assert "quiet" not in seen
            assert '"image":"***"' in seen


def test_a_lease_is_made_to_be_held(client: httpx.Client) -> None:
    made = client.post(LEASES, json={"environment": "place", "ttl_s": "10m"})
    assert made.status_code == 201, made.text
    lease = made.json()
    assert (lease["status"], lease["environment"]) == ("acquiring", "place")
    assert lease["held_until"] is not None
    assert client.get(made.headers["Location"]).json()["id"] == lease["id"]
    run = {"lease_id": lease["id"], "commands": [{"argv": ["true"]}]}
    assert client.post("/api/v1/runs", json=run).status_code == 201
    refused(client.post(LEASES, json={"environment": "place", "ttl_s": 0}), 422, "ttl_s")
    refused(client.post(LEASES, json={"environment": "nowhere"}), 404)
    client.post(f"{ENVIRONMENTS}/place/archive")
    assert "archived" in refused(client.post(LEASES, json={"environment": "place"}), 409)


def test_an_admin_makes_lists_and_revokes_keys(client: httpx.Client, service: Service) -> None:
    made = client.post("/api/v1/keys", json={"name": "ci", "role": "operator"})
    assert made.status_code == 201, made.text
    key = made.json()["key"]
    with client_of(service, key) as operator:
        assert operator.get("/api/v1/version").status_code == 200
        assert operator.get("/api/v1/keys").status_code == 403
        listed = client.get("/api/v1/keys")
        assert [item["name"] for item in listed.json()["items"]] == ["ci", "default-admin"]
        assert key.rsplit("_", 1)[-1] not in listed.text
        assert client.delete("/api/v1/keys/ci").json()["status"] == "revoked"
        assert operator.get("/api/v1/version").status_code == 401
    refused(client.delete("/api/v1/keys/ci"), 404)
    refused(client.post("/api/v1/keys", json={"name": "ci", "role": "root"}), 422, "role")
    refused(client.post("/api/v1/keys", json={"name": "default-admin"}), 409)


def test_leases_come_in_pages_and_by_status(client: httpx.Client, database: Database) -> None:
    with database.write("test") as tx:
        ids = [insert_lease(tx, status=s)["id"] for s in ("idle", "released", "retained")]

    def found(**params: Any) -> list[str]:
        return [lease["id"] for lease in client.get(LEASES, params=params).json()["items"]]

    assert found() == ids[::-1]
    assert found(live=True) == [ids[2], ids[0]]
    assert found(status=["idle", "released"]) == [ids[1], ids[0]]
    first = client.get(LEASES, params={"limit": 2}).json()
    assert found(limit=2, cursor=first["next"]) == [ids[0]]
    for cursor in ("e30", "WzEyMzQ1Njc4OTAxMjM0NTY3ODkwMTJd", first["next"] + "x"):
        refused(client.get(LEASES, params={"cursor": cursor}), 422, "cursor")


def test_a_lease_is_given_back_or_kept_and_history_names_who_asked(
    client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        idle, kept = (insert_lease(tx, status="idle")["id"] for _ in range(2))
        _, held = insert_held(tx)
    given = client.post(f"{LEASES}/{idle}/release").json()
    assert (given["status"], given["mode"]) == ("releasing", "destroy")
    assert given["reason"].startswith("asked by key:")
    assert client.post(f"{LEASES}/{idle}/release").status_code == 200
    assert client.post(f"{LEASES}/{kept}/retain").json()["mode"] == "keep"
    assert "in use by run" in refused(client.post(f"{LEASES}/{held['id']}/release"), 409)
    asked = client.post(f"{LEASES}/{held['id']}/retain").json()
    again = client.post(f"{LEASES}/{held['id']}/retain").json()
    names = [event["name"] for event in again["events"]]
    assert names.count("lease.retain_requested") == 1
    assert asked["events"][-1]["data"]["actor"].startswith("key:")


def test_the_fleet_is_shown_without_what_others_use(client: httpx.Client) -> None:
    (provider,) = client.get("/api/v1/providers").json()["items"]
    assert provider["key"] == "fake"
    assert client.get("/api/v1/providers/fake").json() == provider
    assert "there are: fake" in refused(client.get("/api/v1/providers/ssh"), 404)
    (worker,) = client.get("/api/v1/workers").json()["items"]
    assert (worker["status"], worker["providers"]) == ("ready", ["fake"])
    (host,) = client.get("/api/v1/hosts", params={}).json()["items"]
    assert host["live"] is True
    assert "leases" not in host
    refused(client.get("/api/v1/workers", params={"gone": "perhaps"}), 422, "gone")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_stranger_tenant_has_an_empty_house(service: Service, database: Database) -> None:
    with client_of(service, make_key(database, tenant="other")) as other:
        for path in (ENVIRONMENTS, LEASES, "/api/v1/runs"):
            assert other.get(path).json() == {"items": [], "next": None}
