"""A database whose host's wall clock a test can set."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leasehold.store.database import Database
from story.conftest import House

# The raw clock of a private database, with a jump that the test sets.
JUMPY = """
CREATE TABLE test_jump (us bigint NOT NULL);
INSERT INTO test_jump VALUES (0);
CREATE OR REPLACE FUNCTION leasehold_now() RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    + (SELECT us FROM test_jump)
    + coalesce((SELECT value::bigint FROM facts WHERE name = 'clock_offset_us'), 0);
END $$
"""


@pytest.fixture
def jump(database: Database) -> Iterator[Callable[[int], None]]:
    """Set the raw clock of the database's host to be off by so many microseconds."""
    if database.dialect == "postgresql":
        with database.write("test") as tx:
            tx.connection.exec_driver_sql(JUMPY)

    def by(us: int) -> None:
        if database.dialect == "sqlite":
            database.offset_us = us
            return
        with database.write("test") as tx:
            tx.run("UPDATE test_jump SET us = :us", us=us)

    yield by


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, tmp_path / "fake")
