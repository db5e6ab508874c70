"""An environment's pages: changed by a form, probed, deleted."""

import html
import re
from typing import Any

import pytest

from api.browsing import Browser, browsing, text_of
from api.served import make_key
from command_line import environment, serve
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.provider import secret_field
from leasehold.store.database import Database
from leasehold.store.sql import load
from store.rows import insert_lease, insert_run, insert_worker

SCHEMA = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string"},
        "memory_mb": {"type": "integer", "minimum": 16},
        "quick": {"type": "boolean"},
        "allow": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "password": secret_field("What opens it."),
        "mounts": {"type": "array", "items": {"type": "object"}},
    },
}
CONFIG = {
    "image": "debian:13",
    "memory_mb": 512,
    "quick": False,
    "allow": ["a:1", "b:2"],
    "labels": {"x": "1", "y": "2"},
    "password": {"secret": "engine"},
    "mounts": [{"from": "/a"}],
    "unknown": "stays",
}


@pytest.fixture
def browser(service: Service, database: Database) -> Any:
    with browsing(service, make_key(database)) as browser:
        yield browser


@pytest.fixture
def place(browser: Browser, database: Database) -> str:
    with database.write("test") as tx:
        host = tx.value("SELECT id FROM hosts")
        serve(tx, key="cloud", host_id=host, schema=SCHEMA)
        env = {"CI": "hush", "OLD": "hush", "TOKEN": {"secret": "token"}}
        environment(
            tx,
            "ci",
            provider="cloud",
            config=CONFIG,
            env=env,
            limits={"max_concurrent": 3},
            idle_ttl_s=2_592_000,
        )
    return "/environments/ci"


def form_of(page: str) -> dict[str, list[str]]:
    """Return what a browser would send of the page's form, as it was loaded."""
    body = page[page.index('class="card stack"') :]
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", body):
        name, value = re.search(r' name="([^"]*)"', tag), re.search(r' value="([^"]*)"', tag)
        kept = 'type="checkbox"' not in tag or " checked" in tag
        if name and kept:
            found[name[1]] = [html.unescape(value[1]) if value else ""]
    for name, text in re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>([^<]*)<', body):
        found[name] = [html.unescape(text)]
    for name, options in re.findall(
        r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', body, re.DOTALL
    ):
        chosen = re.search(r'<option(?: value="([^"]*)")? selected>([^<]*)', options)
        found[name] = [(chosen[1] or chosen[2]) if chosen else ""]
    return {name: value for name, value in found.items() if name != "token"}


def spec_of(database: Database, name: str = "ci") -> Any:
    with database.read() as tx:
        return load(tx.value("SELECT spec FROM environments WHERE name = :name", name=name))


def test_a_form_that_is_sent_as_it_came_changes_nothing(
    browser: Browser, database: Database, place: str
) -> None:
    before = spec_of(database)
    page = browser.get(f"{place}/change").text
    assert "hush" not in page
    answer = browser.post(f"{place}/change", form_of(page))
    assert answer.headers["Location"].endswith("said=unchanged"), text_of(answer)
    assert spec_of(database) == before


def test_what_is_different_is_changed_and_all_else_stays(
    browser: Browser, database: Database, place: str
) -> None:
    fields = form_of(browser.get(f"{place}/change").text)
    fields |= {
        "config.memory_mb": [""],
        "config.quick": ["true"],
        "config.allow": ["a:1"],
        "config.labels": ["y=3\nz=4"],
        "config.mounts": ['[{"from": "/b"}]'],
        "drop": ["OLD"],
        "env": ["NEW=1"],
        "secrets": [""],
        "max_concurrent": [""],
        "requires": ["gpu=yes"],
        "idle_ttl_s": ["5m"],
        "description": ["for the builds"],
    }
    with database.write("test") as tx:
        tx.run("UPDATE hosts SET labels = :labels", labels='{"gpu": "yes"}')
    answer = browser.post(f"{place}/change", fields)
    assert answer.status_code == 303, text_of(answer)
    spec = spec_of(database)
    assert spec["config"] == {
        "image": "debian:13",
        "quick": True,
        "allow": ["a:1"],
        "labels": {"y": "3", "z": "4"},
        "password": {"secret": "engine"},
        "mounts": [{"from": "/b"}],
        "unknown": "stays",
    }
    assert spec["env"] == {"CI": "hush", "NEW": "1"}
    assert (spec["limits"]["max_concurrent"], spec["requires"]) == (None, {"gpu": "yes"})
    assert (spec["idle_ttl_s"], spec["description"]) == (300.0, "for the builds")
    shown = text_of(browser.get(f"{place}?said=changed"))
    assert "The changes are saved" in shown
    assert "by worker" in shown


