"""
SQL about whether this database is still the one that the deployment's sandboxes belong to.

A database that was restored from a backup, or copied, remembers yesterday: to act on its word
could destroy sandboxes of today. What proves it raises the *alarm*, a fact that stays until a
person has said `leasehold db restored`. While it stands nothing is claimed, sent, timed out or
swept (`runtime.keeper`, `maintenance.clock`, `orchestrator.sweep`); commands go on.
"""

from dataclasses import dataclass
from typing import Final

from leasehold.store import environments
from leasehold.store.database import Row, Tx
from leasehold.store.sql import dump, load

COMMAND: Final = "leasehold db restored"
_BOUND: Final = "bound_to"
_ALARM: Final = "alarm"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a host remembers of the deployment, outside of its database."""

    deployment: str
    epoch: int
    number: int
    """The highest number of a lease."""


def alarm(tx: Tx) -> str | None:
    """Return why this database is not trusted, or None."""
    value = environments.fact(tx, _ALARM)
    return None if value is None else words(value)


def words(value: str) -> str:
    """Return an alarm's fact as one sentence that names the command."""
    return f"{load(value)['why']}; nothing is done until a person says `{COMMAND}`"


def raise_alarm(tx: Tx, why: str, *, epoch: int, seen: int = 0) -> None:
    """
    Raise the alarm, unless somebody has raised the epoch meanwhile.

    Args:
        epoch: The epoch that the caller works in.
        seen: The highest epoch that it has met: the next one must be above it too, for a
            database that was restored twice from one backup.
    """
    current = environments.fact(tx, "epoch")
    if current != str(epoch):
        return
    stands = load(environments.fact(tx, _ALARM) or "null")
    if stands is None:
        stands = {"why": why, "at": tx.now(), "seen": seen}
    stands["seen"] = max(seen, stands["seen"])
    environments.set_fact(tx, _ALARM, dump(stands))


def epoch(tx: Tx) -> int:
    """Return the deployment's epoch: the high bits of its fences."""
    return int(environments.fact(tx, "epoch") or "0")


def confirm(tx: Tx) -> int:
    """Take this database for the deployment's from now on; return the new epoch."""
    alarm = load(environments.fact(tx, _ALARM) or "null")
    fresh = max(epoch(tx), alarm["seen"] if alarm else 0) + 1
    environments.set_fact(tx, "epoch", str(fresh))
    tx.run("DELETE FROM facts WHERE name = :name", name=_ALARM)
    if (mine := identity(tx)) is not None:
        environments.set_fact(tx, _BOUND, mine)
    return fresh


def identity(tx: Tx) -> str | None:
    """
    Return what tells this database from a copy of it; None where nothing does.

    PostgreSQL: the cluster's system identifier and the database's oid, which a dump does not
    carry. A SQLite file is only its bytes: there, hosts remember (`Seen`).
    """
    if tx.dialect == "sqlite":
        return None
    oid = tx.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    if not tx.value("SELECT has_function_privilege('pg_control_system()', 'execute')"):
        return str(oid)
    system = tx.value("SELECT system_identifier FROM pg_control_system()")
    return f"{system}/{oid}"


def bind(tx: Tx) -> None:
    """Bind the deployment to this database, if it is bound to none."""
    mine = identity(tx)
    if mine is not None and environments.fact(tx, _BOUND) is None:
        environments.set_fact(tx, _BOUND, mine)


def foreign(tx: Tx) -> str | None:
    """Say that the deployment is bound to another database, or return None."""
    bound = environments.fact(tx, _BOUND)
    mine = identity(tx) if bound is not None else None
    if bound == mine:
        return None
    return (
        f"the deployment is bound to database {bound}, and this is {mine}: a copy or a restore"
    )


def forgotten(tx: Tx, seen: Seen | None) -> str | None:
    """Say that a host knows more of this deployment than its database does, or return None."""
    if seen is None or seen.deployment != environments.fact(tx, "deployment"):
        return None
    number = int(tx.value("SELECT MAX(number) FROM leases") or 0)
    if seen.epoch > epoch(tx):
        return f"a host has seen epoch {seen.epoch}, and this database has {epoch(tx)}"
    if seen.epoch == epoch(tx) and seen.number > number:
        return (
            f"a host has seen lease number {seen.number}, and the highest of this database is"
            f" {number}: it was restored"
        )
    return None


def free_number(tx: Tx, number: int) -> int | None:
    """Return the number if no lease has it; None lets the database choose one above all."""
    taken = tx.value("SELECT 1 FROM leases WHERE number = :number", number=number)
    return None if taken else number


def past_numbers(tx: Tx) -> None:
    """Let the next lease get a number above all that there are."""
    if tx.dialect == "postgresql":
        tx.value(
            "SELECT setval(pg_get_serial_sequence('leases', 'number'),"
            " GREATEST((SELECT MAX(number) FROM leases),"
            " (SELECT last_value FROM leases_number_seq)))"
        )


def not_over(tx: Tx) -> list[Row]:
    """Lock every lease that is not over, in the order of their ids."""
    return tx.all(
        "SELECT *, {now} AS now_us FROM leases WHERE finished_at IS NULL ORDER BY id {lock}"
    )


def live_sessions(tx: Tx) -> list[Row]:
    return tx.all(
        "SELECT s.id, s.host_id, h.name AS host FROM sessions s JOIN hosts h"
        " ON h.id = s.host_id WHERE s.status = 'live' ORDER BY s.id"
    )
