"""A program of somebody else's, with its own table in a database that holds ours."""

from typing import Any, Final

import redis
import sqlalchemy as sa
from sqlalchemy.orm import Session

from leasehold.bootstrap import App
from leasehold.domain.timers import Timers
from leasehold.maintenance import clock
from leasehold.orchestrator.jobs import Message
from leasehold.settings import Settings
from leasehold.store import runs
from leasehold.store.database import Database, Row

ORDERS: Final = "CREATE TABLE orders (run_id varchar(64))"
PLACE: Final[dict[str, Any]] = {"environment": "place"}


def engine_of(url: str, **options: Any) -> sa.Engine:
    return sa.create_engine(
        sa.make_url(url).set(
            drivername="postgresql+psycopg" if url.startswith("postgres") else "sqlite"
        ),
        **options,
    )


def order(session: Session, run_id: str | None = None) -> None:
    session.execute(sa.text("INSERT INTO orders (run_id) VALUES (:run)"), {"run": run_id})


def orders(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text("SELECT run_id FROM orders")).scalars())


def all_runs(database: Database) -> list[Row]:
    with database.read() as tx:
        return runs.page(tx, tenant_id="default")


def sent(redis_url: str) -> int:
    """Count the messages that wait for workers."""
    with redis.Redis.from_url(redis_url) as client:
        return sum(
            client.llen(key)
            for key in client.scan_iter("leasehold.leasehold*")
            if client.type(key) == b"list"
        )


def turn(database: Database) -> list[Message]:
    """Let a clock do one turn; return what it sends."""
    messages: list[Message] = []
    app = App(Settings(), database, Timers(), deployment="test", epoch=0)
    clock.run_once(app.context(publish=messages.append), batch=10)
    return messages


def begins_by_itself(engine: sa.Engine) -> None:
    """Do what docs/python.md says of savepoints on SQLite."""
    if engine.dialect.name == "sqlite":
        event = sa.event

        @event.listens_for(engine, "connect")
        def connected(raw: Any, _record: object) -> None:
            raw.isolation_level = None

        @event.listens_for(engine, "begin")
        def begun(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        engine.dispose()