def test_two_who_change_one_do_not_overwrite_each_other(
    browser: Browser, database: Database, place: str
) -> None:
    fields = form_of(browser.get(f"{place}/change").text)
    assert browser.post(f"{place}/change", fields | {"description": ["a"]}).status_code == 303
    late = browser.post(f"{place}/change", fields | {"description": ["b"]})
    assert late.status_code == 422
    assert "was changed meanwhile" in text_of(late)
    assert spec_of(database)["description"] == "a"


def test_what_is_wrong_is_marked_and_nothing_typed_is_lost(
    browser: Browser, database: Database, place: str
) -> None:
    fields = form_of(browser.get(f"{place}/change").text) | {"config.memory_mb": ["1"]}
    answer = browser.post(f"{place}/change", fields | {"description": ["<b>typed"]})
    assert answer.status_code == 422
    assert re.search(r'id="config.memory_mb"[^>]*aria-invalid="true"', answer.text)
    assert "&lt;b&gt;typed" in answer.text
    assert spec_of(database)["config"]["memory_mb"] == 512


def test_a_config_that_nobody_can_check_is_saved_only_if_that_is_wanted(
    browser: Browser, database: Database
) -> None:
    with database.write("test") as tx:
        other = insert_worker(tx, "gone")
        serve(tx, key="away", host_id=other["host_id"])
        now = tx.now()
        tx.run("UPDATE workers SET status = 'gone', gone_at = :n WHERE id = 'gone'", n=now)
        tx.run(
            "UPDATE sessions SET status = 'expired', ended_at = :n WHERE id = :id",
            n=now,
            id=other["session_id"],
        )
    fields = {"provider": "away", "name": "far"}
    refused = browser.post("/new-environment", fields)
    assert refused.status_code == 422
    assert "Save it unchecked" in refused.text
    assert browser.post("/new-environment", fields | {"unchecked": "yes"}).status_code == 303
    assert "not by a provider" in text_of(browser.get("/environments/far"))


def test_a_probe_leads_to_its_result(browser: Browser, database: Database, place: str) -> None:
    answer = browser.post(f"{place}/probe")
    where = answer.headers["Location"].removeprefix("/monitor")
    assert where.startswith(f"{place}/probes/")
    assert "its sandbox is being made" in text_of(browser.get(where))
    lease = where.rpartition("/")[2]
    assert browser.get(f"/environments/place/probes/{lease}").status_code == 404
    with database.write("test") as tx:
        plain = insert_lease(tx, status="idle")["id"]
    assert browser.get(f"{place}/probes/{plain}").status_code == 404
    browser.post(f"{place}/archive")
    assert browser.post(f"{place}/probe").status_code == 409


def test_what_is_in_use_is_deleted_only_by_its_name(
    browser: Browser, database: Database, place: str
) -> None:
    with database.write("test") as tx:
        row = tx.value("SELECT id FROM environments WHERE name = 'ci'")
        insert_run(tx, status="queued", environment_id=row)
        insert_lease(tx, status="idle", environment_id=row)
    page = text_of(browser.get(f"{place}/delete"))
    for words in ("Runs that are not over 1 1 queued", "Live leases 1 1 idle", "Type its name"):
        assert words in page, words
    for wrong in ({}, {"confirm": "CI"}, {"confirm": ""}):
        assert browser.post(f"{place}/delete", wrong).status_code == 409
    done = browser.post(f"{place}/delete", {"confirm": "ci"})
    assert done.headers["Location"].endswith("/environments?said=deleted")
    assert browser.get(place).status_code == 404


def test_what_is_in_no_use_needs_no_name(browser: Browser, place: str) -> None:
    assert "Nothing: no run in it is unfinished" in text_of(browser.get(f"{place}/delete"))
    assert browser.post(f"{place}/delete").status_code == 303


def test_buttons_are_those_of_the_role(
    service: Service, database: Database, place: str
) -> None:
    for role, shown in ((Role.VIEWER, ()), (Role.OPERATOR, ("Probe",)),
                        (Role.ADMIN, ("Probe", "Change …", "Delete …"))):  # fmt: skip
        with browsing(service, make_key(database, role, name=f"of-{role.value}")) as browser:
            text = text_of(browser.get(place))
            there = tuple(one for one in ("Probe", "Change …", "Delete …") if one in text)
            assert there == shown, role
