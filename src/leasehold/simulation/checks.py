"""
The promises, asked of SQL and of what really happened.

Some are asked at the instant that matters: at each start, each removal of a sandbox, each
commit that ends a run or a lease. They read SQL past every transaction, as nobody in a real
deployment can. The others are asked when the storm is over and all is quiet.
"""

import sqlite3
from collections import Counter, defaultdict
from typing import Any, Final

from leasehold.domain.after import Outcome
from leasehold.domain.lifecycle import LEASE_ENDS, RUN_ENDS
from leasehold.simulation.database import Line, SimDatabase
from leasehold.simulation.people import Person
from leasehold.simulation.planted import Planted
from leasehold.simulation.sandboxes import Box, Execution, Sandboxes
from leasehold.simulation.scheduler import Scheduler
from leasehold.store import executions, history, invariants
from leasehold.store.sql import load

OBSERVE_GAP_S: Final = 4.0
"""A pause of the database after which no observer goes on counting."""

_OWED: Final = {"releasing destroy"}
_INFRA: Final = {"execution_lost", "infra_exhausted", "provider_error", "internal"}
_RUN_OVER: Final = {f"run.{status.value}" for status in RUN_ENDS}
_LEASE_OVER: Final = {f"lease.{status.value}" for status in LEASE_ENDS}


