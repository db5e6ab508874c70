"""
Who may do what: every route, for every role, on own and foreign rows, with bad keys.

`MATRIX` states the expected answers. A route without a row there fails, and so does a row
without a route.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from api.served import client_of, make_key
from leasehold.api.gate import OPEN
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.domain.specs import EnvironmentSpec
from leasehold.ids import PLATFORM, new_id
from leasehold.orchestrator import submit, tenants
from leasehold.store import hosts, secrets
from leasehold.store.database import Database, Tx
from store.rows import insert_key, insert_lease, insert_run, insert_schedule

OTHER: Final = "other"
OWN: Final = {role: PLATFORM if role is Role.ROOT else "default" for role in Role}
"""Whose keys have the role."""

Make = Callable[[Tx, str], dict[str, str]]
COMMANDS: Final = [{"argv": ["true"]}]


def nothing(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {}


def run(status: str) -> Make:
    """Make a run in an environment that there is."""

    def make(tx: Tx, tenant: str) -> dict[str, str]:
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
        row = insert_run(tx, status=status, tenant_id=tenant, environment_id=place)
        return {"run_id": row["id"]}

    return make


def place(tx: Tx, tenant: str) -> dict[str, str]:
    name = f"of-{tenant}-{new_id()}"
    spec = EnvironmentSpec(name=name, provider="fake")
    row = submit.create_environment(tx, spec, tenant_id=tenant)
    return {"name": row["id"] if tenant == OTHER else name}


def lease(tx: Tx, tenant: str) -> dict[str, str]:
    return {"lease_id": insert_lease(tx, status="idle", tenant_id=tenant)["id"]}


def anything(tx: Tx, tenant: str) -> dict[str, str]:
    return {"row_id": lease(tx, tenant)["lease_id"]}


def key(tx: Tx, tenant: str) -> dict[str, str]:
    role = "root" if tenant == PLATFORM else "viewer"
    return {"key": insert_key(tx, tenant_id=tenant, role=role)["id"]}


def secret(tx: Tx, tenant: str) -> dict[str, str]:
    name = f"of-{tenant}-{new_id()}"
    version = secrets.put(tx, tenant_id=tenant, name=name)
    secrets.insert_version(
        tx, tenant_id=tenant, name=name, version=version, key_id="k", ciphertext=""
    )
    return {"name": name}


def no_secrets(tx: Tx, _tenant: str) -> dict[str, str]:
    """Leave nothing to encrypt anew: what `secret` makes is no ciphertext."""
    tx.run("DELETE FROM secret_versions")
    return {}


def fresh_name(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {"name": new_id()}


def schedule(tx: Tx, tenant: str) -> dict[str, str]:
    row = insert_schedule(tx, name=f"of-{tenant}-{new_id()}", tenant_id=tenant)
    return {"schedule": row["id"]}


def provider(_tx: Tx, _tenant: str) -> dict[str, str]:
    return {"key": "fake"}


def host(tx: Tx, _tenant: str) -> dict[str, str]:
    """Make a host that nobody needs any more."""
    host_id = new_id()
    hosts.upsert_host(tx, host_id, name=f"host-{host_id}", capacity=1, labels={})
    return {"host_id": host_id}


def tenant(tx: Tx, _tenant: str) -> dict[str, str]:
    spec = tenants.TenantSpec(name=new_id())
    return {"tenant": tenants.create(tx, spec, actor="test")["id"]}


def key_of_tenant(tx: Tx, _tenant: str) -> dict[str, str]:
    of = tenant(tx, _tenant)
    return of | key(tx, of["tenant"])


@dataclass(frozen=True)
class Row:
    """What a route answers: to each role about its own tenant's row, and about another's."""

    viewer: int
    operator: int
    admin: int
    root: int
    make: Make = nothing
    """Makes the row that the path names; without one there is nothing foreign to name."""

    body: Any = None
    shared: bool = False
    """What the path names is no tenant's: there is nothing foreign."""

    def of(self, role: Role) -> int:
        return int(getattr(self, role.value))


