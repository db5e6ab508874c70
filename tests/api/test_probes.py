"""Probes over HTTP on a real stack: made, looked into, destroyed; drafts leave nothing."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.served import make_key
from command_line import Live, until
from leasehold.domain.roles import Role
from leasehold.store.database import Database

pytestmark = pytest.mark.slow
WHERE = "/api/v1/environments"
LAB = {"name": "lab", "provider": "local"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("probes") / "home") as live:
        yield live
        assert live.call("leases", "list", "--live", "--json").json() == []


@pytest.fixture(scope="module")
def url(live: Live) -> Iterator[str]:
    """Where `leasehold api` serves that home."""
    process = live.start("api", "--port", "0", "--json")
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def client_of(live: Live, url: str, role: Role) -> httpx.Client:
    database = Database(f"sqlite:///{live.home / 'leasehold.db'}")
    with database.read() as tx:
        name = f"k{tx.value('SELECT count(*) FROM api_keys')}"
    key = make_key(database, role, name=name)
    database.close()
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=90)


def over(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """Return the lease of a probe, once its sandbox is destroyed."""
    place = answer.headers["Location"]

    def ended() -> Any:
        lease = client.get(place).json()
        return lease if lease["status"] == "released" else None

    found: dict[str, Any] = until("the probe is over", ended)
    return found


def test_a_saved_place_is_probed_by_an_operator_and_nothing_stays(live: Live, url: str) -> None:
    with client_of(live, url, Role.ADMIN) as admin:
        made = admin.post(WHERE, json=LAB, params={"wait_s": 60})
        assert made.status_code == 201, made.text
    with client_of(live, url, Role.OPERATOR) as client:
        answer = client.post(f"{WHERE}/lab/probe", params={"wait_s": 60})
        assert answer.status_code == 200, answer.text
        shape = answer.json()
        assert (shape["ok"], shape["state"], shape["draft"]) == (True, "over", False)
        assert "is destroyed" in shape["summary"]
        assert shape["details"]["outcome"] == "created"
        lease = over(client, answer)
        assert [event["name"] for event in lease["events"]].count("lease.probed") == 1
        assert client.get("/api/v1/leases", params={"live": "true"}).json()["items"] == []
        lines = client.get("/api/v1/activity", params={"noun": "lease"}).json()["items"]
        assert lines[0]["data"]["probe"] == "saved"


def test_a_draft_is_tried_and_not_saved_and_only_by_who_may_save_it(
    live: Live, url: str
) -> None:
    draft = {"provider": "local", "env": {"A": "1"}}
    with client_of(live, url, Role.OPERATOR) as client:
        assert client.post(f"{WHERE}/probe", json=draft).status_code == 403
    with client_of(live, url, Role.ADMIN) as client:
        before = client.get(WHERE).json()
        answer = client.post(f"{WHERE}/probe", json=draft, params={"wait_s": 60})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["ok"], answer.json()["draft"]) == (True, True)
        assert client.get(WHERE).json() == before
        wrong = client.post(f"{WHERE}/probe", json=draft | {"config": {"colour": "red"}})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "config.colour")
        unknown = client.post(f"{WHERE}/probe", json={"provider": "dockr"})
        assert unknown.json()["code"] == "provider_missing"
        secret = draft | {"env": {"A": {"secret": "nowhere"}}}
        missing = client.post(f"{WHERE}/probe", json=secret, params={"wait_s": 60})
        assert missing.json()["ok"] is False, missing.text
        assert "nowhere" in missing.json()["summary"]


def test_who_does_not_wait_is_told_where_to_look_and_the_sandbox_goes_all_the_same(
    live: Live, url: str
) -> None:
    with client_of(live, url, Role.ADMIN) as client:
        answer = client.post(
            f"{WHERE}/probe", json={"provider": "local"}, params={"wait_s": 60}
        )
        lease = over(client, answer)
        run = {"lease_id": lease["id"], "commands": [{"argv": ["true"]}]}
        refused = client.post("/api/v1/runs", json=run)
        assert refused.status_code == 409
        assert "is a probe's" in refused.json()["message"]


def test_the_command_line_probes_what_is_saved_and_what_is_not(live: Live) -> None:
    said = live.call("env", "probe", "--provider", "local", "--json")
    assert said.code == 0, said.err
    assert (said.json()["ok"], said.json()["draft"]) == (True, True)
    assert live.call("env", "create", "desk", "--provider", "local").code == 0
    saved = live.call("env", "probe", "desk", "--json")
    assert (saved.code, saved.json()["state"]) == (0, "over")
    wrong = live.call("env", "probe", "--provider", "local", "--set", "colour=red", "--json")
    assert (wrong.code, wrong.json()["details"]["code"]) == (1, "bad_input")
    assert live.call("env", "probe", "desk", "--provider", "local").code == 2
    assert live.call("env", "probe").code == 2
