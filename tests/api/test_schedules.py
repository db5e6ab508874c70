"""``/schedules`` over HTTP: made, shown with the next times, changed, refused."""

from typing import Any

import httpx
import pytest

WHERE = "/api/v1/schedules"
BODY = {
    "name": "nightly",
    "cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "environment": "place",
    "run": {"commands": [{"argv": ["true"]}], "env": {"A": "hidden"}, "timeout_s": "10m"},
}


def test_a_schedule_is_where_it_says_with_its_next_times(client: httpx.Client) -> None:
    made = client.post(WHERE, json=BODY)
    assert made.status_code == 201, made.text
    shown = client.get(made.headers["Location"], params={"times": 2}).json()
    assert shown["id"] == made.json()["id"]
    assert shown["next_times"][0] == shown["next_at"]
    assert len(shown["next_times"]) == 2
    assert shown["run"]["timeout_s"] == 600
    assert "hidden" not in str(shown)
    assert [row["name"] for row in client.get(WHERE).json()["items"]] == ["nightly"]
    assert client.post(WHERE, json=BODY).status_code == 409


def test_it_is_paused_resumed_and_deleted(client: httpx.Client) -> None:
    client.post(WHERE, json=BODY)
    assert client.post(f"{WHERE}/nightly/pause").json()["status"] == "paused"
    assert client.post(f"{WHERE}/nightly/resume").json()["status"] == "active"
    assert client.delete(f"{WHERE}/nightly").json()["name"] == "nightly"
    assert client.get(f"{WHERE}/nightly").status_code == 404


def test_it_is_changed_by_what_is_given_and_says_what_is_different(
    client: httpx.Client,
) -> None:
    made = client.post(WHERE, json=BODY).json()
    change = {"cron": "0 4 * * *", "run": {"timeout_s": None, "labels": {"a": "b"}}}
    answer = client.patch(f"{WHERE}/nightly", json=change)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["changed"] == ["cron", "run"]
    assert shown["next_at"] != made["next_at"]
    assert shown["next_times"][0] == shown["next_at"]
    assert (shown["run"]["timeout_s"], shown["run"]["labels"]) == (None, {"a": "b"})
    assert shown["run"]["commands"] == made["run"]["commands"]
    assert shown["run"]["env_names"] == ["A"]
    assert client.patch(f"{WHERE}/nightly", json=change).json()["changed"] == []
    paused = client.patch(f"{WHERE}/nightly", json={"paused": True, "overlap": "skip"}).json()
    assert (paused["status"], paused["changed"]) == ("paused", ["overlap", "status"])
    assert client.patch(f"{WHERE}/nightly", json={"paused": False}).json()["next_at"]
    assert client.patch(f"{WHERE}/nothing", json={}).status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"cron": "* * *"}, 422, "cron"),
        ({"cron": None}, 422, "ScheduleSpec"),
        ({"at": "2001-01-01T00:00"}, 422, "at"),
        ({"run": {"commands": []}}, 422, "run.commands"),
        ({"run": {"comands": []}}, 422, "run.comands"),
        ({"name": "other"}, 422, "name"),
        ({"environment": "nowhere"}, 404, None),
    ],
)
def test_a_change_that_would_make_no_schedule_changes_nothing(
    client: httpx.Client, changes: dict[str, Any], status: int, field: str | None
) -> None:
    made = client.post(WHERE, json=BODY).json()
    answer = client.patch(f"{WHERE}/nightly", json=changes)
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    after = client.get(f"{WHERE}/nightly").json()
    assert {name: after[name] for name in made} == made


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "* * *"}, "cron"),
        ({"timezone": "Mars"}, "timezone"),
        ({"run": {"commands": []}}, "run.commands"),
        ({"at": "2001-01-01T00:00", "cron": None}, "at"),
        ({"every": "5m"}, "every"),
    ],
)
def test_what_is_no_schedule_is_refused_by_its_field(
    client: httpx.Client, changes: dict[str, Any], field: str
) -> None:
    answer = client.post(WHERE, json=BODY | changes)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert client.get(WHERE).json()["items"] == []
