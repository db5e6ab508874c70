"""Ctrl-C between two pieces of work, whatever it meets."""

import signal
import sqlite3
from collections.abc import Iterator

import pytest

from leasehold.cli import heeding


@pytest.fixture(autouse=True)
def taken() -> Iterator[None]:
    """SIGINT as Python takes it, and given back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def asked_the_time(connection: sqlite3.Connection) -> list[tuple[int]]:
    """A statement in which a signal comes while SQLite calls back."""

    def now() -> int:
        signal.raise_signal(signal.SIGINT)
        return 7

    connection.create_function("now_is", 0, now)
    return connection.execute("SELECT now_is()").fetchall()


def test_a_signal_in_a_callback_of_the_driver_is_an_interrupt_and_no_database_error() -> None:
    done: list[list[tuple[int]]] = []
    connection = sqlite3.connect(":memory:")
    with heeding.ctrl_c(), pytest.raises(KeyboardInterrupt):
        with heeding.unbroken(), heeding.unbroken():
            done.append(asked_the_time(connection))
        pytest.fail("it was not interrupted")
    assert done == [[(7,)]]
    connection.close()


def test_what_fails_while_a_signal_waits_gives_way_to_it() -> None:
    with heeding.ctrl_c(), pytest.raises(KeyboardInterrupt), heeding.unbroken():
        signal.raise_signal(signal.SIGINT)
        raise OSError


def test_the_second_signal_does_not_wait() -> None:
    after = []
    with heeding.ctrl_c(), pytest.raises(KeyboardInterrupt), heeding.unbroken():
        signal.raise_signal(signal.SIGINT)
        after.append("first")
        signal.raise_signal(signal.SIGINT)
        after.append("second")
    assert after == ["first"]
    with heeding.unbroken():
        after.append("nothing is left of it")


def test_outside_of_a_piece_of_work_it_comes_at_once_and_is_given_back() -> None:
    with heeding.ctrl_c(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was not interrupted")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with heeding.ctrl_c(), heeding.unbroken():
        signal.raise_signal(signal.SIGINT)
