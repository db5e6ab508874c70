"""Ready SQL: what stands in the marks, and lists that are empty."""

from leasehold.store import executions, leases, runs
from leasehold.store.database import Database
from leasehold.store.sql import numbered, ready


def test_an_empty_list_finds_nothing_on_either_database(database: Database) -> None:
    with database.read() as tx:
        assert executions.beats(tx, []) == []
        assert runs.not_over(tx, []) == []
        assert leases.by_ids(tx, []) == {}
        names, params = numbered("x", [])
        assert tx.all(f"SELECT id FROM runs WHERE id IN ({names})", **params) == []


def test_parameters_take_the_drivers_form_and_casts_stay() -> None:
    text = "SELECT :a::bigint, '50%' FROM t WHERE b = :b OR c = :a {lock}"
    sqlite = "SELECT :a::bigint, '50%' FROM t WHERE b = :b OR c = :a "
    assert ready(text, "sqlite") == (sqlite, ("a", "b"))
    postgresql = "SELECT $1::bigint, '50%' FROM t WHERE b = $2 OR c = $1 FOR UPDATE"
    assert ready(text, "postgresql") == (postgresql, ("a", "b"))
