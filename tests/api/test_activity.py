"""``/activity``: every mutation by its actor, newest first, and no value anywhere."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.served import client_of, make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.ids import PLATFORM
from leasehold.store.database import Database

WHERE = "/api/v1/activity"
LOUD = "loud-value"


def lines(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    answer = client.get(WHERE, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@pytest.fixture
def busy(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client that has changed one of each noun."""
    api = "/api/v1"
    lab = {"name": "lab", "provider": "fake", "config": {"image": "one"}}
    schedule = {
        "name": "nightly",
        "cron": "0 0 1 1 *",
        "environment": "lab",
        "run": {"commands": [{"argv": [LOUD]}]},
    }
    for method, path, body in (
        ("POST", "environments", lab | {"env": {"A": LOUD}}),
        ("PATCH", "environments/lab", {"config": {"image": LOUD}}),
        ("PUT", "selections", {"kind": "project", "name": "web", "environment": "lab"}),
        ("POST", "schedules", schedule),
        ("POST", "schedules/nightly/pause", None),
        ("DELETE", "schedules/nightly", None),
        ("PUT", "secrets/door", {"value": LOUD}),
        ("DELETE", "secrets/door", None),
        ("POST", "keys", {"name": "ci"}),
        ("DELETE", "keys/ci", None),
        ("PUT", "retention", {"runs_s": "10d"}),
        ("POST", "leases", {"environment": "lab"}),
        ("POST", "runs", {"environment": "lab", "commands": [{"argv": [LOUD]}]}),
        ("POST", "environments/lab/archive", None),
    ):
        answer = client.request(method, f"{api}/{path}", json=body)
        assert answer.is_success, (path, answer.text)
    yield client


def test_every_mutation_has_its_line_with_its_actor_and_no_value(busy: httpx.Client) -> None:
    found = lines(busy)
    assert [line["name"] for line in reversed(found)][-13:] == [
        "environment.active",
        "environment.changed",
        "selection.set",
        "schedule.active",
        "schedule.paused",
        "schedule.deleted",
        "secret.set",
        "secret.deleted",
        "key.created",
        "key.revoked",
        "retention.changed",
        "lease.acquiring",
        "environment.archived",
    ]
    assert {line["actor"].partition(":")[0] for line in found[:13]} == {"key"}
    changed = next(line for line in found if line["name"] == "environment.changed")
    assert changed["data"]["changed"] == ["config.image"]
    assert LOUD not in str(found)
    lease = next(line for line in found if line["noun"] == "lease")
    assert lease["lease_id"]


def test_it_is_filtered_by_noun_actor_and_time_and_comes_in_pages(
    busy: httpx.Client, service: Service, database: Database
) -> None:
    schedules = lines(busy, noun="schedule")
    assert [line["name"].partition(".")[0] for line in schedules] == ["schedule"] * 3
    own = schedules[0]["actor"]
    assert len(lines(busy, actor=own)) >= 13
    assert lines(busy, actor="key:nobody") == []
    at = schedules[0]["at"]
    assert schedules[0]["id"] in [line["id"] for line in lines(busy, since=at)]
    assert schedules[0]["id"] not in [line["id"] for line in lines(busy, until=at)]
    whole, seen, cursor = lines(busy, limit=500), [], None
    while True:
        params = {"limit": 5, **({"cursor": cursor} if cursor else {})}
        page = busy.get(WHERE, params=params).json()
        seen += page["items"]
        if (cursor := page["next"]) is None:
            break
    assert seen == whole
    assert busy.get(WHERE, params={"since": "2026-01-01T00:00"}).status_code == 422
    assert busy.get(WHERE, params={"noun": "a%"}).status_code == 422


def test_each_tenant_has_its_own_and_the_platform_that_of_hosts_and_tenants(
    busy: httpx.Client, service: Service, database: Database
) -> None:
    with client_of(service, make_key(database, tenant="other")) as other:
        assert {line["noun"] for line in lines(other)} <= {"key"}
    with client_of(service, make_key(database, Role.ROOT, tenant=PLATFORM)) as root:
        host = root.get("/api/v1/hosts").json()["items"][0]["id"]
        assert root.post(f"/api/v1/hosts/{host}/drain").status_code == 200
        assert root.post("/api/v1/tenants", json={"name": "acme"}).status_code == 201
        shown = [line["name"] for line in lines(root)]
    assert shown[:2] == ["tenant.active", "host.draining"]
    assert not {"environment.active", "secret.set"} & set(shown)


def test_what_a_run_does_by_itself_is_no_activity_but_who_ends_it_is(
    busy: httpx.Client,
) -> None:
    run = busy.get("/api/v1/runs").json()["items"][0]["id"]
    assert lines(busy, noun="run") == []
    busy.post(f"/api/v1/runs/{run}/cancel")
    (line,) = lines(busy, noun="run")
    assert (line["name"], line["run_id"]) == ("run.end_requested", run)
