"""
Who may do what: every route, for every role, on own and foreign rows, with bad keys.

`MATRIX` states the expected answers. A route without a row there fails, and so does a row
without a route.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from api.routes import MATRIX, OTHER
from api.served import client_of, make_key
from leasehold.api.gate import OPEN, is_page
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.ids import PLATFORM
from leasehold.store.database import Database
from store.rows import (
    insert_key,
    insert_lease,
    insert_run,
)

OWN: Final = {role: PLATFORM if role is Role.ROOT else "default" for role in Role}
"""Whose keys have the role."""

FOREIGN: Final = 404
ROUTES: Final = sorted(MATRIX)


def routes_of(service: Service) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(service.application.routes):
        for method in (context.methods or set()) - {"HEAD"}:
            yield method, str(context.path)


def test_every_route_has_its_row_and_every_row_its_route(service: Service) -> None:
    assert {
        route for route in routes_of(service) if route[1] not in OPEN and not is_page(route[1])
    } == set(MATRIX)


def ask(client: httpx.Client, route: tuple[str, str], ids: Mapping[str, str]) -> httpx.Response:
    method, path = route
    row = MATRIX[route]
    path = path.replace("{path:path}", "x").format(**ids)
    return client.request(method, path, json=row.body, params=row.query)


def fresh(database: Database, route: tuple[str, str], tenant: str) -> dict[str, str]:
    with database.write("test") as tx:
        return MATRIX[route].make(tx, tenant)


def everything(database: Database) -> str:
    with database.read() as tx:
        # Not the keys as a whole: those of who asks are used.
        tables = ("runs", "leases", "environments", "events", "schedules", "webhooks")
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
            assert client.get(path, params={"nonce": "0" * 32}).status_code == 200
