"""Schedules and activity as pages."""

import re
from typing import Any

import pytest

from api.browsing import Browser, browsing, text_of
from api.served import make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.domain.schedules import due
from leasehold.ids import PLATFORM
from leasehold.store.database import Database
from store.rows import insert_run, insert_schedule

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def browser(service: Service, database: Database) -> Any:
    with browsing(service, make_key(database, Role.OPERATOR, name="anna")) as browser:
        yield browser


def test_without_a_schedule_it_says_what_to_do(browser: Browser) -> None:
    assert "There is no schedule yet. Make one" in text_of(browser.get("/schedules"))


def test_a_schedule_is_made_paused_resumed_and_deleted(browser: Browser) -> None:
    fields = {
        "name": "nightly",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "environment": "place",
        "overlap": "skip",
        "command": "make release",
        "labels": "team=core",
    }
    made = browser.post("/new-schedule", fields)
    assert made.headers["Location"] == "/monitor/schedules/nightly?said=scheduled"
    page = browser.get("/schedules/nightly")
    for words in ("make release", "30 2 * * *", "Europe/Berlin", "none starts"):
        assert words in text_of(page), words
    assert len(re.findall(r"<li><time", page.text)) == 5
    assert browser.post("/schedules/nightly/pause").status_code == 303
    assert "None while it is paused" in text_of(browser.get("/schedules/nightly"))
    assert browser.post("/schedules/nightly/resume").status_code == 303
    assert browser.post("/schedules/nightly/delete").status_code == 303
    assert browser.get("/schedules/nightly").status_code == 404


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"cron": "every day"}, "cron"),
        ({"timezone": "Nowhere/Land"}, "timezone"),
        ({"command": "echo 'open"}, "command"),
        ({"timeout_s": "soon"}, "timeout_s"),
    ],
)
def test_what_is_wrong_is_marked(browser: Browser, wrong: dict[str, str], field: str) -> None:
    fields = {"name": "new", "cron": "0 0 * * *", "environment": "place", "command": "true"}
    answer = browser.post("/new-schedule", fields | wrong)
    assert answer.status_code == 422
    assert re.search(rf'id="{field}"[^>]*aria-invalid="true"', answer.text)


def test_a_schedule_leads_to_the_runs_of_its_last_times(
    browser: Browser, database: Database
) -> None:
    with database.write("test") as tx:
        now = tx.now()
        last = due("0 * * * *", "UTC", from_us=0, now_us=now)[-3:]
        row = insert_schedule(tx, cron="0 * * * *", last_at=last[-1])
        keys = [f"schedule:{row['id']}:{at}" for at in last]
        own = [insert_run(tx, status="succeeded", idempotency_key=key)["id"] for key in keys]
        insert_run(tx, status="succeeded", idempotency_key=f"schedule:other:{last[0]}")
        insert_run(tx, status="succeeded")
    page = browser.get("/schedules/nightly").text
    assert sorted(re.findall(r'<tr id="r-([^"]+)"', page)) == sorted(own)


def test_activity_says_who_did_what_and_is_filtered(
    browser: Browser, database: Database
) -> None:
    with database.write("test") as tx:
        run_id = insert_run(tx, status="queued")["id"]
        tx.run("UPDATE runs SET message = NULL")
    browser.post(f"/runs/{run_id}/cancel")
    page = browser.get("/activity")
    text = text_of(page)
    assert "anna" in text
    assert f"/monitor/runs/{run_id}" in page.text
    assert browser.get("/activity?noun=secret").text.count("<tr id=") == 0
    assert "Nothing is like this" in text_of(browser.get("/activity?noun=secret"))
    hostile = browser.get("/activity", params={"actor": HOSTILE})
    assert "<script>alert" not in hostile.text
    assert browser.get("/activity?cursor=none").status_code == 422


def test_pages_of_activity_do_not_overlap(browser: Browser, database: Database) -> None:
    for number in range(60):
        fields = {"name": f"s{number}", "cron": "0 0 1 1 *", "environment": "place"}
        assert browser.post("/new-schedule", fields | {"command": "true"}).status_code == 303
    first = browser.get("/activity?noun=schedule").text
    following = re.search(r'rel="next" href="/monitor([^"]+)"', first)
    assert following is not None
    second = browser.get(following[1].replace("&amp;", "&")).text
    lines = [set(re.findall(r'<tr id="a-(\d+)"', page)) for page in (first, second)]
    assert (len(lines[0]), len(lines[1]), lines[0] & lines[1]) == (50, 10, set())


def test_the_platform_sees_its_own_activity_and_viewers_none(
    service: Service, database: Database
) -> None:
    with browsing(service, make_key(database, Role.ROOT, tenant=PLATFORM)) as root:
        assert "/monitor/activity" in root.get("/hosts").text
        assert root.get("/activity").status_code == 200
    with browsing(service, make_key(database, Role.VIEWER)) as viewer:
        assert "/monitor/activity" not in viewer.get("/hosts").text
