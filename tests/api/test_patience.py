"""The command line before an API that is in trouble: what is asked again, and what is said."""

from collections.abc import Iterator

import pytest

from api.served import make_key
from api.troubled import DROP, LOSE, Door, before
from command_line import Said, call
from leasehold.api.serving import Service
from leasehold.domain.roles import Role
from leasehold.store import runs
from leasehold.store.database import Database

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
FULL = (429, b'{"code": "full", "message": "too many runs wait", "request_id": "r-1"}')
OFTEN = (429, b'{"code": "rate_limited", "message": "too many requests", "request_id": "r-2"}')
FAULT = (500, b'{"code": "internal", "message": "a fault of ours", "request_id": "r-3"}')


@pytest.fixture
def door(service: Service) -> Iterator[Door]:
    with before(service.url) as door:
        yield door


@pytest.fixture
def token(database: Database) -> str:
    return make_key(database)


def ask(door: Door, token: str, *arguments: str) -> Said:
    environ = {"LEASEHOLD_API_URL": door.url, "LEASEHOLD_API_TOKEN": token}
    return call(*arguments, env=environ)


def count_of_runs(database: Database) -> int:
    with database.read() as tx:
        return len(runs.page(tx, tenant_id="default"))


@pytest.mark.parametrize("trouble", [LOSE, DROP, 502, 503, OFTEN])
def test_a_submit_is_asked_again_said_once_and_made_once(
    door: Door, token: str, database: Database, trouble: str | int
) -> None:
    door.plan = [trouble, trouble]
    said = ask(door, token, "run", "-d", "--env", "place", "--", "true")
    assert said.code == 0
    assert said.err.count("trying for 30 s") == 1
    assert count_of_runs(database) == 1
    assert len({key for _, _, key in door.asked}) == 1


def test_a_full_queue_is_said_at_once(door: Door, token: str) -> None:
    door.plan = [FULL]
    said = ask(door, token, "run", "-d", "--env", "place", "--", "true")
    assert (said.code, said.err) == (4, "leasehold: too many runs wait\n")
    assert len(door.asked) == 1


def test_what_could_happen_twice_is_not_asked_again(
    door: Door, token: str, database: Database
) -> None:
    door.plan = [LOSE]
    said = ask(door, token, "env", "create", "new", "--provider", "fake", "--unchecked")
    assert said.code == 5
    assert "does not answer" in said.err
    assert len(door.asked) == 1
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM environments WHERE name = 'new'") == 1


def test_what_has_a_key_is_asked_again(door: Door, token: str, database: Database) -> None:
    door.plan = [None, LOSE]
    said = ask(door, token, "leases", "create", "--env", "place", "--wait", "0")
    assert said.code == 0, said.err
    with database.read() as tx:
        assert tx.value("SELECT count(*) FROM leases") == 1


def test_a_fault_of_the_api_names_its_request(door: Door, token: str) -> None:
    door.plan = [FAULT]
    said = ask(door, token, "runs", "list")
    assert (said.code, said.err) == (70, "leasehold: a fault of ours (request r-3)\n")


def test_patience_has_an_end(door: Door, token: str) -> None:
    door.plan = [503] * 100
    said = ask(door, token, "--patience", "0.3s", "runs", "list")
    assert said.code == 5
    assert said.err.splitlines()[-1] == "leasehold: the API answered 503"


def test_what_the_role_may_not_do_is_refused_by_the_api(door: Door, database: Database) -> None:
    viewer = make_key(database, Role.VIEWER)
    for command in (
        ("runs", "cancel", "x"),
        ("env", "archive", "place"),
        ("secrets", "delete", "x"),
        ("tenants", "list"),
        ("keys", "list", "--root"),
    ):
        said = ask(door, viewer, *command)
        if command == ("runs", "cancel", "x"):
            assert (said.code, said.err) == (3, "leasehold: there is no run x\n")
            continue
        assert said.code == 7, said.err
        assert "this key has the role viewer" in said.err
        assert said.err.count("\n") == 1
        assert viewer not in said.err
