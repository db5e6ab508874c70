"""
The clock: finds what is due and sends it.

Leaderless: every host agent runs one; a due row is taken with SKIP LOCKED (SQLite: by the
writer) and pushed on with a backoff before its message is sent, so that many clocks send it
once and a lost message comes again. Between reading and sending nothing is lost: the row
stays due. A bounded number of rows goes out per turn, so a backlog cannot multiply itself.

Each turn begins with one statement that says all: what is due, which sessions live, and the
time. A time that has jumped (`domain.pace`) is corrected before anything is called late, and
whoever ends something by its timer looks at the time once more, inside of its transaction.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from leasehold.domain import webhooks as hooks
from leasehold.domain.lifecycle import EndKind, LeaseStatus, RunStatus, Step
from leasehold.log import get_logger
from leasehold.maintenance import hosts_lost, schedules
from leasehold.maintenance.sessions import Observer
from leasehold.orchestrator import admission, ending, holding, preceding
from leasehold.orchestrator.jobs import Context, Message, send, us
from leasehold.provider.budget import boot_time
from leasehold.store import (
    claims,
    environments,
    hosts,
    leases,
    pulse,
    runs,
    slots,
    watch,
    webhooks,
)
from leasehold.store.database import Row, Tx
from leasehold.store.pulse import Pulse

log = get_logger(__name__)
UNSENT_AGAIN: Final = timedelta(seconds=1)
HOST_QUEUE: Final = "leasehold.host."
PRECEDING_AGAIN_S: Final = 0.05
"""What starts after others and is held by somebody at this moment is looked at again."""

PRECEDING_TURNS: Final = 20
LANE_AGAIN_S: Final = (0.1, 2.0)
"""A lane that is still due is told again: at first, and the longer it is due the less often."""


@dataclass(slots=True)
class Report:
    """What one turn of the clock did, and when it wants the next."""

    ended: int = 0
    sent: int = 0
    admitted: int = 0
    lanes: int = 0
    moved: int = 0
    let_go: int = 0
    """Rows between runs and those that they start after which were looked at."""

    fired: int = 0
    """Runs that schedules made."""

    letters: bool = False
    """Webhooks are owed something: a courier is to look (`maintenance.deliveries`)."""

    next_in_s: float = 0.0


def run_once(
    context: Context, *, batch: int, observer: Observer | None = None, own: str | None = None
) -> Report:
    """
    Take one turn: sessions, timers, schedules, due rows, beat lanes, lost hosts, admission.

    Args:
        observer: Who watches the sessions, all but `own`; None: nobody here.
    """
    report = Report()
    sent = boot_time()
    beat = take_pulse(context)
    received = boot_time()
    if observer is not None:
        observer.look(context, beat.sessions, sent=sent, received=received, own=own)
    if _has_jumped(context, beat, sent=sent, received=received):
        return report
    if watch.is_stale(beat.now_us, beat.seen_us, grace_us=us(context.timers.host_grace)):
        _vouch(context, at=received)
    if beat.halted:
        # What this database believes to be due may be long over: nothing, until a person spoke.
        report.next_in_s = context.timers.clock_max_sleep.total_seconds()
        return report
    report.letters = beat.letters
    _timers(context, beat, report, batch=batch)
    if beat.lost:
        report.moved = hosts_lost.run_once(context, batch=batch).moved
    if beat.steps_due or beat.orphaned:
        report.sent = _send_due(context, batch=batch, orphaned=beat.orphaned)
    if beat.is_due(beat.beat_due):
        report.lanes = _send_lanes(context)
    if beat.preceding:
        report.let_go = _preceding(context, batch=batch)
    if beat.queued or report.fired or report.let_go:
        report.admitted = _admit(context, batch=batch)
    worked = report.ended or report.moved or report.sent or report.admitted
    worked = worked or report.let_go or beat.is_due(beat.schedule_next)
    report.next_in_s = next_in_s(context, take_pulse(context) if worked else beat)
    return report


def _timers(context: Context, beat: Pulse, report: Report, *, batch: int) -> None:
    """Do what its time has come for: ends of runs and leases, schedules."""
    if beat.is_due(beat.run_timer):
        report.ended += _run_timers(context, batch=batch)
    if beat.is_due(beat.lease_timer):
        report.ended += _lease_timers(context, batch=batch)
    if beat.is_due(beat.schedule_next):
        report.fired = schedules.run_once(context, batch=batch)


def _has_jumped(context: Context, beat: Pulse, *, sent: float, received: float) -> bool:
    """Say whether the database's clock was set since the last turn; then correct it."""
    is_new = context.pace.is_new
    jump = context.pace.jump_us(
        now_us=beat.now_us, offset_us=beat.offset_us, sent=sent, received=received
    )
    if jump:
        _take_out(context, beat, jump)
    elif is_new and not beat.halted:
        # Nobody may have turned a clock when the time was set back.
        with context.database.write("clock.recall") as tx:
            _recall(tx, context)
    return bool(jump)


