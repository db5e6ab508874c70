"""What pages show and do, without a script: links and forms."""

import re
from typing import Any

import pytest

from api.browsing import Browser, browsing, text_of
from api.served import make_key
from command_line import environment, serve
from leasehold.api.pages.shared import Shared
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store import executions
from leasehold.store.database import Database
from store.rows import insert_execution, insert_held, insert_lease, insert_run, insert_worker

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}'
PATHS = ("", "/runs", "/failures", "/trouble", "/leases", "/hosts", "/providers",
         "/environments", "/new-environment",
         "/new-environment?provider=fake", "/environments/place", "/nowhere")  # fmt: skip


@pytest.fixture
def browser(service: Service, database: Database) -> Any:
    with browsing(service, make_key(database)) as browser:
        yield browser


def insert_runs(database: Database, count: int, **values: Any) -> list[str]:
    with database.write("test") as tx:
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
        rows = [insert_run(tx, environment_id=place, **values) for _ in range(count)]
        return [row["id"] for row in rows]


def test_every_page_is_strict_about_what_it_loads(browser: Browser) -> None:
    for path in PATHS:
        answer = browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(
            r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=|javascript:", answer.text
        )
        loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert [url for url in loaded if not url.startswith(("/monitor", "#"))] == []


def test_who_types_the_address_alone_comes_to_the_monitor(browser: Browser) -> None:
    typed = browser.client.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (typed.status_code, typed.headers["Location"]) == (303, "/monitor")
    assert browser.client.get("/").status_code == 401


def test_an_empty_deployment_says_what_to_do_next(browser: Browser) -> None:
    assert "leasehold run -- echo hello" in text_of(browser.get("/runs"))
    assert "No sandbox is held" in text_of(browser.get("/leases"))
    assert "No run ended in the last hour" in text_of(browser.get(""))


def test_the_overview_counts_what_there_is(browser: Browser, database: Database) -> None:
    insert_runs(database, 3, status="queued")
    insert_runs(database, 2, status="failed", code="command_failed")
    with database.write("test") as tx:
        insert_lease(tx, status="idle")
        insert_lease(tx, status="releasing", cleanup_attempts=4, last_error="engine is away")
    page = text_of(browser.get(""))
    for words in ("3 queued", "2 live leases", "1 cleanups failing", "failed 2",
                  "command_failed 2"):  # fmt: skip
        assert words in page, words


def test_runs_are_found_by_filter_and_pages_stay_as_they_are(
    browser: Browser, database: Database
) -> None:
    ids = insert_runs(database, 60, status="queued")
    first = browser.get("/runs?status=queued").text
    following = re.search(r'rel="next" href="/monitor([^"]+)"', first)
    assert following is not None
    insert_runs(database, 5, status="queued")
    second = browser.get(following[1].replace("&amp;", "&")).text
    shown = re.findall(r'<tr id="r-([^"]+)"', first) + re.findall(r'<tr id="r-([^"]+)"', second)
    assert sorted(shown) == sorted(ids)
    assert "No run is like this" in browser.get("/runs?status=parked").text
    assert browser.get(f"/runs?id={ids[0]}").headers["Location"] == f"/monitor/runs/{ids[0]}"
    assert browser.get("/runs?id=nowhere").status_code == 404
    assert browser.get("/runs?label=none").status_code == 422


def test_many_runs_are_cancelled_after_a_look_at_them(
    browser: Browser, database: Database
) -> None:
    insert_runs(database, 120, status="queued")
    fields = {"action": "cancel", "status": "queued", "environment": "place", "label": ""}
    preview = browser.post("/runs/bulk", fields)
    assert "120 runs would be cancelled. Nothing has happened yet." in text_of(preview)
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM runs WHERE status = 'queued'") == 120
    mark = re.search(r'name="mark" value="([^"]+)"', preview.text)
    assert mark is not None
    done = browser.post("/runs/bulk/do", {**fields, "mark": mark[1]})
    assert "120 asked to end" in text_of(done)
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM runs WHERE status = 'cancelled'") == 120


