"""Who may see and do what on pages: every one, for every role, on own and foreign rows."""

from collections.abc import Mapping
from typing import Final

import httpx
import pytest

from api.browsing import ROOT, Browser, browsing
from api.routes import OTHER, Row, host, lease, nothing, place, provider, run
from api.served import make_key
from api.test_matrix import OWN, everything, routes_of
from leasehold.api.gate import is_page
from leasehold.api.serving import Service
from leasehold.domain import likeness
from leasehold.domain.roles import Role
from leasehold.ids import new_id
from leasehold.store.database import Database, Tx
from store.rows import insert_lease, insert_run


def failed(tx: Tx, tenant: str) -> dict[str, str]:
    """Make a failed run of a kind of its own."""
    message = "".join(letter for letter in new_id() if letter.isalpha()) + tenant
    insert_run(tx, status="failed", tenant_id=tenant, code="command_failed", message=message)
    own = likeness.fingerprint("command_failed", None, "true", message)
    return {"fingerprint": own}


MATRIX: Final[Mapping[tuple[str, str], Row]] = {
    ("GET", ""): Row(200, 200, 200, 303),
    ("GET", "/sign-in"): Row(200, 200, 200, 200),
    ("POST", "/sign-in"): Row(401, 401, 401, 401),
    ("GET", "/static/{name}"): Row(
        200, 200, 200, 200, lambda _tx, _tenant: {"name": "style.css"}, shared=True
    ),
    ("GET", "/live"): Row(200, 200, 200, 200),
    ("GET", "/runs"): Row(200, 200, 200, 403),
    ("POST", "/runs/bulk"): Row(403, 200, 200, 403, body={"action": "cancel"}),
    ("POST", "/runs/bulk/do"): Row(
        403, 422, 422, 403, body={"action": "cancel", "mark": "none of ours"}
    ),
    ("GET", "/new-run"): Row(403, 200, 200, 403),
    ("POST", "/new-run"): Row(
        403, 303, 303, 403, body={"command": "true", "environment": "place"}
    ),
    ("GET", "/runs/{run_id}"): Row(200, 200, 200, 403, run("queued")),
    ("GET", "/runs/{run_id}/output/live"): Row(200, 200, 200, 403, run("failed")),
    # It has none: the same as of a run that is nowhere.
    ("GET", "/runs/{run_id}/output"): Row(404, 404, 404, 403, run("failed")),
    ("POST", "/runs/{run_id}/cancel"): Row(403, 303, 303, 403, run("queued")),
    ("POST", "/runs/{run_id}/retry"): Row(403, 303, 303, 403, run("failed")),
    ("POST", "/runs/{run_id}/resume"): Row(403, 303, 303, 403, run("parked")),
    ("GET", "/trouble"): Row(200, 200, 200, 403),
    ("GET", "/failures"): Row(200, 200, 200, 403),
    ("GET", "/failures/{fingerprint}"): Row(200, 200, 200, 403, failed),
    ("GET", "/leases"): Row(200, 200, 200, 403),
    ("GET", "/leases/{lease_id}"): Row(200, 200, 200, 403, lease),
    ("POST", "/leases/{lease_id}/release"): Row(403, 303, 303, 403, lease),
    ("POST", "/leases/{lease_id}/retain"): Row(403, 303, 303, 403, lease),
    ("GET", "/hosts"): Row(200, 200, 200, 200),
    ("POST", "/hosts/{host_id}/drain"): Row(403, 403, 403, 303, host, shared=True),
    ("GET", "/providers"): Row(200, 200, 200, 200),
    ("GET", "/providers/{key}"): Row(200, 200, 200, 200, provider, shared=True),
    ("GET", "/environments"): Row(200, 200, 200, 403),
    ("GET", "/environments/{name}"): Row(200, 200, 200, 403, place),
    ("POST", "/environments/{name}/archive"): Row(403, 403, 303, 403, place),
    ("POST", "/environments/{name}/unarchive"): Row(403, 403, 303, 403, place),
    ("GET", "/new-environment"): Row(403, 403, 200, 403),
    ("POST", "/new-environment"): Row(
        403, 403, 303, 403, body={"name": "new", "provider": "fake"}
    ),
    # The last one: it ends the session.
    ("POST", "/sign-out"): Row(303, 303, 303, 303),
}
QUERY: Final = {"/runs/{run_id}/output": "?start=1"}
OPEN: Final = {"/sign-in", "/static/{name}"}


