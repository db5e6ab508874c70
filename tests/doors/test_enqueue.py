"""`leasehold.enqueue`: a run belongs to the caller's transaction, whatever becomes of that."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from kombu import pools
from psycopg.rows import dict_row
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel import Session as SQLModelSession

import leasehold
from callers import PLACE, all_runs, begins_by_itself, order, orders, sent, turn
from command_line import serve
from leasehold import enqueuing
from leasehold.errors import IdempotencyConflictError, NotFoundError
from leasehold.store import moves
from leasehold.store.database import Database


def test_a_commit_means_a_run_beside_the_callers_rows_and_one_message(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with SQLModelSession(engine) as session:
        run = leasehold.enqueue(session, ["echo", "hello"], labels={"a": "b"}, **PLACE)
        order(session, run.id)
        assert all_runs(database) == []
        assert sent(redis_url) == 0
        session.commit()
    (row,) = all_runs(database)
    assert (row["id"], row["status"], row["labels"]) == (run.id, "running", {"a": "b"})
    assert orders(engine) == [run.id]
    assert sent(redis_url) == 1
    with database.read() as tx:
        first, second = moves.events_of(tx, run_id=run.id)
    assert (first["name"], first["data"]) == ("run.queued", {"actor": "enqueue"})
    assert second["name"] == "run.running"


def test_a_rollback_means_no_run_and_no_message(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with Session(engine) as session:
        order(session)
        leasehold.enqueue(session, ["true"], **PLACE)
        session.rollback()
        order(session)
        session.commit()
    assert (all_runs(database), len(orders(engine)), sent(redis_url)) == ([], 1, 0)


def test_a_session_that_is_used_again_sends_each_run_once(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with Session(engine) as session:
        for count in (1, 2):
            leasehold.enqueue(session, ["true"], **PLACE)
            session.commit()
            assert sent(redis_url) == count
        order(session)
        session.commit()
    assert sent(redis_url) == 2
    assert {row["status"] for row in all_runs(database)} == {"running"}


def test_a_savepoint_that_is_rolled_back_takes_its_runs_with_it(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    begins_by_itself(engine)
    with Session(engine) as session:
        kept = leasehold.enqueue(session, ["true"], **PLACE)
        with session.begin_nested():
            inner = leasehold.enqueue(session, ["true"], **PLACE)
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            leasehold.enqueue(session, ["false"], **PLACE)
            raise ZeroDivisionError
        assert sent(redis_url) == 0
        session.commit()
    assert {row["id"] for row in all_runs(database)} == {kept.id, inner.id}
    assert sent(redis_url) == 2


def test_a_savepoint_with_its_runs_is_nothing_once_the_whole_is_rolled_back(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    begins_by_itself(engine)
    with Session(engine) as session:
        with session.begin_nested():
            leasehold.enqueue(session, ["true"], **PLACE)
        session.rollback()
    assert (all_runs(database), sent(redis_url)) == ([], 0)


def test_without_a_broker_the_caller_goes_on_and_the_clock_sends(
    engine: sa.Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASEHOLD_BROKER_URL", "redis://127.0.0.1:1/0")
    with Session(engine) as session:
        run = leasehold.enqueue(session, ["true"], **PLACE)
        session.commit()
    (row,) = all_runs(database)
    assert row["status"] == "running"
    with database.write("test") as tx:
        tx.run("UPDATE runs SET due_at = {now}")
    assert [message.id for message in turn(database)] == [run.id]


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from kombu import pools
from psycopg.rows import dict_row
from sqlalchemy.orm import Session
import leasehold

engine = sa.create_engine(sys.argv[1])
with Session(engine) as session:
    sa.event.listen(session, "after_commit", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    run = leasehold.enqueue(session, ["true"], environment="place")
    print(run.id, flush=True)
    session.commit()
"""