def _vouch(context: Context, *, at: float) -> None:
    """Say that the time is watched; what went on unwatched before proves nothing."""
    with context.database.write("clock.vouch") as tx:
        if not is_sane(tx, context):
            return
        grace_us = us(context.timers.host_grace)
        gap = watch.vouch(tx, watched_us=context.pace.watched_us(at=at), grace_us=grace_us)
    if gap:
        log.info("clock.watches")


def _take_out(context: Context, beat: Pulse, jump: int) -> None:
    """Take a jump of the database's clock out of its offset, unless somebody was first."""
    with context.database.write("clock.pace") as tx:
        mine = environments.change_fact(
            tx, "clock_offset_us", str(beat.offset_us - jump), held=str(beat.offset_us)
        )
        if mine:
            _recall(tx, context)
    if mine:
        log.error("clock.jumped", by_s=jump / 1_000_000, offset_s=(beat.offset_us - jump) / 1e6)


def _recall(tx: Tx, context: Context) -> None:
    """
    Bring back what was put off while the time was wrong: due hours from now, it would wait.

    No wait of ours is longer than the longest backoff; to look early costs a look.
    """
    timers = context.timers
    longest = max(
        timers.heartbeat_max, timers.retry_max, timers.cleanup_retry_max, timers.republish_max
    )
    leases.recall(tx, after_us=us(longest), renew_after_us=us(timers.sandbox_ttl) // 3)
    runs.recall(tx, after_us=us(longest))
    webhooks.recall(tx, after_us=us(hooks.RETRY_MAX))


def is_sane(tx: Tx, context: Context) -> bool:
    """Say whether the time is still what it was when this turn began."""
    now_us = tx.now()
    return context.pace.is_sane(now_us, at=boot_time())


def take_pulse(context: Context) -> Pulse:
    """Ask for everything that may be due, in one statement."""
    with context.database.read() as tx:
        return pulse.read(tx, grace_us=us(context.timers.host_grace))


def next_in_s(context: Context, beat: Pulse) -> float:
    """Return how long the clock may sleep, in seconds."""
    wait = context.timers.clock_max_sleep.total_seconds()
    steps = beat.next_in_s(
        beat.run_timer, beat.lease_timer, beat.run_due, beat.lease_due, beat.schedule_next
    )
    if steps is not None:
        wait = min(wait, max(0.0, steps))
    if beat.preceding:
        wait = min(wait, PRECEDING_AGAIN_S)
    # A beat serves all that is due about then; one lane message is under way at a time.
    due, soon = beat.next_in_s(beat.beat_due), beat.next_in_s(beat.beat_next)
    if due is not None and due <= 0:
        wait = min(wait, lane_again_s(-due))
    return wait if soon is None else min(wait, max(0.0, soon))


def lane_again_s(due_for_s: float) -> float:
    """Return how long after its message a lane that is due for so long is told again."""
    first, most = LANE_AGAIN_S
    return min(max(first, due_for_s / 2), most)


def _preceding(context: Context, *, batch: int) -> int:
    """Let go what waits for the end of other runs; an end may be the next one's."""
    seen = 0
    for _ in range(PRECEDING_TURNS):
        with context.database.write("clock.preceding") as tx:
            count = preceding.look(tx, context, limit=batch)
        seen += count
        if not count:
            break
    return seen


def _run_timers(context: Context, *, batch: int) -> int:
    with context.database.read() as tx:
        run_ids = runs.timed_out(tx, limit=batch)
    for run_id in run_ids:
        with context.database.write("clock.timer") as tx:
            _end_by_timer(tx, context, run_id)
    return len(run_ids)


def _lease_timers(context: Context, *, batch: int) -> int:
    with context.database.write("clock.leases") as tx:
        over = leases.timed_out(tx, limit=batch)
        for lease in over if is_sane(tx, context) else ():
            holding.expire(tx, context, lease)
    return len(over)


def _end_by_timer(tx: Tx, context: Context, run_id: str) -> None:
    # Locked: a holder may be writing the timer that applies next.
    _, run = ending.locked(tx, run_id)
    now_us = tx.now()
    if run["finished_at"] is not None or not context.pace.is_sane(now_us, at=boot_time()):
        return
    kind = which_timer(run, now_us=now_us)
    if kind is not None:
        ending.request_end(tx, context, run_id, kind)
    else:
        # The timer that was set does not apply any more: look again at the next one.
        later = [at for at, _ in timers_of(run) if at is not None and at > now_us]
        runs.set_timer(tx, run_id, timer_at=min(later, default=None))


def which_timer(run: Row, *, now_us: int) -> EndKind | None:
    """Return which of a run's timers is over, the one that came first."""
    over = [(at, kind) for at, kind in timers_of(run) if at is not None and at <= now_us]
    return min(over, key=lambda pair: pair[0])[1] if over else None


def timers_of(run: Row) -> list[tuple[int | None, EndKind]]:
    """Return the timers that apply to a run as it is now."""
    queued = run["status"] == RunStatus.QUEUED
    started = run["step"] in {Step.EXECUTE, Step.HEARTBEAT}
    starting = run["status"] == RunStatus.RUNNING and not started
    return [
        (run["queue_deadline_at"] if queued else None, EndKind.QUEUE_TIMEOUT),
        (run["start_deadline_at"] if starting else None, EndKind.START_TIMEOUT),
        (run["timeout_at"] if started else None, EndKind.TIMEOUT),
        (run["deadline_at"], EndKind.DEADLINE),
    ]


def _wait_us(context: Context, publishes: int) -> int:
    timers = context.timers
    wait: timedelta = min(timers.republish_base * 2 ** min(publishes, 20), timers.republish_max)
    return us(wait)


def _send_due(context: Context, *, batch: int, orphaned: bool) -> int:
    """Push due rows on and send their messages after the commit."""
    with context.database.write("clock.due") as tx:
        if orphaned:
            claims.give_up(tx, claims.of_the_gone(tx))
        messages = [*_due_leases(tx, context, batch), *_due_runs(tx, context, batch)]
        away = hosts.away(tx)
    # Nobody reads the queue of a host that is away: its rows are due again when it is back.
    heard = [m for m in messages if m.queue.removeprefix(HOST_QUEUE) not in away]
    unsent = [message for message in heard if not send(context, message)]
    if unsent:
        # The broker is away: look again soon, instead of after a backoff meant for lost ones.
        with context.database.write("clock.unsent") as tx:
            for message in unsent:
                runs.put_back(tx, f"{message.kind}s", message.id, wait_us=us(UNSENT_AGAIN))
    return len(heard) - len(unsent)


def _due_leases(tx: Tx, context: Context, batch: int) -> list[Message]:
    messages = []
    for row in leases.due(tx, limit=batch):
        runs.push_on(tx, "leases", row["id"], wait_us=_wait_us(context, row["publishes"]))
        releasing = row["status"] == LeaseStatus.RELEASING
        step = Step.RELEASE if releasing else Step.ACQUIRE
        messages.append(Message("lease", row["id"], row["fence"], step, row["queue"]))
    return messages


def _due_runs(tx: Tx, context: Context, batch: int) -> list[Message]:
    rows = runs.due(tx, limit=batch)
    fences = leases.fences(tx, [row["lease_id"] for row in rows if row["lease_id"]])
    messages = []
    for row in rows:
        runs.push_on(tx, "runs", row["id"], wait_us=_wait_us(context, row["publishes"]))
        known = row["lease_id"] in fences
        fence = fences[row["lease_id"]] if known else row["fence"]
        messages.append(Message("run", row["id"], fence, Step(row["step"]), row["queue"]))
    return messages


def _send_lanes(context: Context) -> int:
    with context.database.read() as tx:
        lanes = pulse.due_lanes(tx)
        away = hosts.away(tx)
    sent, now = 0, boot_time()
    for lane, due_for_us in lanes:
        # Nobody reads the lane of a host that is away; what it holds is due when it is back.
        if lane.removeprefix(HOST_QUEUE) in away:
            continue
        if now - context.lanes.get(lane, 0.0) < lane_again_s(due_for_us / 1_000_000):
            continue
        context.lanes[lane] = now
        send(context, Message("beat", lane, 0, Step.HEARTBEAT, f"{lane}.beat"))
        sent += 1
    return sent


def _admit(context: Context, *, batch: int) -> int:
    with context.database.write("clock.admit") as tx:
        if not slots.lock(tx, wait=False):
            return 0
        return admission.admit_batch(tx, context, limit=batch)
