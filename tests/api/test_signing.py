"""Signing in with a browser: with a key or a printed link, and how it ends."""

import re

import pytest

from api.browsing import ROOT, browsing, text_of
from api.served import make_key, serving
from leasehold import settings as knobs
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.orchestrator import signing
from leasehold.settings import Settings
from leasehold.store.database import Database


def link(database: Database) -> str:
    with database.write("test") as tx:
        return signing.make_link(tx, tenant_id="default", actor="test")


def test_a_key_signs_in_and_its_cookie_is_for_pages_of_ours_only(
    service: Service, database: Database
) -> None:
    with browsing(service, None) as browser:
        key = make_key(database, Role.VIEWER)
        answer = browser.client.post(f"{ROOT}/sign-in", data={"key": f" {key}\n"})
        assert (answer.status_code, answer.headers["Location"]) == (303, ROOT)
        cookie = answer.headers["Set-Cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "secure" not in cookie  # this test speaks plain HTTP
        assert key not in cookie
        page = browser.get("")
        assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
        assert "default-viewer · viewer" in text_of(page)
        with database.read() as tx:
            stored = str(tx.all("SELECT * FROM passes"))
            said = tx.all("SELECT name, data FROM events WHERE name LIKE 'key.signed%'")
        assert browser.secret not in stored
        assert len(said) == 1


def test_with_tls_the_cookie_is_secure_and_of_this_host_alone(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_API_PROXIES", "127.0.0.1")
    with serving(knobs.load()) as service, browsing(service, None) as browser:
        browser.client.headers["X-Forwarded-Proto"] = "https"
        key = make_key(database)
        answer = browser.client.post(f"{ROOT}/sign-in", data={"key": key})
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-leasehold=")
        assert "Secure" in cookie
        assert "Path=/" in cookie
    assert settings


@pytest.mark.parametrize("end", ["revoked_at", "expires_at"])
def test_a_session_ends_with_its_key(service: Service, database: Database, end: str) -> None:
    with browsing(service, make_key(database)) as browser:
        assert browser.get("/runs").status_code == 200
        with database.write("test") as tx:
            tx.run(f"UPDATE api_keys SET {end} = {{now}}")
        answer = browser.get("/runs?status=failed")
        assert answer.status_code == 303
        wanted = "/monitor/sign-in?next=%2Fmonitor%2Fruns%3Fstatus%3Dfailed"
        assert answer.headers["Location"] == wanted
        update = browser.get("/runs", headers={"HX-Request": "true"})
        assert (update.status_code, update.headers["HX-Redirect"]) == (401, f"{ROOT}/sign-in")
        stream = browser.get("/live", headers={"Accept": "text/event-stream"})
        assert stream.status_code == 401


def test_a_session_ends_by_itself_and_its_row_goes(
    service: Service, database: Database
) -> None:
    with browsing(service, make_key(database)) as browser:
        with database.write("test") as tx:
            tx.run("UPDATE passes SET expires_at = {now}")
        assert browser.get("").status_code == 303
    link(database)
    with database.read() as tx:
        assert [row["kind"] for row in tx.all("SELECT kind FROM passes")] == ["link"]


def test_who_signs_out_is_out_wherever_the_cookie_is(
    service: Service, database: Database
) -> None:
    with browsing(service, make_key(database)) as browser:
        kept = browser.secret
        answer = browser.post("/sign-out")
        assert answer.status_code == 303
        assert "leasehold" not in browser.client.cookies
        browser.client.headers["Cookie"] = f"leasehold={kept}"
        assert browser.get("").status_code == 303


def test_a_link_signs_in_once(service: Service, database: Database) -> None:
    secret = link(database)
    with browsing(service, None) as browser, browsing(service, None) as late:
        first = browser.get(f"/sign-in?link={secret}")
        assert (first.status_code, first.headers["Location"]) == (303, ROOT)
        assert "monitor · admin" in text_of(browser.get(""))
        second = late.get(f"/sign-in?link={secret}")
        assert second.status_code == 401
        assert "used already" in text_of(second)
        assert not late.client.cookies
        # It is no session itself.
        late.client.headers["Cookie"] = f"leasehold={link(database)}"
        assert late.get("").status_code == 303


def test_a_link_ends_by_itself(service: Service, database: Database) -> None:
    secret = link(database)
    with database.write("test") as tx:
        tx.run("UPDATE passes SET expires_at = {now}")
    with browsing(service, None) as browser:
        assert browser.get(f"/sign-in?link={secret}").status_code == 401


def test_links_are_of_one_key_that_can_be_revoked(database: Database) -> None:
    link(database)
    link(database)
    with database.read() as tx:
        assert [row["name"] for row in tx.all("SELECT name FROM api_keys")] == ["monitor"]


def test_guesses_are_counted_and_nothing_is_told_of_keys(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_API_FAILURES_PER_MINUTE", "3")
    with serving(knobs.load()) as service, browsing(service, None) as browser:
        good = make_key(database)
        for _ in range(5):
            answer = browser.client.post(f"{ROOT}/sign-in", data={"key": good})
            assert answer.status_code == 303
        browser.client.cookies.clear()
        for key in (f"lh_{'0' * 16}_{'A' * 43}", "", good[:-1] + "-"):
            answer = browser.client.post(f"{ROOT}/sign-in", data={"key": key})
            assert answer.status_code == 401
            assert "the API key is not valid" in text_of(answer)
        late = browser.get("/sign-in?link=guess")
        assert late.status_code == 429
        assert int(late.headers["Retry-After"]) > 0
        assert "too many requests" in text_of(late)
    assert settings


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example", "https://evil.example", "/monitorx", "/monitor/../..//evil", "/\\evil",
     "/monitor\r\nSet-Cookie: a=b", "/monitor/sign-in?link=x", "javascript:alert(1)"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_signing_in(
    service: Service, database: Database, wanted: str
) -> None:
    with browsing(service, None) as browser:
        data = {"key": make_key(database), "next": wanted}
        answer = browser.client.post(f"{ROOT}/sign-in", data=data)
        assert answer.status_code == 303
        assert re.fullmatch(r"/monitor(/[^/\\].*)?", answer.headers["Location"])
        assert "evil" not in answer.headers["Location"] or "\\" not in wanted
