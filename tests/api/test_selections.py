"""Where runs go that name no environment: run, workspace, project, tenant, `local`."""

from typing import Any

import httpx
import pytest

from api.served import client_of, make_key
from command_line import environment, serve
from leasehold.api.serving import Service
from leasehold.domain.specs import EnvironmentSpec
from leasehold.orchestrator import saving
from leasehold.store import activity
from leasehold.store.database import Database

WHERE = "/api/v1/selections"
RUNS = "/api/v1/runs"
BODY: dict[str, Any] = {"commands": [{"argv": ["true"]}]}
FULL = BODY | {"workspace": "src", "labels": {"project": "web"}}


@pytest.fixture(autouse=True)
def places(database: Database, settings: object) -> None:
    """Four places beside `place`, and a host that serves `local`."""
    with database.write("test") as tx:
        host = tx.value("SELECT id FROM hosts")
        serve(tx, key="local", host_id=host)
        for name in ("of-run", "of-src", "of-web", "of-all"):
            environment(tx, name)


def select(client: httpx.Client, kind: str, environment: str | None, name: str = "") -> None:
    body = {"kind": kind, "name": name, "environment": environment}
    answer = client.put(WHERE, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["environment"] == environment


def all_of_them(client: httpx.Client) -> None:
    select(client, "tenant", "of-all")
    select(client, "project", "of-web", "web")
    select(client, "workspace", "of-src", "src")


def went(client: httpx.Client, body: dict[str, Any]) -> tuple[str, str]:
    """Return where a run went, and who has chosen that."""
    made = client.post(RUNS, json=body)
    assert made.status_code == 201, made.text
    shown = client.get(made.headers["Location"]).json()
    assert shown["environment"] == made.json()["environment"]
    return shown["environment"], shown["environment_chosen_by"]


def test_the_first_default_that_applies_is_taken_and_the_run_says_whose(
    client: httpx.Client,
) -> None:
    assert went(client, FULL) == ("local", "local")
    select(client, "tenant", "of-all")
    assert went(client, FULL) == ("of-all", "tenant")
    select(client, "project", "of-web", "web")
    assert went(client, FULL) == ("of-web", "project web")
    select(client, "workspace", "of-src", "src")
    assert went(client, FULL) == ("of-src", "workspace src")
    assert went(client, FULL | {"environment": "of-run"}) == ("of-run", "run")
    assert went(client, FULL | {"environment": None}) == ("of-src", "workspace src")
    assert went(client, BODY | {"workspace": "else"}) == ("of-all", "tenant")
    order = [(one["kind"], one["name"]) for one in client.get(WHERE).json()["items"]]
    assert order == [("workspace", "src"), ("project", "web"), ("tenant", "")]
    select(client, "workspace", None, "src")
    assert client.delete(WHERE, params={"kind": "project", "name": "web"}).status_code == 200
    assert went(client, FULL) == ("of-all", "tenant")


def test_a_batch_and_a_schedule_choose_as_one_run_does(
    client: httpx.Client, database: Database
) -> None:
    all_of_them(client)
    items = [FULL, BODY, BODY | {"labels": {"project": "web"}}, BODY, FULL]
    answer = client.post(f"{RUNS}/batch", json={"runs": items}).json()["items"]
    names = [item["run"]["environment"] for item in answer]
    assert names == ["of-src", "of-all", "of-web", "of-all", "of-src"]
    shown = client.get(f"{RUNS}/{answer[0]['run']['id']}").json()
    assert shown["environment_chosen_by"] == "workspace src"
    body = {"name": "nightly", "cron": "0 0 1 1 *", "run": FULL}
    made = client.post("/api/v1/schedules", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["environment"] is None


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_missing_inactive_and_foreign_have_codes_of_their_own_and_nothing_goes_elsewhere(
    client: httpx.Client, service: Service, database: Database
) -> None:
    all_of_them(client)
    make_key(database, tenant="other")
    with database.write("test") as tx:
        spec = EnvironmentSpec(name="theirs", provider="fake")
        theirs = saving.create(tx, spec, tenant_id="other")["id"]
    client.post("/api/v1/environments/of-src/archive")
    client.delete("/api/v1/environments/of-web", params={"confirm": "of-web"})
    inactive = client.post(RUNS, json=FULL)
    assert refusal(inactive) == (409, "environment_inactive")
    assert "the default of workspace src: environment of-src is archived" in inactive.text
    web = BODY | {"labels": {"project": "web"}}
    missing = client.post(RUNS, json=web)
    assert refusal(missing) == (404, "environment_missing")
    assert "the default of project web" in missing.text
    for named, expected in (
        ("nowhere", (404, "environment_missing")),
        ("of-src", (409, "environment_inactive")),
        (theirs, (404, "environment_foreign")),
    ):
        body = BODY | {"environment": named}
        assert refusal(client.post(RUNS, json=body)) == expected
        asked = {"kind": "tenant", "environment": named}
        assert refusal(client.put(WHERE, json=asked)) == expected
    batch = client.post(f"{RUNS}/batch", json={"runs": [FULL, web, BODY]}).json()["items"]
    codes = [item["error"]["code"] for item in batch[:2]]
    assert codes == ["environment_inactive", "environment_missing"]
    assert batch[2]["run"]["environment"] == "of-all"
    statuses = {
        one["kind"]: one["environment_status"] for one in client.get(WHERE).json()["items"]
    }
    assert statuses == {"workspace": "archived", "project": "missing", "tenant": "active"}


def test_a_default_is_a_tenants_own(
    client: httpx.Client, service: Service, database: Database
) -> None:
    all_of_them(client)
    with client_of(service, make_key(database, tenant="other")) as other:
        assert other.get(WHERE).json()["items"] == []
        assert went(other, FULL) == ("local", "local")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "tenant", "name": "x", "environment": "place"}, "body"),
        ({"kind": "workspace", "environment": "place"}, "body"),
        ({"kind": "star", "environment": "place"}, "kind"),
        ({"kind": "tenant", "environment": ""}, "environment"),
    ],
)
def test_what_is_no_selection_is_refused(
    client: httpx.Client, body: dict[str, str], field: str
) -> None:
    answer = client.put(WHERE, json=body)
    assert answer.status_code == 422
    assert client.get(WHERE).json()["items"] == []


def test_the_same_key_is_the_same_run_whatever_the_default_is_by_then(
    client: httpx.Client,
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post(RUNS, json=BODY, headers=headers).json()
    all_of_them(client)
    again = client.post(RUNS, json=BODY, headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])


def test_each_change_is_activity_and_none_is_none(
    client: httpx.Client, database: Database
) -> None:
    select(client, "tenant", "of-all")
    select(client, "tenant", "of-all")
    select(client, "tenant", None)
    select(client, "tenant", None)
    with database.read() as tx:
        lines = activity.page(tx, tenant_id="default", noun="selection", limit=10)
    assert [line["name"] for line in lines] == ["selection.deleted", "selection.set"]
    assert all(line["actor"].startswith("key:") for line in lines)