def test_a_run_is_cancelled_retried_and_resumed_from_its_page(
    browser: Browser, database: Database
) -> None:
    queued, failed, parked = (
        insert_runs(database, 1, status=status)[0] for status in ("queued", "failed", "parked")
    )
    assert browser.post(f"/runs/{queued}/cancel").headers["Location"].endswith("said=cancel")
    page = browser.get(f"/runs/{queued}?said=cancel")
    assert "cancelled" in text_of(page)
    assert "It is asked to end" in text_of(page)
    once = {"once": "a1"}
    new = [browser.post(f"/runs/{failed}/retry", once).headers["Location"] for _ in range(2)]
    assert new[0] == new[1]
    assert failed not in new[0]
    assert browser.post(f"/runs/{parked}/resume").status_code == 303
    again = browser.post(f"/runs/{parked}/resume")
    assert again.status_code == 409
    assert "Not done" in text_of(again)


def test_buttons_are_there_for_who_may_press_them(service: Service, database: Database) -> None:
    run_id = insert_runs(database, 1, status="queued")[0]
    for role, shown in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        with browsing(service, make_key(database, role)) as browser:
            for path in (f"/runs/{run_id}", "/runs"):
                assert ("Cancel" in text_of(browser.get(path))) is shown
            assert "New environment" not in text_of(browser.get("/environments"))


def test_a_run_says_why_it_waits(browser: Browser, database: Database) -> None:
    with database.write("test") as tx:
        place = environment(tx, "elsewhere", requires={"gpu": "yes"})
        run_id = insert_run(tx, status="queued", environment_id=place["id"])["id"]
    assert "no live host" in text_of(browser.get(f"/runs/{run_id}"))


def test_what_a_command_wrote_is_shown_and_never_markup(
    browser: Browser, database: Database
) -> None:
    data = (
        HOSTILE.encode() + b"\n\x1b[1;31mred\x1b[0m \xff\xfe \x1b]0;title\x07\x1b[2Jend\n"
        + b"x" * (1024 * 1024) + b"\nlast"
    )  # fmt: skip
    with database.write("test") as tx:
        run, lease = insert_held(tx)
        row = insert_execution(tx, run, lease_id=lease["id"], status="running", ended_at=None)
        # In many pieces, as beats store it.
        for first in range(0, 200, 10):
            piece = data[first : first + 10]
            executions.append(tx, row["id"], stream="stdout", offset=first, data=piece)
        executions.append(tx, row["id"], stream="stdout", offset=200, data=data[200:])
        executions.append(tx, row["id"], stream="stderr", offset=0, data=data[:200])
    page = browser.get(f"/runs/{run['id']}")
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text
    assert "last</pre>" in page.text
    assert '<span class="c1 bold">red</span>' in page.text  # of stderr
    assert "\x1b" not in page.text
    assert "more characters in the download" in page.text
    assert len(page.text) < 200_000
    assert "{{7*7}}" in page.text  # of stderr
    saved = browser.get(f"/runs/{run['id']}/output?start=1&stream=stdout")
    assert saved.content == data
    assert saved.headers["Content-Disposition"].startswith("attachment; ")
    assert saved.headers["X-Content-Type-Options"] == "nosniff"


def test_names_and_messages_are_never_markup(browser: Browser, database: Database) -> None:
    spec = {"commands": [{"argv": ["sh", HOSTILE]}]}
    said = {"labels": {"a": HOSTILE}, "message": HOSTILE, "code": "command_failed"}
    insert_runs(database, 1, status="failed", spec=spec, **said)
    with database.write("test") as tx:
        insert_lease(tx, status="releasing", last_error=HOSTILE, cleanup_attempts=1)
        host = insert_worker(tx, "worker-2")["host_id"]
        tx.run("UPDATE hosts SET name = :name WHERE id = :id", name=HOSTILE, id=host)
        serve(tx, key="other", host_id=host)
        tx.run("UPDATE providers SET summary = :said", said=HOSTILE)
        environment(tx, "named", description=HOSTILE)
    asked = (
        f"/runs?label=a%3D{HOSTILE}",
        f"/runs?environment={HOSTILE}",
        "/environments/named",
        "/providers/fake",
        f"/sign-in?next={HOSTILE}",
    )
    for path in (*PATHS, *asked):
        page = browser.get(path).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path


