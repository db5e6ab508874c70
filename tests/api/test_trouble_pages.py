"""The pages that say what went wrong and what does not go on."""

import re
from typing import Any

import pytest

from api.browsing import Browser, browsing, text_of
from api.served import make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store.database import Database
from store.rows import insert_lease, insert_run

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def browser(service: Service, database: Database) -> Any:
    with browsing(service, make_key(database)) as browser:
        yield browser


def test_without_trouble_it_says_so(browser: Browser) -> None:
    assert "Nothing is stuck, nothing is orphaned" in text_of(browser.get("/trouble"))
    nothing = text_of(browser.get("/failures"))
    assert "No run that was created in the last day has failed" in nothing
    assert "Look further back" in nothing


def test_what_is_stuck_has_its_reason_and_its_buttons(
    browser: Browser, database: Database
) -> None:
    with database.write("test") as tx:
        parked = insert_run(tx, status="parked", message="the `engine` is <b>away</b>")["id"]
        insert_lease(tx, status="releasing", last_error=HOSTILE, cleanup_attempts=3)
    page = browser.get("/trouble")
    assert "the <code>engine</code> is &lt;b&gt;away&lt;/b&gt;" in page.text
    assert "<script>alert" not in page.text
    text = text_of(page)
    for words in (
        "Stuck runs 1",
        "Orphaned sandboxes 1",
        "3 attempts failed",
        "it is tried for",
    ):
        assert words in text, words
    assert f'action="/monitor/runs/{parked}/resume"' in page.text
    assert browser.post(f"/runs/{parked}/resume").status_code == 303


def test_who_may_only_look_has_no_buttons(service: Service, database: Database) -> None:
    with database.write("test") as tx:
        insert_run(tx, status="parked")
    with browsing(service, make_key(database, Role.VIEWER)) as browser:
        page = browser.get("/trouble").text
    assert "parked" in page
    assert "/resume" not in page


def test_failures_that_are_alike_are_one_line_that_leads_to_its_runs(
    browser: Browser, database: Database
) -> None:
    with database.write("test") as tx:
        ids = [
            insert_run(tx, status="failed", code="command_failed", exit_code=1, message=said)[
                "id"
            ]
            for said in (f"3 failed {HOSTILE}", f"5 failed {HOSTILE}")
        ]
        insert_run(tx, status="timed_out", code="timeout")
    page = browser.get("/failures")
    assert "3 runs failed in 2 ways" in text_of(page)
    assert "<script>alert" not in page.text
    found = re.findall(r'<tr id="f-([0-9a-f]{12})"', page.text)
    group = browser.get(f"/failures/{found[0]}")
    assert sorted(re.findall(r'<tr id="r-([^"]+)"', group.text)) == sorted(ids)
    assert "2 times" in text_of(group)
    only = browser.get("/failures?code=timeout").text
    assert re.findall(r'<tr id="f-([0-9a-f]{12})"', only) == [found[1]]


def test_strange_questions_are_refused_in_words(browser: Browser) -> None:
    assert browser.get("/failures?days=2").status_code == 422
    assert browser.get("/failures/nowhere").status_code == 422
    missing = browser.get("/failures/000000000000")
    assert missing.status_code == 404
    assert "no failure of the last 1 days" in text_of(missing)