def test_a_process_that_dies_between_commit_and_message_leaves_its_run_to_the_clock(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    url = engine.url.render_as_string(hide_password=False)
    dead = subprocess.run(
        [sys.executable, "-c", KILLED, url],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    run_id = dead.stdout.strip()
    (row,) = all_runs(database)
    assert (row["id"], row["status"], sent(redis_url)) == (run_id, "queued", 0)
    assert [message.id for message in turn(database)] == [run_id]


def test_a_key_makes_one_run_and_refuses_another_body(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with Session(engine) as session:
        first = leasehold.enqueue(session, ["true"], key="k", **PLACE)
        again = leasehold.enqueue(session, ["true"], key="k", **PLACE)
        session.commit()
        later = leasehold.enqueue(session, ["true"], key="k", **PLACE)
        session.commit()
        with pytest.raises(IdempotencyConflictError, match="another body"):
            leasehold.enqueue(session, ["false"], key="k", **PLACE)
    assert [first.new, again.new, later.new] == [True, False, False]
    assert {first.id, again.id, later.id} == {row["id"] for row in all_runs(database)}
    assert sent(redis_url) == 1


def test_of_two_sessions_with_one_key_at_once_one_makes_the_run(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    asked = threading.Barrier(2)

    def work(_number: int) -> leasehold.Enqueued:
        with Session(engine) as session:
            asked.wait(10)
            run = leasehold.enqueue(session, ["true"], key="k", **PLACE)
            order(session, run.id)
            session.commit()
            return run

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, range(2)))
    (row,) = all_runs(database)
    assert {run.id for run in found} == {row["id"]}
    assert sorted(run.new for run in found) == [False, True]
    assert orders(engine) == [row["id"]] * 2
    assert sent(redis_url) == 1


def test_who_waits_for_a_key_that_is_rolled_back_makes_the_run(
    engine: sa.Engine, database: Database
) -> None:
    waiting = threading.Event()

    def second() -> leasehold.Enqueued:
        with Session(engine) as session:
            waiting.set()
            run = leasehold.enqueue(session, ["true"], key="k", **PLACE)
            session.commit()
            return run

    with ThreadPoolExecutor(1) as pool, Session(engine) as session:
        first = leasehold.enqueue(session, ["true"], key="k", **PLACE)
        found = pool.submit(second)
        waiting.wait(10)
        session.rollback()
        run = found.result(10)
    assert run.new
    assert run.id != first.id
    assert [row["id"] for row in all_runs(database)] == [run.id]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_an_open_transaction_with_a_run_in_it_holds_up_nobody(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with Session(engine) as idle, Session(engine) as busy:
        leasehold.enqueue(idle, ["true"], key="one", **PLACE)
        other = leasehold.enqueue(busy, ["true"], key="two", **PLACE)
        busy.commit()
        (row,) = all_runs(database)
        assert (row["id"], row["status"], sent(redis_url)) == (other.id, "running", 1)


def test_runs_of_one_transaction_may_start_after_each_other(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with Session(engine) as session:
        first = leasehold.enqueue(session, ["true"], **PLACE)
        second = leasehold.enqueue(session, ["true"], after=[first.id], **PLACE)
        session.commit()
    rows = {row["id"]: row for row in all_runs(database)}
    assert rows[first.id]["status"] == "running"
    assert (rows[second.id]["status"], rows[second.id]["waits"]) == ("queued", 1)
    assert sent(redis_url) == 1
    turn(database)
    with database.read() as tx:
        assert not tx.value("SELECT count(*) FROM predecessors WHERE due")
        assert tx.value("SELECT awaited FROM runs WHERE id = :id", id=first.id)
    with Session(engine) as session, pytest.raises(NotFoundError, match="after: there is no"):
        leasehold.enqueue(session, ["true"], after=["nothing"], **PLACE)


def test_a_connection_sends_when_it_is_told_that_it_committed(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    with engine.begin() as connection:
        run = leasehold.enqueue(connection, ["true"], **PLACE)
    assert all_runs(database)[0]["status"] == "queued"
    run.send()
    run.send()
    assert all_runs(database)[0]["status"] == "running"
    assert sent(redis_url) == 1


def test_a_session_inside_of_a_bigger_transaction_leaves_its_run_to_the_clock(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    begins_by_itself(engine)
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            leasehold.enqueue(session, ["true"], **PLACE)
            session.commit()
        assert sent(redis_url) == 0
        outer.rollback()
    assert all_runs(database) == []


def test_runs_that_wait_come_first(engine: sa.Engine, database: Database) -> None:
    with engine.begin() as connection:
        old = leasehold.enqueue(connection, ["true"], **PLACE)
    with Session(engine) as session:
        new = leasehold.enqueue(session, ["true"], **PLACE)
        session.commit()
    assert {row["status"] for row in all_runs(database)} == {"queued"}
    assert [message.id for message in turn(database)] == [old.id, new.id]


def test_the_environment_local_is_made_on_first_use(
    engine: sa.Engine, database: Database
) -> None:
    with database.write("test") as tx:
        serve(tx, key="local", host_id="host-of-worker-1")
    with Session(engine) as session:
        leasehold.enqueue(session, ["true"])
        session.commit()
    assert all_runs(database)[0]["provider"] == "local"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_callers_patience_is_given_back(engine: sa.Engine) -> None:
    with Session(engine) as session:
        connection = session.connection()
        connection.exec_driver_sql("PRAGMA busy_timeout = 1234")
        session.commit()
        leasehold.enqueue(session, ["true"], **PLACE)
        assert session.connection().exec_driver_sql("PRAGMA busy_timeout").scalar() == 1234
        session.commit()


def test_rows_come_as_we_want_them_whatever_the_caller_likes(
    engine: sa.Engine, database: Database
) -> None:
    scoped = scoped_session(sessionmaker(engine))
    raw: Any = scoped.connection().connection.driver_connection
    before = raw.row_factory
    raw.row_factory = dict_row if engine.dialect.name == "postgresql" else sqlite3.Row
    leasehold.enqueue(scoped, ["true"], **PLACE)
    raw.row_factory = before
    scoped.commit()
    scoped.remove()
    assert [row["status"] for row in all_runs(database)] == ["running"]


def test_a_fork_leaves_the_parents_connections_to_the_parent(
    engine: sa.Engine, database: Database, redis_url: str
) -> None:
    def work() -> None:
        with Session(engine) as session:
            leasehold.enqueue(session, ["true"], **PLACE)
            session.commit()

    work()
    assert pools.connections
    child = os.fork()
    if child == 0:
        engine.dispose(close=False)
        enqueuing._process()
        shared = bool(pools.connections or pools.producers)
        work()
        os._exit(int(shared))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    work()
    assert {row["status"] for row in all_runs(database)} == {"running"}
    assert sent(redis_url) == 3


def test_to_import_the_package_costs_nothing() -> None:
    code = (
        "import sys, leasehold; print([name for name in sys.modules if name.split('.')[0] in"
        " {'sqlalchemy', 'sqlmodel', 'pydantic', 'httpx', 'celery', 'structlog'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
