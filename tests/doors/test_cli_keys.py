"""Keys of the API, through the command line: shown once, stored as a hash, revoked for good."""

import hashlib

import pytest

from command_line import call
from leasehold.errors import UnauthenticatedError
from leasehold.orchestrator import keys
from leasehold.store import keys as rows
from leasehold.store.database import Database

pytestmark = pytest.mark.usefixtures("deployment")
MINUTE_US = 60_000_000


def test_a_key_is_shown_once_and_stored_as_a_hash(database: Database) -> None:
    said = call("keys", "create", "ci", "--role", "operator", "--json")
    assert said.code == 0, said.err
    made = said.json()
    assert made["role"] == "operator"
    with database.read() as tx:
        stored = keys.authenticate(tx, made["key"])
        everything = str(tx.all("SELECT * FROM api_keys")) + str(tx.all("SELECT * FROM events"))
    assert stored["id"] == made["id"]
    assert stored["hash"] == hashlib.sha256(made["key"].encode()).hexdigest()
    assert made["key"].rsplit("_", 1)[-1] not in everything
    listed = call("keys", "list", "--json")
    assert [key["name"] for key in listed.json()] == ["ci"]
    assert made["key"] not in listed.out + call("keys", "list").out


def test_a_key_goes_to_stdout_alone() -> None:
    said = call("keys", "create", "ci")
    assert said.out.startswith("lh_")
    assert said.out.count("\n") == 1
    assert "not shown again" in said.err


def test_a_revoked_key_is_none_and_its_name_is_free_again(database: Database) -> None:
    first = call("keys", "create", "ci", "--json").json()
    taken = call("keys", "create", "ci")
    assert taken.code == 4
    assert "revoke it, or take another name" in taken.err
    assert call("keys", "revoke", "ci", "--json").json()["status"] == "revoked"
    assert call("keys", "revoke", "ci").code == 3
    second = call("keys", "create", "ci", "--json").json()
    with database.read() as tx:
        with pytest.raises(UnauthenticatedError, match="was revoked"):
            keys.authenticate(tx, first["key"])
        assert keys.authenticate(tx, second["key"])["id"] == second["id"]
        events = tx.all("SELECT name, data FROM events ORDER BY id")
    assert [e["name"] for e in events] == ["key.created", "key.revoked", "key.created"]
    assert all('"actor"' in e["data"] for e in events)


def test_an_expired_key_is_none(database: Database) -> None:
    made = call("keys", "create", "ci", "--expires", "1h", "--json").json()
    with database.write("test") as tx:
        assert keys.authenticate(tx, made["key"])["name"] == "ci"
        tx.run("UPDATE api_keys SET expires_at = {now}")
        with pytest.raises(UnauthenticatedError, match="has expired"):
            keys.authenticate(tx, made["key"])
    (listed,) = call("keys", "list", "--json").json()
    assert listed["status"] == "expired"


def test_who_has_only_part_of_a_key_learns_nothing(database: Database) -> None:
    key = call("keys", "create", "ci", "--json").json()["key"]
    call("keys", "revoke", "ci")
    begin, last = key[:-1], "B" if key[-1] == "A" else "A"
    with database.read() as tx:
        for wrong in ("", "lh_", begin, begin + last, key + "\n", key.upper(), "lh_\udcff"):
            with pytest.raises(UnauthenticatedError, match=r"^the API key is not valid$"):
                keys.authenticate(tx, wrong)


def test_a_use_is_noted_once_a_minute(database: Database) -> None:
    key = call("keys", "create", "ci", "--json").json()["key"]
    with database.write("test") as tx:
        row = keys.authenticate(tx, key)
        assert keys.is_to_be_touched(row)
        assert rows.touch(tx, row["id"], after_us=MINUTE_US)
        assert not keys.is_to_be_touched(keys.authenticate(tx, key))
        assert not rows.touch(tx, row["id"], after_us=MINUTE_US)
        tx.run("UPDATE api_keys SET last_used_at = {now} - :minute", minute=MINUTE_US)
        assert keys.is_to_be_touched(keys.authenticate(tx, key))
        assert rows.touch(tx, row["id"], after_us=MINUTE_US)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a b",), "NAME: "),
        (
            ("ci", "--role", "emperor"),
            "--role: Input should be 'viewer', 'operator', 'admin' or 'root'",
        ),
        (("ci", "--expires", "soon"), "--expires: must be seconds or a duration"),
        (("ci", "--expires", "0"), "--expires: Input should be greater than 0"),
    ],
)
def test_bad_input_names_the_option(arguments: tuple[str, ...], words: str) -> None:
    said = call("keys", "create", *arguments)
    assert said.code == 2
    assert words in said.err