MATRIX: Final[Mapping[tuple[str, str], Row]] = {
    ("GET", "/api/v1/openapi.json"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/version"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/me"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/ids"): Row(200, 200, 200, 403),
    ("GET", "/api/v1/explain/{row_id}"): Row(200, 200, 200, 403, anything),
    ("POST", "/api/v1/runs"): Row(
        403, 201, 201, 403, body={"environment": "place", "commands": COMMANDS}
    ),
    ("POST", "/api/v1/runs/batch"): Row(
        403, 200, 200, 403, body={"runs": [{"environment": "place", "commands": COMMANDS}]}
    ),
    ("POST", "/api/v1/runs/bulk"): Row(
        403, 200, 200, 403, body={"action": "cancel", "dry_run": True}
    ),
    ("GET", "/api/v1/runs"): Row(200, 200, 200, 403),
    ("GET", "/api/v1/runs/{run_id}"): Row(200, 200, 200, 403, run("queued")),
    ("GET", "/api/v1/runs/{run_id}/events"): Row(200, 200, 200, 403, run("queued")),
    ("GET", "/api/v1/runs/{run_id}/artifacts"): Row(200, 200, 200, 403, run("queued")),
    ("GET", "/api/v1/runs/{run_id}/output"): Row(200, 200, 200, 403, run("queued")),
    # Of a run that is over: such a stream ends by itself.
    ("GET", "/api/v1/runs/{run_id}/events/stream"): Row(200, 200, 200, 403, run("failed")),
    ("GET", "/api/v1/runs/{run_id}/output/stream"): Row(200, 200, 200, 403, run("failed")),
    ("POST", "/api/v1/runs/{run_id}/cancel"): Row(403, 200, 200, 403, run("queued")),
    ("POST", "/api/v1/runs/{run_id}/extend"): Row(
        403, 200, 200, 403, run("queued"), body={"deadline_s": "2h"}
    ),
    ("POST", "/api/v1/runs/{run_id}/retry"): Row(403, 201, 201, 403, run("failed")),
    ("POST", "/api/v1/runs/{run_id}/resume"): Row(403, 200, 200, 403, run("parked")),
    ("GET", "/api/v1/environments"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/environments"): Row(
        403, 403, 201, 403, body={"name": "new", "provider": "fake"}
    ),
    ("GET", "/api/v1/environments/{name}"): Row(200, 200, 200, 403, place),
    ("PATCH", "/api/v1/environments/{name}"): Row(
        403, 403, 200, 403, place, body={"description": "another"}
    ),
    ("GET", "/api/v1/environments/{name}/blast-radius"): Row(200, 200, 200, 403, place),
    ("POST", "/api/v1/environments/{name}/archive"): Row(403, 403, 200, 403, place),
    ("POST", "/api/v1/environments/{name}/unarchive"): Row(403, 403, 200, 403, place),
    ("DELETE", "/api/v1/environments/{name}"): Row(403, 403, 200, 403, place),
    ("GET", "/api/v1/leases"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/leases"): Row(403, 201, 201, 403, body={"environment": "place"}),
    ("GET", "/api/v1/leases/{lease_id}"): Row(200, 200, 200, 403, lease),
    ("POST", "/api/v1/leases/{lease_id}/release"): Row(403, 200, 200, 403, lease),
    ("POST", "/api/v1/leases/{lease_id}/retain"): Row(403, 200, 200, 403, lease),
    ("GET", "/api/v1/providers"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/providers/{key}"): Row(200, 200, 200, 200, provider, shared=True),
    ("GET", "/api/v1/workers"): Row(200, 200, 200, 200),
    ("GET", "/api/v1/hosts"): Row(200, 200, 200, 200),
    ("POST", "/api/v1/hosts/{host_id}/drain"): Row(403, 403, 403, 200, host, shared=True),
    ("DELETE", "/api/v1/hosts/{host_id}"): Row(403, 403, 403, 200, host, shared=True),
    ("GET", "/api/v1/tenants"): Row(403, 403, 403, 200),
    ("POST", "/api/v1/tenants"): Row(403, 403, 403, 201, body={"name": "new"}),
    ("GET", "/api/v1/tenants/{tenant}"): Row(403, 403, 403, 200, tenant, shared=True),
    ("PATCH", "/api/v1/tenants/{tenant}"): Row(
        403, 403, 403, 200, tenant, body={"limits": {"max_queued": 9}}, shared=True
    ),
    ("POST", "/api/v1/tenants/{tenant}/archive"): Row(403, 403, 403, 200, tenant, shared=True),
    ("POST", "/api/v1/tenants/{tenant}/unarchive"): Row(
        403, 403, 403, 200, tenant, shared=True
    ),
    ("GET", "/api/v1/tenants/{tenant}/keys"): Row(403, 403, 403, 200, tenant, shared=True),
    ("POST", "/api/v1/tenants/{tenant}/keys"): Row(
        403, 403, 403, 201, tenant, body={"name": "first", "role": "admin"}, shared=True
    ),
    ("DELETE", "/api/v1/tenants/{tenant}/keys/{key}"): Row(
        403, 403, 403, 200, key_of_tenant, shared=True
    ),
    ("GET", "/api/v1/secrets"): Row(200, 200, 200, 403),
    ("GET", "/api/v1/secrets/{name}"): Row(200, 200, 200, 403, secret),
    ("PUT", "/api/v1/secrets/{name}"): Row(
        403, 403, 200, 403, fresh_name, body={"value": "hush-hush"}, shared=True
    ),
    ("DELETE", "/api/v1/secrets/{name}"): Row(403, 403, 200, 403, secret),
    ("POST", "/api/v1/secrets/rotate"): Row(403, 403, 403, 200, no_secrets),
    ("GET", "/api/v1/keys"): Row(403, 403, 200, 200),
    ("POST", "/api/v1/keys"): Row(403, 403, 201, 201, body={"name": "another"}),
    ("DELETE", "/api/v1/keys/{key}"): Row(403, 403, 200, 200, key),
    ("GET", "/api/v1/retention"): Row(200, 200, 200, 403),
    ("PUT", "/api/v1/retention"): Row(403, 403, 200, 403, body={"runs_s": "10d"}),
    ("GET", "/api/v1/schedules"): Row(200, 200, 200, 403),
    ("POST", "/api/v1/schedules"): Row(
        403,
        201,
        201,
        403,
        body={
            "name": "new",
            "cron": "0 0 1 1 *",
            "environment": "place",
            "run": {"commands": COMMANDS},
        },
    ),
    ("GET", "/api/v1/schedules/{schedule}"): Row(200, 200, 200, 403, schedule),
    ("POST", "/api/v1/schedules/{schedule}/pause"): Row(403, 200, 200, 403, schedule),
    ("POST", "/api/v1/schedules/{schedule}/resume"): Row(403, 200, 200, 403, schedule),
    ("DELETE", "/api/v1/schedules/{schedule}"): Row(403, 200, 200, 403, schedule),
}
FOREIGN: Final = 404
ROUTES: Final = sorted(MATRIX)


def routes_of(service: Service) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(service.application.routes):
        for method in (context.methods or set()) - {"HEAD"}:
            yield method, str(context.path)


def test_every_route_has_its_row_and_every_row_its_route(service: Service) -> None:
    assert {route for route in routes_of(service) if route[1] not in OPEN} == set(MATRIX)


def ask(client: httpx.Client, route: tuple[str, str], ids: Mapping[str, str]) -> httpx.Response:
    method, path = route
    body = MATRIX[route].body
    return client.request(method, path.format(**ids), json=body)


def fresh(database: Database, route: tuple[str, str], tenant: str) -> dict[str, str]:
    with database.write("test") as tx:
        return MATRIX[route].make(tx, tenant)


def everything(database: Database) -> str:
    with database.read() as tx:
        # Not the keys as a whole: those of who asks are used.
        tables = ("runs", "leases", "environments", "events", "schedules")
        rows = [tx.all(f"SELECT * FROM {table} ORDER BY id") for table in tables]
        revoked = tx.all("SELECT id, revoked_at FROM api_keys ORDER BY id")
        named = tx.all("SELECT * FROM secrets ORDER BY tenant_id, name")
        return str([*rows, revoked, named])


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_do_what_the_matrix_says(
    service: Service, database: Database, role: Role
) -> None:
    with client_of(service, make_key(database, role, tenant=OWN[role])) as client:
        for route in ROUTES:
            answer = ask(client, route, fresh(database, route, OWN[role]))
            assert answer.status_code == MATRIX[route].of(role), (route, answer.text)
            if answer.status_code == 403:
                assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("role", list(Role))
def test_a_row_of_another_tenant_is_not_there_and_stays_as_it_is(
    service: Service, database: Database, role: Role
) -> None:
    with client_of(service, make_key(database, role, tenant=OWN[role])) as client:
        make_key(database, tenant=OTHER)
        for route in ROUTES:
            ids = fresh(database, route, OTHER)
            with database.write("test") as tx:
                shown = {insert_run(tx, tenant_id=OTHER)["id"]}
                shown.add(insert_lease(tx, status="idle", tenant_id=OTHER)["id"])
                shown.add(insert_key(tx, tenant_id=OTHER)["id"])
            before = everything(database)
            answer = ask(client, route, ids)
            assert not any(row in answer.text for row in shown), route
            if not ids or MATRIX[route].shared:
                continue
            allowed = MATRIX[route].of(role) != 403
            assert answer.status_code == (FOREIGN if allowed else 403), (route, answer.text)
            # It says no more than of a row that is nowhere.
            nowhere = ask(client, route, dict.fromkeys(ids, "nowhere"))
            name = next(iter(ids.values()))
            assert {**answer.json(), "request_id": ""} == {
                **nowhere.json(),
                "message": nowhere.json()["message"].replace("nowhere", name),
                "request_id": "",
            }
            assert everything(database) == before, route


def bad_keys(database: Database) -> dict[str, str | None]:
    """Return an `Authorization` header for each way of having no valid key."""
    key, expired, revoked = (make_key(database, name=f"k{n}") for n in range(3))
    with database.write("test") as tx:
        tx.run("UPDATE api_keys SET expires_at = {now} WHERE name = 'k1'")
        tx.run("UPDATE api_keys SET revoked_at = {now} WHERE name = 'k2'")
    changed = key[:-1] + ("B" if key[-1] == "A" else "A")
    return {
        "none": None,
        "empty": "",
        "scheme alone": "Bearer",
        "no scheme": key,
        "another scheme": f"Basic {key}",
        "malformed": "Bearer lh_nonsense",
        "unknown": f"Bearer lh_{'0' * 16}_{'A' * 43}",
        "another secret": f"Bearer {changed}",
        "two": f"Bearer {key} {key}",
        "expired": f"Bearer {expired}",
        "revoked": f"Bearer {revoked}",
    }


def test_without_a_valid_key_nothing_is_told_of_any_path(
    service: Service, database: Database
) -> None:
    paths = [*ROUTES, ("GET", "/api/v1/nowhere"), ("DELETE", "/api/v1/version"), ("GET", "/")]
    with client_of(service, None) as client:
        for kind, header in bad_keys(database).items():
            headers = {} if header is None else {"Authorization": header}
            for method, path in paths:
                answer = client.request(method, path, headers=headers, content=b"{no json")
                assert answer.status_code == 401, (kind, method, path)
                assert answer.json()["code"] == "unauthenticated"
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_who_asks_for_our_health_needs_no_key(service: Service) -> None:
    with client_of(service, None) as client:
        for path in OPEN:
            assert client.get(path).status_code == 200