def ask(browser: Browser, route: tuple[str, str], ids: Mapping[str, str]) -> httpx.Response:
    method, path = route
    url = path.format(**ids) + QUERY.get(path, "")
    if method == "POST":
        return browser.post(url, MATRIX[route].body)
    if path == "/live":
        with browser.client.stream("GET", ROOT + url) as answer:
            return answer
    return browser.get(url)


def test_every_page_has_its_row_and_every_row_its_page(service: Service) -> None:
    there = {(method, path) for method, path in routes_of(service) if is_page(path)}
    assert there == {(method, ROOT + path) for method, path in MATRIX}


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_do_what_the_matrix_says(
    service: Service, database: Database, role: Role
) -> None:
    with browsing(service, make_key(database, role, tenant=OWN[role])) as browser:
        for route, row in MATRIX.items():
            with database.write("test") as tx:
                ids = row.make(tx, OWN[role])
            answer = ask(browser, route, ids)
            assert answer.status_code == row.of(role), (route, answer.text)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
def test_a_row_of_another_tenant_is_not_there_and_stays_as_it_is(
    service: Service, database: Database, role: Role
) -> None:
    with browsing(service, make_key(database, role)) as browser:
        make_key(database, tenant=OTHER)
        for route, row in MATRIX.items():
            if route == ("POST", "/sign-out"):
                continue
            with database.write("test") as tx:
                ids = row.make(tx, OTHER)
                shown = {insert_run(tx, tenant_id=OTHER)["id"]}
                shown.add(insert_lease(tx, status="idle", tenant_id=OTHER)["id"])
            before = everything(database)
            answer = ask(browser, route, ids)
            if route[1] != "/live":
                assert not any(one in answer.text for one in shown), route
            if row.make is nothing or row.shared:
                continue
            allowed = row.of(role) != 403
            assert answer.status_code == (404 if allowed else 403), (route, answer.text)
            assert everything(database) == before, route


def test_who_is_not_signed_in_is_asked_to_and_told_nothing(
    service: Service, database: Database
) -> None:
    for cookie in (None, "", "x" * 43, "x" * 5000, "\u00e9"):
        with browsing(service, None) as browser:
            if cookie is not None:
                browser.client.headers["Cookie"] = f"leasehold={cookie}"
            for method, path in [*MATRIX, ("GET", "/nowhere")]:
                if path in OPEN:
                    continue
                answer = browser.client.request(method, ROOT + path)
                assert answer.status_code == 303, (path, answer.text)
                assert answer.headers["Location"].startswith(f"{ROOT}/sign-in")


def test_whatever_changes_something_needs_the_token_of_this_session(
    service: Service, database: Database
) -> None:
    key = make_key(database)
    with browsing(service, key) as browser, browsing(service, key) as another:
        for (method, path), row in MATRIX.items():
            if method == "GET" or path in OPEN:
                continue
            with database.write("test") as tx:
                url = ROOT + path.format(**row.make(tx, "default"))
            if row.of(Role.ADMIN) == 403:
                continue
            before = everything(database)
            for token in (None, "", another.token()):
                data = {**(row.body or {}), **({} if token is None else {"token": token})}
                answer = browser.client.post(url, data=data)
                assert answer.status_code == 403, (path, token)
            assert everything(database) == before, path


def test_a_page_of_another_site_can_send_nothing(service: Service, database: Database) -> None:
    key = make_key(database)
    with browsing(service, key) as browser:
        token = browser.token()
        with database.write("test") as tx:
            url = f"{ROOT}/runs/{run('queued')(tx, 'default')['run_id']}/cancel"
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://elsewhere.example"},
            {"Origin": "null"},
        ):
            sent = browser.client.post(url, data={"token": token}, headers=headers)
            assert sent.status_code == 403, headers
            entry = browser.client.post(f"{ROOT}/sign-in", data={"key": key}, headers=headers)
            assert entry.status_code == 403, headers
        fine = {"Sec-Fetch-Site": "same-origin", "Origin": service.url}
        assert browser.client.post(url, data={"token": token}, headers=fine).status_code == 303
