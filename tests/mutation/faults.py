"""
Deliberate faults of the engine, each put in from outside by replacing one function.

None of them can be switched on in the product. A fault stands for a class of mistakes that a
change might bring: a forgotten guard, a wrong order, a short cut. Every one must be seen by
somebody within a minute, or the proof is worth nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import pytest

from leasehold.domain import fate as fates
from leasehold.domain import redaction
from leasehold.domain.lifecycle import (
    LEASE_ENDS,
    EndKind,
    ExecutionStatus,
    LeaseStatus,
    RunStatus,
    SessionStatus,
    Step,
)
from leasehold.domain.secrets import filled
from leasehold.errors import StoreUnavailableError
from leasehold.ids import new_id
from leasehold.maintenance import clock, hosts_lost, sessions
from leasehold.orchestrator import (
    acquire,
    beats,
    chain,
    claiming,
    ending,
    execute,
    heartbeat,
    jobs,
    leasing,
    looking,
    preceding,
    release,
    revealing,
    sweep,
    validate,
)
from leasehold.provider.contract import ReleaseMode
from leasehold.store import executions, leases, moves, predecessors, runs
from leasehold.store.database import Row, Tx

Patch: TypeAlias = pytest.MonkeyPatch


def _fence_of_the_lease_is_not_asked(patch: Patch) -> None:
    real, real_both = leases.hold, leases.hold_both

    def now(tx: Tx, lease_id: str) -> int:
        return int(tx.value("SELECT fence FROM leases WHERE id = :id", id=lease_id))

    patch.setattr(
        leases, "hold", lambda tx, held, *, fence: real(tx, held, fence=now(tx, held["id"]))
    )
    patch.setattr(
        leases,
        "hold_both",
        lambda tx, held, run, *, fence: real_both(tx, held, run, fence=now(tx, held["id"])),
    )
    patch.setattr(runs, "check_held", lambda row, **_: row)


def _intent_after_effect(patch: Patch) -> None:
    real, ids = validate.act, new_id
    chosen: list[str] = []

    def act(context: Any, job: Any) -> Any:
        from leasehold.provider.budget import Budget
        from leasehold.provider.contract import LeaseRef

        outcome = real(context, job)
        if isinstance(outcome, validate.Valid) and not job.run["wanted_lease_id"]:
            lease_id = ids()
            chosen.append(lease_id)
            ref = LeaseRef(id=lease_id, number=1, deployment=context.deployment)
            context.provider(outcome.spec.provider).acquire(
                ref, outcome.config, known=None, ttl=context.timers.sandbox_ttl, fence=1,
                budget=Budget(20.0),
            )  # fmt: skip
        return outcome

    patch.setitem(chain._ACTS, Step.VALIDATE, act)
    patch.setattr(acquire, "new_id", lambda: chosen.pop() if chosen else ids())


def _second_sighting_is_skipped(patch: Patch) -> None:
    patch.setattr(sweep, "SIGHTINGS", 1)


def _sessions_expire_by_the_wall_clock(patch: Patch) -> None:
    def look(_: Any, context: Any, _counters: Any, **__: Any) -> sessions.Report:
        ttl = jobs.us(context.timers.session_ttl)
        with context.database.read() as tx:
            old = tx.all(
                "SELECT id FROM sessions WHERE status = 'live' AND beat_at < {now} - :ttl",
                ttl=ttl,
            )
        for row in old:
            with context.database.write("session.expire") as tx:
                sessions.end(tx, row["id"], to=SessionStatus.EXPIRED)
        return sessions.Report()

    patch.setattr(sessions.Observer, "look", look)


def _a_new_try_without_proof(patch: Patch) -> None:
    real = execute._trouble

    def trouble(tx: Tx, context: Any, job: Any, outcome: Any) -> Any:
        if outcome.permanent or job.end_requested:
            return real(tx, context, job, outcome)
        looking.close_execution(tx, job, ExecutionStatus.CANCELLED, message=outcome.message)
        again = fates.RetryInfra(outcome.code, outcome.message)
        return ending.follow(tx, context, job, again)

    patch.setattr(execute, "_trouble", trouble)


def _run_ends_before_the_proof(patch: Patch) -> None:
    def mark(tx: Tx, context: Any, run: Row, lease: Row | None, kind: EndKind) -> None:
        job = jobs.Job(step=Step(run["step"]), fence=0, run=run, lease=lease, sticky=False)
        job.execution = executions.open_of(tx, run["id"])
        if job.execution is not None:
            looking.close_execution(tx, job, ExecutionStatus.LOST, message="to end")
        ending.follow(tx, context, job, fates.ended_by(kind))

    patch.setattr(ending, "_mark", mark)


def _exit_before_all_output(patch: Patch) -> None:
    patch.setattr(heartbeat, "_complete", lambda *_: True)
    patch.setattr(heartbeat, "LIMIT_BYTES", 1000)
    patch.setattr(beats, "LIMIT_BYTES", 1000)


def _retries_are_consent(patch: Patch) -> None:
    real = fates.after_loss
    patch.setattr(
        fates,
        "after_loss",
        lambda spec, **kw: real(spec.model_copy(update={"idempotent": True}), **kw),
    )


def _a_debt_is_forgotten(patch: Patch) -> None:
    def failed(tx: Tx, _context: Any, lease: Row, _problem: Any) -> None:
        moves.move(tx, "leases", lease["id"], None, claimed_by=None, due_at=None)

    patch.setattr(release, "_failed", failed)


def _a_failed_release_is_called_done(patch: Patch) -> None:
    def failed(tx: Tx, context: Any, lease: Row, _problem: Any) -> None:
        release._done(tx, context, lease, LeaseStatus(lease["final"]))

    patch.setattr(release, "_failed", failed)


def _the_clock_sends_nothing(patch: Patch) -> None:
    patch.setattr(clock, "_send_due", lambda *_, **__: 0)


def _a_lost_answer_is_taken_for_no(patch: Patch) -> None:
    def claim(context: Any, message: Any) -> Any:
        context.check_trust()
        try:
            with context.database.write("claim") as tx:
                if message.kind == "lease":
                    return claiming._claim_lease(tx, context, message)
                return claiming.claim_run(tx, context, message.id, fence=message.fence)
        except (claiming.StaleMessageError, StoreUnavailableError):
            return None

    patch.setattr(claiming, "claim", claim)


def _a_transport_failure_is_an_end(patch: Patch) -> None:
    def trouble(tx: Tx, context: Any, job: Any, outcome: Any) -> Any:
        return heartbeat._lost(
            tx, context, job, outcome.message, may_have_run=True, sound=False
        )

    patch.setattr(heartbeat, "_trouble", trouble)


def _the_request_beats_the_record(patch: Patch) -> None:
    real = fates.after_exit

    def after_exit(spec: Any, *, end_requested: EndKind | None, **kw: Any) -> fates.Fate:
        if end_requested is not None:
            return fates.ended_by(end_requested)
        return real(spec, end_requested=end_requested, **kw)

    patch.setattr(fates, "after_exit", after_exit)


def _a_status_without_its_event(patch: Patch) -> None:
    real = moves.record

    def record(tx: Tx, *names: Any, **kw: Any) -> None:
        kept = [n for n in names if n != "lease.active"]
        if kept:
            real(tx, *kept, **kw)

    patch.setattr(moves, "record", record)


def _an_idle_lease_goes_to_two(patch: Patch) -> None:
    real = leases.find_idle

    def find_idle(tx: Tx, **kw: Any) -> Row | None:
        row = real(tx, **kw)
        if row is not None:
            return row
        found = tx.one(
            "SELECT * FROM leases WHERE status = 'active' AND scope = :scope"
            " AND fingerprint = :fingerprint AND queue = :queue LIMIT 1",
            **kw,
        )
        return None if found is None else {**found, "status": "idle"}

    patch.setattr(leases, "find_idle", find_idle)


def _attempts_are_counted_at_the_end(patch: Patch) -> None:
    real = execute.begin

    def begin(tx: Tx, job: Any, **kw: Any) -> Any:
        job.run = {**job.run, "starts": max(0, job.run["starts"] - 1)}
        return real(tx, job, **kw)

    patch.setattr(execute, "begin", begin)


def _the_sandbox_is_not_renewed(patch: Patch) -> None:
    patch.setattr(beats, "_renew", lambda *_: None)


def _a_failed_run_leaves_its_command(patch: Patch) -> None:
    real = leasing.disposal

    def disposal(lease: Row, *, sound: bool, **kw: Any) -> leasing.Disposal:
        what = real(lease, sound=sound, **kw)
        if what.mode is ReleaseMode.DESTROY and sound:
            return leasing.Disposal(ReleaseMode.KEEP, LeaseStatus.RELEASED, what.reason)
        return what

    patch.setattr(leasing, "disposal", disposal)


def _parked_runs_keep_their_lease(patch: Patch) -> None:
    real = leasing.part

    def part(
        tx: Tx, context: Any, lease: Row, *, run_status: RunStatus | None, **kw: Any
    ) -> Any:
        if run_status is None:
            return None
        return real(tx, context, lease, run_status=run_status, **kw)

    patch.setattr(leasing, "part", part)


def _sent_inside_of_the_transaction(patch: Patch) -> None:
    real = leasing.owe

    def owe(tx: Tx, *args: Any, **kwargs: Any) -> Any:
        job = real(tx, *args, **kwargs)
        for call in tx.after_commit:
            call()
        tx.after_commit.clear()
        return job

    patch.setattr(leasing, "owe", owe)


def _an_unsure_commit_is_repeated(patch: Patch) -> None:
    def append(tx: Tx, execution_id: str, *, stream: str, offset: int, data: bytes) -> None:
        end = tx.value(
            f"SELECT {stream}_offset FROM executions WHERE id = :id", id=execution_id
        )
        real(tx, execution_id, stream=stream, offset=max(end, offset), data=data)

    real, hold = executions.append, chain._hold
    patch.setattr(executions, "append", append)
    patch.setattr(
        chain, "_hold", lambda tx, context, job, *, unsure: hold(tx, context, job, unsure=False)
    )


def _a_lost_host_has_run_nothing(patch: Patch) -> None:
    class Blind:
        @staticmethod
        def open_of(_tx: Tx, _run_id: str) -> None:
            return None

    patch.setattr(hosts_lost, "executions", Blind)


def _what_is_kept_is_swept(patch: Patch) -> None:
    patch.setattr(sweep, "LEASE_ENDS", LEASE_ENDS | {LeaseStatus.IDLE, LeaseStatus.RETAINED})


def _what_was_lost_never_ran(patch: Patch) -> None:
    real = heartbeat._lost

    def lost(tx: Tx, context: Any, job: Any, message: str, **kw: Any) -> Any:
        return real(tx, context, job, message, **{**kw, "may_have_run": False})

    patch.setattr(heartbeat, "_lost", lost)


def _a_run_waits_for_nobody(patch: Patch) -> None:
    patch.setattr(preceding, "waits", lambda _rows: 0)


def _an_end_tells_nobody(patch: Patch) -> None:
    patch.setattr(predecessors, "wake", lambda *_, **__: None)


def _what_a_provider_tells_is_kept_as_it_came(patch: Patch) -> None:
    patch.setattr(revealing, "hidden", lambda _context, _job, outcome: outcome)


def _the_error_of_a_look_is_kept_as_it_came(patch: Patch) -> None:
    patch.setattr(revealing, "hidden_error", lambda error, _hider: error)


def _a_lease_keeps_its_config_with_the_values(patch: Patch) -> None:
    real = validate.act

    def act(context: Any, job: Any) -> Any:
        outcome = real(context, job)
        if not isinstance(outcome, validate.Valid) or not outcome.secrets:
            return outcome
        values = revealing.values(context, job.run["tenant_id"], outcome.secrets)
        return replace(outcome, config=filled(outcome.config, values))

    patch.setitem(chain._ACTS, Step.VALIDATE, act)


def _output_is_hidden_piece_by_piece(patch: Patch) -> None:
    patch.setattr(redaction.Redactor, "held_back", lambda *_: 0)
    patch.setattr(redaction.Redactor, "context", 0)


def _only_the_plain_value_is_hidden(patch: Patch) -> None:
    patch.setattr(redaction, "needles_of", lambda value: {value.encode()})


FAULTS: Final[Mapping[str, Callable[[Patch], None]]] = {
    name.removeprefix("_").replace("_", " "): value
    for name, value in list(globals().items())
    if name.startswith("_") and callable(value) and getattr(value, "__module__", "") == __name__
}
"""Each fault as a sentence, and what puts it in."""

SHOWN_BY: Final[Mapping[str, Mapping[str, float]]] = {
    "a lost host has run nothing": {"host.cut": 20, "agent.stopped": 20},
    "an unsure commit is repeated": {"commit.answer_lost": 0.2},
    "the error of a look is kept as it came": {
        "provider.refused": 0.1,
        "provider.answer_lost": 0.1,
    },
    "second sighting is skipped": {"listing.short": 0.4},
}
"""Kinds of trouble without which a fault hardly shows."""

SEEN_IN_GOOD_WEATHER: Final = frozenset({"the sandbox is not renewed"})
"""In a storm a lost command proves nothing."""