def test_an_environment_is_made_by_its_providers_form(
    browser: Browser, database: Database
) -> None:
    schema = {
        "type": "object",
        "required": ["image"],
        "additionalProperties": False,
        "properties": {
            "image": {"type": "string", "description": "What it is made of."},
            "memory_mb": {"type": "integer", "minimum": 16},
            "network": {"enum": ["none", "full"], "type": "string"},
            "allow": {"type": "array", "items": {"type": "string"}},
            "quick": {"type": "boolean"},
        },
    }
    with database.write("test") as tx:
        serve(tx, key="fake", host_id=tx.value("SELECT id FROM hosts"), schema=schema)
    form = browser.get("/new-environment?provider=fake")
    assert "What it is made of." in form.text
    fields = {"provider": "fake", "name": "ci", "config.image": "debian:13",
              "config.memory_mb": "many", "config.allow": "a:1\r\n\r\nb:2",
              "config.network": "none", "config.quick": "true",
              "env": "A=1\nB=x=y"}  # fmt: skip
    wrong = browser.post("/new-environment", fields)
    assert wrong.status_code == 422
    assert "is no integer" in text_of(wrong)
    assert 'value="debian:13"' in wrong.text
    few = browser.post("/new-environment", fields | {"config.memory_mb": "1"})
    assert few.status_code == 422
    made = browser.post("/new-environment", fields | {"config.memory_mb": "64"})
    assert made.status_code == 303, text_of(made)
    page = text_of(browser.get("/environments/ci?said=created"))
    for words in ("The environment is saved", "debian:13", '["a:1", "b:2"]', "A, B"):
        assert words in page, words
    taken = browser.post("/new-environment", fields | {"config.memory_mb": "64"})
    assert taken.status_code == 422
    assert "ci" in text_of(taken)


def test_a_lease_is_retained_and_destroyed_by_hand(
    browser: Browser, database: Database
) -> None:
    with database.write("test") as tx:
        lease = insert_lease(tx, status="idle")["id"]
    assert browser.post(f"/leases/{lease}/release").status_code == 303
    page = text_of(browser.get(f"/leases/{lease}?said=release"))
    assert "releasing" in page
    assert "destroy is owed to the provider" in page


def test_updates_of_one_moment_are_read_once() -> None:
    asked: list[int] = []
    shared = Shared()

    def ask() -> int:
        asked.append(1)
        return len(asked)

    assert [shared.get("a", ask) for _ in range(200)] == [1] * 200
    assert shared.get("b", ask) == 2


def test_a_fault_is_not_kept_from_who_asks_later() -> None:
    shared = Shared()

    def fail() -> int:
        raise KeyError("x")

    for _ in range(2):
        with pytest.raises(KeyError):
            shared.get("a", fail)


def test_a_page_hears_of_changes_of_its_own_tenant(
    service: Service, browser: Browser, database: Database
) -> None:
    run_id = insert_runs(database, 1, status="queued")[0]
    place = re.search(r'data-place="(\d+)"', browser.get("/runs").text)
    assert place is not None
    make_key(database, tenant="other")
    with browser.client.stream("GET", f"/monitor/live?place={place[1]}") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        with browsing(service, make_key(database, name="second")) as another:
            another.post(f"/runs/{run_id}/cancel")
        found = next(line for line in lines if line.startswith("id:"))
    assert int(found[3:]) > int(place[1])
