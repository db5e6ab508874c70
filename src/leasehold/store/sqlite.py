"""
What SQLite needs and a server does not: a clock function, turns between processes, pragmas.
"""

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlmodel import create_engine

from leasehold import seams

WRITE: Final = "BEGIN IMMEDIATE"
BUSY_MS: Final = 10_000
"""How long a writer waits for its turn."""

_CACHED: Final = 500
"""Statements that a connection keeps compiled; the driver's own 128 are fewer than ours."""

_LOOK_S: Final = (0.0005, 0.004)
"""How long to sleep between two tries to be the one writer: the first time, at most."""


class NowFunction:
    """
    SQLite's ``leasehold_now()``: microseconds since the epoch.

    A signal that came while SQLite worked is handled in the first Python that runs, and that
    is often this. What its handler raises would reach the caller as a mere database error
    (Ctrl-C taken for a database that is away), so it is kept, and raised by the transaction.
    """

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self._kept = threading.local()

    def __call__(self) -> int:
        try:
            return self._now_us()
        except BaseException as error:
            self._kept.error = error
            raise

    def raise_kept(self, error: Exception) -> None:
        """Raise what was raised in the function, if that is where `error` comes from."""
        kept: BaseException | None = getattr(self._kept, "error", None)
        if kept is not None:
            self._kept.error = None
            raise kept from error


def make_engine(url: sa.URL, now: NowFunction, *, pool_size: int) -> sa.Engine:
    """Return an engine whose connections wait for their turn and know the time."""
    engine = create_engine(
        url,
        connect_args={
            "check_same_thread": False,
            "timeout": BUSY_MS / 1000,
            "cached_statements": _CACHED,
        },
        poolclass=sa.QueuePool,
        pool_size=pool_size,
        max_overflow=20,
    )

    @event.listens_for(engine, "connect")
    def connected(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None
        raw.create_function("leasehold_now", 0, now)
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    return engine


def take_turn(cursor: Any, *, busy_ms: int = BUSY_MS) -> None:
    """
    Begin to write to a file that other processes write to as well.

    SQLite's own patience sleeps for up to 100 ms between two looks: with a few busy writers
    somebody waits for seconds while the file is free most of the time.

    Args:
        busy_ms: The connection's own patience, which it has again afterwards.
    """
    end = seams.boot_time() + busy_ms / 1000
    pause, longest = _LOOK_S
    cursor.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                cursor.execute(WRITE)
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or seams.boot_time() > end:
                    raise
                seams.sleep(pause)
                pause = min(pause * 1.5, longest)
            else:
                return
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {busy_ms}")
