"""SQLite has one writer: who waits for it looks often, for a while, and says so in the end."""

import sqlite3
import threading

import pytest

from leasehold import seams
from leasehold.errors import StoreUnavailableError
from leasehold.store import sqlite
from leasehold.store.database import Database

pytestmark = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)


def file_of(database: Database) -> str:
    assert database.url.database is not None
    return database.url.database


def test_a_writer_in_another_process_is_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(file_of(database), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 20:
            other.execute("COMMIT")

    monkeypatch.setattr(seams, "sleep", sleep)
    with database.write("test") as tx:
        tx.run("UPDATE facts SET value = value")
    assert len(looks) == 20
    assert max(looks) <= 0.004
    other.close()


def test_one_that_never_ends_is_an_error_that_says_why(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MS", 50)
    other = sqlite3.connect(file_of(database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="database is locked"):
        database.write("test").__enter__()
    other.execute("ROLLBACK")
    other.close()
    with database.write("test") as tx:
        tx.run("UPDATE facts SET value = value")


def test_many_writers_all_get_their_turn(database: Database) -> None:
    others = [Database(f"sqlite:///{file_of(database)}") for _ in range(4)]
    with database.write("test") as tx:
        tx.run("INSERT INTO facts (name, value) VALUES ('count', '0')")

    def count(mine: Database) -> None:
        for _ in range(25):
            with mine.write("test") as tx:
                tx.run("UPDATE facts SET value = value + 1 WHERE name = 'count'")

    threads = [threading.Thread(target=count, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        assert int(float(tx.value("SELECT value FROM facts WHERE name = 'count'"))) == 100
    for one in others:
        one.close()


@pytest.mark.parametrize("later", [False, True])
def test_ctrl_c_while_sqlite_works_is_not_an_absent_database(
    database: Database, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """A signal's handler runs in the first Python that SQLite calls: there it raises."""
    calls = 0

    def interrupted() -> int:
        nonlocal calls
        calls += 1
        if calls > later:
            raise KeyboardInterrupt
        return 1

    with database.write("test") as tx:
        tx.run("INSERT INTO facts (name, value) VALUES ('another', '1')")
    monkeypatch.setattr(database, "_wall_us", interrupted)
    with pytest.raises(KeyboardInterrupt), database.read() as tx:
        tx.all("SELECT leasehold_now() + length(name) AS a FROM facts")
    monkeypatch.undo()
    with database.read() as tx:
        assert tx.now() > 1
