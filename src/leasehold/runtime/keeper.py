"""
The session's heart: beats a counter in SQL from a thread that no task can block.

A beat that fails is tried again at the next turn; the guard sees its age. A beat that finds
the session ended means that observers have expired us: the claims are given up already, so
`lost` is set, nothing is started any more, and the agent begins anew with a new session.

The same statement tells whether the alarm stands (`store.restored`): then the session goes on
beating, but nobody may trust it. And it proves a rewound database: a counter that this agent
has seen higher, or numbers that this host has (`ledger`), raise the alarm.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from leasehold import seams
from leasehold.domain.lifecycle import SessionStatus
from leasehold.errors import StoreUnavailableError
from leasehold.log import get_logger
from leasehold.maintenance import sessions
from leasehold.provider.budget import boot_time
from leasehold.runtime.guard import Beacon
from leasehold.runtime.ledger import Ledger
from leasehold.store import hosts, restored, sweeps
from leasehold.store.database import Database, Row, Tx

log = get_logger(__name__)


def identity_of(pid: int) -> str | None:
    """Return what tells this process from every other: boot, pid namespace, start time."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        space = Path("/proc/self/ns/pid").readlink()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # Fields 3 and 22 of the whole line: the state, and when it was started.
    return None if stat[0] == "Z" else f"{boot} {space} {stat[19]}"


def bury_predecessors(tx: Tx, host_id: str) -> None:
    """
    End sessions of this very host whose agent is proven dead, without waiting for a ttl.

    Proof is this host's own process table: the same boot, the same pid namespace, and no
    such process. Anything less is left to the observers.
    """
    here = identity_of(os.getpid())
    if here is None:
        return
    boot, space, _ = here.split(" ")
    for row in hosts.live_sessions_of(tx, host_id):
        known = (row["identity"] or "").split(" ")
        ours = known[:2] == [boot, space]
        if ours and identity_of(row["pid"]) != row["identity"]:
            given_up = sessions.end(tx, row["id"], to=SessionStatus.EXPIRED)
            log.info("session.buried", session=row["id"], given_up=given_up)


class Keeper:
    """Holds one session of one host agent."""

    def __init__(
        self,
        database: Database,
        *,
        session_id: str,
        beacon: Beacon,
        beat_every_s: float,
        ledger: Ledger | None = None,
    ) -> None:
        self._database = database
        self.session_id = session_id
        self._beacon, self._ledger = beacon, ledger
        self._every = beat_every_s
        self._counter = 0
        self._alarm: str | None = None
        self._stop = seams.flag()
        self.lost = seams.flag()
        self._thread = seams.thread(self._loop, name="session")
        self.on_lost: Callable[[], None] = lambda: None

    def start(
        self,
        *,
        host_id: str,
        host_name: str,
        capacity: int,
        pid: int,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Write host and session, look whether the database is ours, then begin to beat."""
        sent = boot_time()
        seen = self._ledger.read() if self._ledger else None
        with self._database.write("session.start") as tx:
            hosts.upsert_host(tx, host_id, name=host_name, capacity=capacity, labels=labels)
            bury_predecessors(tx, host_id)
            hosts.start_session(
                tx, self.session_id, host_id=host_id, pid=pid, identity=identity_of(pid)
            )
            restored.bind(tx)
            why = restored.foreign(tx) or restored.forgotten(tx, seen)
            if why:
                known = seen.epoch if seen else 0
                restored.raise_alarm(tx, why, epoch=restored.epoch(tx), seen=known)
            alarm = restored.alarm(tx)
        self._trust(sent, alarm)
        self._thread.start()

    def _trust(self, sent: float, alarm: str | None) -> None:
        if alarm is None:
            self._beacon.confirm(sent)
            return
        self._beacon.lose()
        if alarm != self._alarm:
            log.error("database.alarm", why=alarm)
        self._alarm = alarm

    def _loop(self) -> None:
        while not self._stop.wait(self._every):
            sent = boot_time()
            try:
                with self._database.write("session.beat") as tx:
                    row = hosts.beat(tx, self.session_id)
                    alarm = self._look(tx, row) if row else None
            except StoreUnavailableError as error:
                log.warning("session.beat_failed", session=self.session_id, why=str(error))
                continue
            except Exception:
                # A read-only standby, a schema that is being restored: without this thread the
                # agent would live on with a dead session, and never begin anew.
                log.exception("session.beat_fault", session=self.session_id)
                continue
            if row is None:
                self._beacon.lose()
                self.lost.set()
                log.error("session.lost", session=self.session_id)
                self.on_lost()
                return
            self._counter = row["counter"]
            self._beacon.ask(sweeps.parse(row["sweep_wanted"])[0])
            self._trust(sent, alarm)
            if self._ledger and alarm is None:
                self._ledger.note(row["highest"] or 0)

    def _look(self, tx: Tx, row: Row) -> str | None:
        """Return the alarm that stands, or that this beat gives reason for."""
        if row["alarm"]:
            return restored.words(row["alarm"])
        if row["counter"] > self._counter:
            return None
        why = (
            f"the beat of session {self.session_id} went back from {self._counter} to"
            f" {row['counter']}: the database was put back while its agent lived"
        )
        restored.raise_alarm(tx, why, epoch=restored.epoch(tx))
        return restored.alarm(tx)

    def stop(self) -> None:
        """Say good-bye: the session ends, what its workers still claim becomes due."""
        self._stop.set()
        self._thread.join(timeout=10)
        if not self.lost.is_set():
            with self._database.write("session.end") as tx:
                sessions.end(tx, self.session_id, to=SessionStatus.ENDED)
        self._beacon.remove()