class Checks:
    """Watches one simulated deployment."""

    def __init__(
        self,
        scheduler: Scheduler,
        database: SimDatabase,
        *worlds: Sandboxes,
        planted: Planted,
        ttl_s: float,
    ) -> None:
        self._planted = planted
        self._scheduler, self._database, self._worlds = scheduler, database, worlds
        self.broken: list[str] = []
        self.ends: Counter[str] = Counter()
        """Status and code → how many runs ended so."""

        self.reached: Counter[str] = Counter()
        """Transactions and events by name: what the seed has exercised."""

        self._starts: defaultdict[tuple[str, str], list[Execution]] = defaultdict(list)
        self._ttl_s = ttl_s
        self._beats: dict[str, tuple[int, float]] = {}
        """Live session → its counter, and when it was first seen so."""

        database.on_commit = self._on_commit
        scheduler.before_wait = self._on_wait
        for world in worlds:
            world.on_create = self._on_create
            world.on_start = self._on_start
            world.on_remove = self._on_remove

    def break_(self, promise: str, what: str) -> None:
        """Write down a broken promise."""
        self._scheduler.trace(f"BROKEN {promise} {what}")
        self.broken.append(f"{promise} {what} (at {self._scheduler.now:.3f} s)")

    def _ask(self, text: str, *values: Any) -> dict[str, Any] | None:
        cursor = self._database.raw.execute(text, values)
        row = cursor.fetchone()
        return (
            None
            if row is None
            else dict(zip([c[0] for c in cursor.description], row, strict=True))
        )

    def _lease(self, lease_id: str) -> str:
        """Return a lease's status, with the mode if it is owed something."""
        row = self._ask("SELECT status, mode FROM leases WHERE id = ?", lease_id)
        if row is None:
            return "none"
        return f"releasing {row['mode']}" if row["status"] == "releasing" else row["status"]

    def _is_given_up(self, lease_id: str) -> bool:
        """Whether a sandbox can go to nobody else: owed destruction, or over."""
        status = self._lease(lease_id)
        return status in _OWED or status in LEASE_ENDS

    # At the instant.

    def _on_beat(self) -> None:
        text = "SELECT id, counter FROM sessions WHERE status = 'live'"
        for session_id, counter in self._database.raw.execute(text).fetchall():
            if self._beats.get(session_id, (-1, 0.0))[0] != counter:
                self._beats[session_id] = (counter, self._scheduler.now)

    def _on_expired(self) -> None:
        """Ask whether an observer could have seen a whole time to live without a beat."""
        text = "SELECT id FROM sessions WHERE status = 'expired'"
        for (session_id,) in self._database.raw.execute(text).fetchall():
            if session_id not in self._beats:
                continue
            _, since = self._beats.pop(session_id)
            for start, end in self._database.outages:
                # A longer gap starts every observer's series anew.
                if end - start > OBSERVE_GAP_S and start < self._scheduler.now:
                    since = max(since, min(end, self._scheduler.now))
            seen_s = self._scheduler.now - since
            if seen_s < self._ttl_s:
                self.break_("P1", f"session {session_id} was expired after {seen_s:.2f} s")

    def _on_wait(self) -> None:
        if self._database.open is not None:
            self.break_("P6", f"somebody waits inside of transaction {self._database.open}")
            self._database.open = None

    def _on_create(self, box: Box) -> None:
        if self._lease(box.lease_id) == "none":
            self.break_("P3", f"a sandbox without a lease's row: {box.lease_id}")

    def _on_remove(self, box: Box) -> None:
        if self._lease(box.lease_id) != "none" and not self._is_given_up(box.lease_id):
            status = self._lease(box.lease_id)
            self.break_("P4", f"the sandbox of lease {box.lease_id} ({status}) was destroyed")

    def _on_start(self, execution: Execution) -> None:
        now, box = self._scheduler.now, execution.box
        run_id, index, _ = execution.id.split(".")
        for other in box.executions.values():
            if other is not execution and other.runs(now):
                self.break_("P4", f"{execution.id} starts beside {other.id} in one sandbox")
        if self._ask("SELECT id FROM executions WHERE id = ?", execution.id) is None:
            self.break_("P2", f"{execution.id} was started before it was written")
        run = self._ask("SELECT status, spec FROM runs WHERE id = ?", run_id)
        if run is None or (run["status"] != "running" and not self._is_given_up(box.lease_id)):
            status = run["status"] if run else "gone"
            self.break_("P5", f"{execution.id} starts while its run is {status}")
        self._preceded(run_id)
        earlier = self._starts[run_id, index]
        for other in earlier:
            self._started_again(other, execution, run)
        earlier.append(execution)

    def _preceded(self, run_id: str) -> None:
        """Nothing starts before the runs that it starts after have ended as it needs."""
        text = (
            "SELECT p.after_id, p.outcome, r.status FROM predecessors p"
            " LEFT JOIN runs r ON r.id = p.after_id WHERE p.run_id = ?"
        )
        for after_id, outcome, status in self._database.raw.execute(text, (run_id,)).fetchall():
            # Retention may have taken what nobody waits for any more.
            over = status is None or status in RUN_ENDS
            if not over or (status and not Outcome(outcome).fits(status)):
                self.break_("P1", f"{run_id} starts after {after_id}, which is {status}")

    def _started_again(
        self, other: Execution, again: Execution, run: dict[str, Any] | None
    ) -> None:
        if other.runs(self._scheduler.now) and not self._is_given_up(other.box.lease_id):
            self.break_("P2", f"{again.id} starts while {other.id} runs")
        if run is None or load(run["spec"])["idempotent"]:
            return
        row = self._ask("SELECT status FROM executions WHERE id = ?", other.id)
        status = row["status"] if row else "gone"
        if status != "exited":
            self.break_("P2", f"{again.id} starts, {other.id} ran and is {status}")

    def _on_commit(self, name: str, lines: list[Line]) -> None:
        self.reached[name] += 1
        self.reached.update(line[3] for line in lines)
        for line in lines:
            self._planted.look(f"the event {line[3]}", line[4])
        said = " ".join(f"{line[3]}[{(line[1] or line[2] or '')[-6:]}]" for line in lines)
        self._scheduler.trace(f"commit {name} {said}")
        if name in {"session.start", "session.beat"}:
            self._on_beat()
        elif name == "session.expire":
            self._on_expired()
        for _, run_id, lease_id, event, data, _ in lines:
            if event in _RUN_OVER and run_id is not None:
                code = load(data).get("code")
                self.ends[" ".join(filter(None, (event.removeprefix("run."), code)))] += 1
                self._run_over(run_id, event)
            elif event in _LEASE_OVER and lease_id is not None:
                self._lease_over(lease_id, event)
            elif event == "lease.releasing" and lease_id is not None:
                self._lease_lost(lease_id, load(data))
            elif event == "execution.lost" and run_id is not None:
                self._execution_lost(run_id, load(data)["execution"], by=name)

    def _run_over(self, run_id: str, event: str) -> None:
        for world in self._worlds:
            for box in world.boxes.values():
                for execution in box.executions.values():
                    if (
                        execution.id.startswith(run_id)
                        and execution.runs(self._scheduler.now)
                        and not self._is_given_up(box.lease_id)
                    ):
                        self.break_("P4", f"{event} while {execution.id} runs")

    def _execution_lost(self, run_id: str, execution_id: str, *, by: str) -> None:
        """What runs is called lost only if its end was asked for, or its host is."""
        run = self._ask("SELECT spec, end_requested FROM runs WHERE id = ?", run_id)
        if run is None or run["end_requested"]:
            return
        if by == "clock.host_lost" and load(run["spec"])["idempotent"]:
            return
        for execution in self._executions(execution_id):
            if execution.runs(self._scheduler.now):
                self.break_("P2", f"{execution_id} is called lost, and it runs")

    def _executions(self, execution_id: str) -> list[Execution]:
        boxes = [box for world in self._worlds for box in world.boxes.values()]
        return [b.executions[execution_id] for b in boxes if execution_id in b.executions]

    def _lease_over(self, lease_id: str, event: str) -> None:
        for world in self._worlds:
            box = world.boxes.get(lease_id)
            if box is None or not box.lives(self._scheduler.now):
                continue
            # What a late call makes after the destruction, or beside what is destroyed, is
            # the sweep's.
            if box.incarnation in world.spared:
                continue
            if box.made_at <= world.destroyed.get(lease_id, box.made_at):
                self.break_("P3", f"{event} of {lease_id}, and its sandbox is there")

    def _lease_lost(self, lease_id: str, data: dict[str, Any]) -> None:
        if data.get("reason") != "lost" or data.get("final") != "failed":
            return
        for world in self._worlds:
            box = world.boxes.get(lease_id)
            if box is not None and box.lives(self._scheduler.now) and not box.paused:
                self.break_("P4", f"lease {lease_id} is called lost, and its sandbox is there")

    # At rest.

    def at_rest(self, people: list[Person], *, stormy: bool) -> None:
        """Ask everything that must hold when nothing is under way any more."""
        for end in self.ends:
            if not stormy and end.split(" ")[-1] in _INFRA:
                self.break_("P2", f"a run ended as {end} although nothing went wrong")
        with self._database.read() as tx:
            for violation in invariants.check(tx):
                self.break_(violation.promise, f"{violation.name}: {violation.row}")
            for difference in history.verify(tx):
                self.break_("P9", str(difference))
        for person in people:
            for problem in person.problems:
                self.break_("P1", problem)
        self._outputs()
        self._truths()
        self._planted.look_through(self._database.raw)
        for leak in self._planted.leaks:
            self.break_("P7", leak)

    def _outputs(self) -> None:
        known = self._known()
        with self._database.read() as tx:
            for row in tx.all(
                "SELECT x.*, r.output_pruned_at FROM executions x"
                " JOIN runs r ON r.id = x.run_id ORDER BY x.id"
            ):
                real = [e for e in known[row["id"]] if e.plan is not None]
                if len(real) > 1:
                    self.break_("P2", f"{row['id']} was started {len(real)} times")
                if row["status"] == "cancelled" and real:
                    self.break_("P2", f"{row['id']} is called never started, and it was")
                stored = [
                    executions.output(tx, row["id"], stream=stream, offset=0)
                    for stream in ("stdout", "stderr")
                ]
                if row["output_pruned_at"] is not None:
                    if any(stored):
                        self.break_("P2", f"output of {row['id']} is said to be deleted")
                elif real:
                    self._compare(row, real[0], stored)
                elif any(stored) or row["status"] == "exited":
                    self.break_("P2", f"{row['id']} is {row['status']} and never ran")

    def _compare(self, row: dict[str, Any], real: Execution, stored: list[bytes]) -> None:
        out, err, exit_ = real.now(self._scheduler.now)
        out, err = self._planted.as_stored(out), self._planted.as_stored(err)
        whole = row["status"] == "exited"
        for name, mine, theirs in (("stdout", stored[0], out), ("stderr", stored[1], err)):
            if (whole and mine != theirs) or not theirs.startswith(mine):
                sizes = f"{len(mine)} of {len(theirs)} bytes"
                self.break_("P2", f"{name} of {row['id']} ({row['status']}): {sizes}")
        if not whole:
            return
        if exit_ is None or real.lost:
            self.break_("P2", f"{row['id']} is exited and has no end")
        elif (row["cause"], row["exit_code"]) != (exit_.cause.value, exit_.code):
            self.break_("P2", f"{row['id']} ended as {exit_}, not as {row['cause']}")

    def _truths(self) -> None:
        """A run that succeeded ran every command to a good end, and what did so succeeded."""
        with self._database.read() as tx:
            for row in tx.all(
                "SELECT r.id, r.status, r.spec, x.command_index FROM runs r JOIN executions x"
                " ON x.run_id = r.id WHERE r.status IN ('cancelled', 'timed_out')"
                " AND x.cause = 'exited' AND x.exit_code = 0 ORDER BY r.id"
            ):
                if row["command_index"] + 1 == len(load(row["spec"])["commands"]):
                    self.break_("P8", f"run {row['id']} is {row['status']}, its record says 0")
            rows = tx.all("SELECT id, spec FROM runs WHERE status = 'succeeded' ORDER BY id")
        for row in rows:
            for index in range(len(load(row["spec"])["commands"])):
                ends = [
                    e.now(self._scheduler.now)[2] for e in self._starts[row["id"], str(index)]
                ]
                if not ends or ends[-1] is None or ends[-1].code != 0:
                    self.break_("P2", f"run {row['id']} succeeded, command {index} did not")

    def _known(self) -> dict[str, list[Execution]]:
        known: defaultdict[str, list[Execution]] = defaultdict(list)
        for world in self._worlds:
            for box in [*world.past, *world.boxes.values()]:
                for execution in box.executions.values():
                    known[execution.id].append(execution)
        return known

    def orphans(self) -> list[Box]:
        """Return the sandboxes that belong to no live lease."""
        return [
            box
            for world in self._worlds
            for box in world.living()
            if self._lease(box.lease_id) in {"none", *LEASE_ENDS}
        ]

    def count(self, text: str) -> int:
        """Count rows past every transaction."""
        try:
            return int(self._database.raw.execute(text).fetchone()[0])
        except sqlite3.Error as error:  # pragma: no cover  a fault of ours
            raise AssertionError(text) from error
