"""Keys of the platform: tenants, hosts and everybody's keys, and no row of any tenant."""

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from api.served import client_of, make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.ids import PLATFORM
from leasehold.store.database import Database
from store.rows import insert_key, insert_lease, insert_run, insert_worker

TENANTS = "/api/v1/tenants"


@pytest.fixture
def root(service: Service, database: Database) -> Iterator[httpx.Client]:
    with client_of(service, make_key(database, Role.ROOT, tenant=PLATFORM)) as client:
        yield client


def test_a_root_key_makes_a_tenant_and_its_first_key(
    root: httpx.Client, service: Service, database: Database
) -> None:
    made = root.post(TENANTS, json={"name": "acme", "limits": {"max_queued": 5}})
    assert made.status_code == 201
    assert made.headers["Location"] == f"{TENANTS}/acme"
    key = root.post(f"{TENANTS}/acme/keys", json={"name": "boss", "role": "admin"}).json()
    with client_of(service, key["key"]) as boss:
        place = {"name": "pad", "provider": "fake"}
        assert boss.post("/api/v1/environments", json=place).status_code == 201
        body = {"environment": "pad", "commands": [{"argv": ["true"]}]}
        assert boss.post("/api/v1/runs", json=body).status_code == 201
        assert [one["name"] for one in boss.get("/api/v1/keys").json()["items"]] == ["boss"]
        shown = root.get(f"{TENANTS}/acme").json()
        assert (shown["running_runs"] + shown["queued_runs"], shown["live_leases"]) == (1, 0)
        assert root.delete(f"{TENANTS}/acme/keys/boss").json()["status"] == "revoked"
        assert boss.get("/api/v1/runs").status_code == 401
    with database.read() as tx:
        events = tx.all(
            "SELECT * FROM events WHERE tenant_id = 'acme' AND name LIKE '%.created'"
        )
    assert root.headers["Authorization"].split("_")[1] not in str(events)
    (by,) = root.get("/api/v1/keys").json()["items"]
    assert f'"key:{by["id"]}"' in events[0]["data"]


def test_a_change_of_limits_leaves_what_is_not_named(root: httpx.Client) -> None:
    limits = {"max_concurrent": 2, "max_queued": 5}
    root.post(TENANTS, json={"name": "acme", "description": "rockets", "limits": limits})
    changed = root.patch(f"{TENANTS}/acme", json={"limits": {"max_queued": None}}).json()
    assert changed["limits"] == {"max_concurrent": 2, "max_queued": None}
    assert changed["description"] == "rockets"
    assert root.patch(f"{TENANTS}/acme", json={"description": ""}).json()["description"] == ""
    for body, field in (
        ({"limits": {"max_queued": 0}}, "limits.max_queued"),
        ({"limits": {"sandboxes": 1}}, "limits.sandboxes"),
        ({"name": "other"}, "name"),
    ):
        refused = root.patch(f"{TENANTS}/acme", json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_an_archived_tenant_takes_no_runs_and_its_keys_stay_valid(
    root: httpx.Client, client: httpx.Client
) -> None:
    body = {"environment": "place", "commands": [{"argv": ["true"]}]}
    run = client.post("/api/v1/runs", json=body).json()["id"]
    assert root.post(f"{TENANTS}/default/archive").json()["status"] == "archived"
    refused = client.post("/api/v1/runs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert client.post("/api/v1/leases", json={"environment": "place"}).status_code == 409
    assert client.post(f"/api/v1/runs/{run}/cancel").status_code == 200
    assert root.post(f"{TENANTS}/default/unarchive").json()["status"] == "active"
    assert client.post("/api/v1/runs", json=body).status_code == 201


def test_root_is_beside_the_tenants_roles_and_not_above_them(
    root: httpx.Client, client: httpx.Client
) -> None:
    refused = root.get("/api/v1/runs")
    assert refused.status_code == 403
    assert "a key of the platform has no tenant" in refused.json()["message"]
    for keys, role in (
        (client.post, "root"),
        (root.post, "admin"),
    ):
        made = keys("/api/v1/keys", json={"name": "x", "role": role})
        assert (made.status_code, made.json()["field"]) == (422, "role")
    of_tenant = root.post(f"{TENANTS}/default/keys", json={"name": "x", "role": "root"})
    assert (of_tenant.status_code, of_tenant.json()["field"]) == (422, "role")
    second = root.post("/api/v1/keys", json={"name": "second"})
    assert second.json()["role"] == "root"


def test_the_platform_is_no_tenant_that_could_be_named(root: httpx.Client) -> None:
    for method, path in (
        ("GET", f"{TENANTS}/{PLATFORM}"),
        ("POST", f"{TENANTS}/{PLATFORM}/unarchive"),
        ("GET", f"{TENANTS}/{PLATFORM}/keys"),
    ):
        assert root.request(method, path).status_code == 422
    made = root.post(TENANTS, json={"name": PLATFORM})
    assert made.status_code == 422
    assert PLATFORM not in {one["name"] for one in root.get(TENANTS).json()["items"]}


def test_the_database_itself_keeps_root_keys_apart(database: Database) -> None:
    for tenant, role in ((PLATFORM, "admin"), ("default", "root")):
        with pytest.raises(sa.exc.IntegrityError), database.write("test") as tx:
            insert_key(tx, tenant_id=tenant, role=role)


def test_a_host_is_drained_and_forgotten_with_consent_to_its_leases(
    root: httpx.Client, client: httpx.Client, database: Database
) -> None:
    with database.write("test") as tx:
        host = insert_worker(tx, "worker-2")["host_id"]
        lease = insert_lease(tx, status="idle", host_id=host)["id"]
        run = insert_run(tx, status="queued", host_id=host)["id"]
    path = f"/api/v1/hosts/{host}"
    assert root.post(f"{path}/drain").json()["draining"] is True
    (seen,) = [one for one in root.get("/api/v1/hosts").json()["items"] if one["id"] == host]
    assert seen["leases"] == 1
    assert all("leases" not in one for one in client.get("/api/v1/hosts").json()["items"])
    assert "is alive" in root.delete(path).json()["message"]
    with database.write("test") as tx:
        tx.run("UPDATE workers SET status = 'gone', gone_at = {now} WHERE host_id = :h", h=host)
        tx.run(
            "UPDATE sessions SET status = 'ended', ended_at = {now} WHERE host_id = :h", h=host
        )
    assert "1 runs that are not over" in root.delete(path).json()["message"]
    assert client.post(f"/api/v1/runs/{run}/cancel").status_code == 200
    for query in ({}, {"confirm": "another"}):
        refused = root.delete(path, params=query)
        assert refused.status_code == 409
        assert f"?confirm={host}" in refused.json()["message"]
    gone = root.delete(path, params={"confirm": host}).json()
    assert (gone["forgotten"], gone["leases_ended"]) == (True, 1)
    assert client.get(f"/api/v1/leases/{lease}").json()["status"] == "failed"
    assert root.delete(path).status_code == 404
    with database.read() as tx:
        events = tx.all("SELECT name FROM events WHERE tenant_id = :t ORDER BY id", t=PLATFORM)
    names = [row["name"] for row in events if row["name"].startswith("host.")]
    assert names == ["host.draining", "host.forgotten"]
