"""A run that is started from its page."""

import html
import re
from typing import Any

import pytest

from api.browsing import Browser, browsing, text_of
from api.served import make_key
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store.database import Database
from leasehold.store.sql import load
from store.rows import insert_run


@pytest.fixture
def browser(service: Service, database: Database) -> Any:
    with browsing(service, make_key(database, Role.OPERATOR)) as browser:
        yield browser


def once_of(browser: Browser) -> str:
    found = re.search(r'name="once" value="([^"]+)"', browser.get("/new-run").text)
    assert found is not None
    return found[1]


def test_a_page_starts_its_run_once(browser: Browser, database: Database) -> None:
    fields = {
        "once": once_of(browser),
        "environment": "place",
        "command": "pytest -k 'a b'\nmake",
        "kind": "program",
        "labels": "team=core",
        "env": "CI=1",
        "secrets": "TOKEN=token",
        "timeout_s": "10m",
    }
    places = [browser.post("/new-run", fields).headers["Location"] for _ in range(2)]
    assert places[0] == places[1]
    another = browser.post("/new-run", fields | {"command": "make"}).headers["Location"]
    assert another != places[0]
    run_id = places[0].removeprefix("/monitor/runs/").partition("?")[0]
    with database.read() as tx:
        row = tx.one("SELECT * FROM runs WHERE id = :id", id=run_id)
        count = tx.value("SELECT count(*) FROM runs")
    assert count == 2
    assert row is not None
    spec = load(row["spec"])
    assert [one["argv"] for one in spec["commands"]] == [["pytest", "-k", "a b"], ["make"]]
    assert spec["env"] == {"CI": "1", "TOKEN": {"secret": "token"}}
    assert (spec["labels"], spec["timeout_s"]) == ({"team": "core"}, 600.0)
    assert "The run is submitted" in text_of(browser.get(f"/runs/{run_id}?said=started"))


def test_what_is_wrong_is_said_and_nothing_typed_is_lost(
    browser: Browser, database: Database
) -> None:
    fields = {"command": "echo <b>", "environment": "place", "timeout_s": "soon"}
    answer = browser.post("/new-run", fields)
    assert answer.status_code == 422
    assert "timeout_s" in text_of(answer)
    assert "echo &lt;b&gt;" in answer.text
    assert re.search(r'id="timeout_s"[^>]*aria-invalid="true"', answer.text)
    nowhere = browser.post("/new-run", fields | {"environment": "nowhere", "timeout_s": ""})
    assert nowhere.status_code == 422
    assert "there is no environment" in text_of(nowhere)
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM runs") == 0


def test_one_like_another_has_all_but_its_variables(
    browser: Browser, database: Database
) -> None:
    spec = {
        "commands": [{"argv": ["sh", "-c", "make && make test"]}],
        "env": {"KEY": "hush"},
        "labels": {"team": "core"},
    }
    with database.write("test") as tx:
        place = tx.value("SELECT id FROM environments WHERE name = 'place'")
        run_id = insert_run(tx, status="failed", environment_id=place, spec=spec)["id"]
    assert f"/new-run?like={run_id}" in browser.get(f"/runs/{run_id}").text
    page = browser.get(f"/new-run?like={run_id}")
    text = html.unescape(page.text)
    for words in ("make && make test", "team=core", '<option value="place" selected>',
                  "nobody is shown their values"):  # fmt: skip
        assert words in text, words
    assert "hush" not in text
    assert browser.get("/new-run?like=nowhere").status_code == 404


def test_who_may_only_look_is_offered_none(service: Service, database: Database) -> None:
    with browsing(service, make_key(database, Role.VIEWER)) as viewer:
        assert "/new-run" not in viewer.get("/runs").text
        assert "/new-run" not in viewer.get("/environments/place").text


def test_a_run_of_another_tenant_is_no_pattern(
    service: Service, browser: Browser, database: Database
) -> None:
    make_key(database, tenant="other")
    with database.write("test") as tx:
        run_id = insert_run(tx, status="failed", tenant_id="other")["id"]
    assert browser.get(f"/new-run?like={run_id}").status_code == 404
