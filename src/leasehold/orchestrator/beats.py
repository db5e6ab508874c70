"""
Looking after many started commands at once, holding no slot between two looks.

A beat claims due rows without raising their fences, because it only reads the sandbox. What
changed is written row by row, each with (lease, fence) and by itself, so that one bad item
never fails the batch; what did not change rests in one statement. Whatever takes an effect in
the sandbox (end, settle) is made due for a claim of its own.

Killed in between: the rows are claimed by this worker; its death gives them up.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from leasehold.domain.lifecycle import ExecutionStatus, Step
from leasehold.domain.redaction import Redactor
from leasehold.errors import (
    LostClaimError,
    ProviderError,
    SandboxGoneError,
    SecretUnavailableError,
    StoreUnavailableError,
)
from leasehold.log import get_logger
from leasehold.orchestrator import heartbeat, looking, revealing
from leasehold.orchestrator.chain import run_job
from leasehold.orchestrator.claiming import abandon, job_of, surely
from leasehold.orchestrator.jobs import Context, Job, Trouble, lease_ref, us
from leasehold.provider.budget import Budget
from leasehold.provider.contract import ExecutionState, Polled, PollItem, Target
from leasehold.seams import effect
from leasehold.store import executions, leases, runs
from leasehold.store.claims import give_up
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

log = get_logger(__name__)
LIMIT_BYTES: Final = 256 * 1024
POLL_BUDGET_S: Final = 30.0


@dataclass(slots=True)
class Report:
    """What one beat did."""

    looked: int = 0
    changed: int = 0


def run_once(context: Context, lane: str, *, limit: int) -> Report:
    """Claim, look at, and record up to `limit` due executions of one queue."""
    context.check_trust()
    try:
        return _run(context, lane, limit=limit)
    except Exception:
        _give_up(context)
        raise


def _run(context: Context, lane: str, *, limit: int) -> Report:
    report = Report()
    with context.database.write("beat.claim") as tx:
        ids = runs.claim_beats(tx, queue=lane, worker_id=context.worker_id, limit=limit)
        rows = executions.beats(tx, ids) if ids else []
    if not ids:
        return report
    report.looked = len(ids)
    seen = _look(context, rows)
    quiet: dict[int, list[str]] = defaultdict(list)
    loud: list[Row] = []
    for row in rows:
        polled = seen[row["execution_id"]]
        if _changed(context, row, polled):
            loud.append(row)
        else:
            quiet[_interval_us(context, row)].append(row["run_id"])
    strays = set(ids) - {row["run_id"] for row in rows}
    _rest(context, quiet, loud, rows)
    for row in loud:
        _record(context, row["run_id"], row, seen[row["execution_id"]])
    for run_id in sorted(strays):
        _record(context, run_id, None, None)
    report.changed = len(loud) + len(strays)
    # What cannot be reached is not told to live longer: SQL would believe that it does, anew
    # at each look, and its end would never be sure.
    _renew(context, [row for row in rows if _answered(seen[row["execution_id"]])])
    return report


class _UntoldError(ProviderError):
    """Nobody was asked: what has to be hidden in the answer cannot be had."""


def _answered(polled: Polled) -> bool:
    return polled.error is None or isinstance(polled.error, _UntoldError)


def _give_up(context: Context) -> None:
    """
    Give up all that this worker claimed: an answer was lost, or a fault of ours stopped us.

    A claim must not outlive the work on it, so this waits for a database that is away. Another
    thread's beat that loses its claims by it finds that out when it records.
    """

    def write() -> None:
        with context.database.write("beat.unsure") as tx:
            give_up(tx, [context.worker_id])

    surely(write)


def _look(context: Context, rows: Sequence[Row]) -> dict[str, Polled]:
    """Poll all, in one call per provider."""
    by_provider: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_provider[row["provider"]].append(row)
    seen: dict[str, Polled] = {}
    for key, group in by_provider.items():
        items: list[tuple[PollItem, Redactor]] = []
        for row in group:
            try:
                items.append((_item(context, row), _redactor(context, row)))
            except SecretUnavailableError as error:
                seen[row["execution_id"]] = _untold(row["execution_id"], error)
        answers = _poll(context, key, items)
        for (item, hider), answer in zip(items, answers, strict=True):
            seen[item.execution_id] = revealing.masked(
                item, answer, hider, limit_bytes=LIMIT_BYTES, over=None
            )
    return seen


def _poll(
    context: Context, key: str, items: Sequence[tuple[PollItem, Redactor]]
) -> Sequence[Polled]:
    """Ask one provider; whatever it does, there is one answer for each item."""
    asked = [revealing.with_context(item, hider) for item, hider in items]
    if not asked:
        return []
    try:
        provider = context.provider(key)
        with effect("provider.poll"):
            answers = provider.poll(
                asked, limit_bytes=LIMIT_BYTES, budget=Budget(POLL_BUDGET_S)
            )
        by_id = {answer.execution_id: answer for answer in answers}
        return [by_id[item.execution_id] for item in asked]
    except ProviderError as error:
        return [Polled(execution_id=item.execution_id, error=error) for item in asked]
    except Exception as error:  # a plugin's fault is its items' alone
        log.exception("beat.fault", provider=key)
        return [_untold(item.execution_id, error) for item in asked]


def _untold(execution_id: str, error: Exception) -> Polled:
    trouble = _UntoldError(f"{type(error).__name__}: {error}", retryable=True)
    return Polled(execution_id=execution_id, error=trouble)


def _redactor(context: Context, row: Row) -> Redactor:
    pins = load(row["secrets"]), load(row["facts"]).get("secrets")
    return revealing.of_start(context, row["tenant_id"], row, *pins)


def _target(context: Context, row: Row) -> Target:
    lease = {
        "id": row["lease_id"],
        "number": row["number"],
        "tenant_id": row["tenant_id"],
        "environment_id": row["environment_id"],
    }
    return Target(
        lease=lease_ref(lease, deployment=context.deployment),
        handle=load(row["lease_handle"]) or {},
        config=revealing.config(context, row["tenant_id"], load(row["facts"])),
    )


def _item(context: Context, row: Row) -> PollItem:
    return PollItem(
        target=_target(context, row),
        execution_id=row["execution_id"],
        handle=load(row["handle"]) or {},
        stdout_offset=row["stdout_offset"],
        stderr_offset=row["stderr_offset"],
    )


def _changed(context: Context, row: Row, polled: Polled) -> bool:
    if polled.error is not None or polled.stdout or polled.stderr or row["end_requested"]:
        return True
    if polled.state is ExecutionState.STARTING:
        age = row["now_us"] - row["created_at"]
        return bool(age > us(context.timers.starting_max))
    return polled.state is not ExecutionState.RUNNING


def _interval_us(context: Context, row: Row) -> int:
    """Return the rest, on a coarse scale, so that few statements serve many rows."""
    age = row["now_us"] - (row["started_at"] or row["created_at"])
    followed = (row["follow_until"] or 0) > row["now_us"]
    exact = heartbeat.interval_us(context, age_us=age, followed=followed)
    return (
        1 << max(exact.bit_length() - 1, 0)
        if exact < us(context.timers.heartbeat_max)
        else exact
    )


def _rest(
    context: Context, quiet: dict[int, list[str]], loud: list[Row], rows: Sequence[Row]
) -> None:
    """Put the unchanged back to rest; one that is to end meanwhile counts as changed."""
    if not quiet:
        return
    by_id = {row["run_id"]: row for row in rows}
    rested: set[str] = set()
    with context.database.write("beat.rest") as tx:
        for wait, ids in sorted(quiet.items()):
            rested |= runs.rest_beats(tx, ids, worker_id=context.worker_id, in_us=wait)
    loud += [by_id[i] for ids in quiet.values() for i in ids if i not in rested]
    context.nudge()


def _record(context: Context, run_id: str, row: Row | None, polled: Polled | None) -> None:
    """Write what changed of one run; its failure is its own."""
    following: Job | None = None
    try:
        with context.database.write("beat.record") as tx:
            job = _hold(tx, context, run_id, row)
            following = _write(tx, context, job, polled)
        if job.step is Step.HEARTBEAT:
            context.on_step("finished", job, None)
    except LostClaimError as error:
        log.info("beat.lost", run=run_id, why=str(error))
    except StoreUnavailableError:
        raise
    except Exception:
        # The others of the batch must not wait for what is wrong with this one.
        log.exception("beat.fault", run=run_id)
        lease_id, fence = (row["lease_id"], row["fence"]) if row else (None, 0)
        abandon(context, run_id=run_id, lease_id=lease_id, fence=fence)
    if following is not None:
        run_job(context, following)


def _hold(tx: Tx, context: Context, run_id: str, row: Row | None) -> Job:
    peek = runs.find(tx, run_id)
    if peek is None:
        raise LostClaimError("the run is gone")
    lease = leases.lock(tx, peek["lease_id"]) if peek["lease_id"] else None
    run = runs.hold(tx, run_id, worker_id=context.worker_id, lease_id=peek["lease_id"])
    job = job_of(tx, context, run, lease, taken_over=False)
    if row is not None and job.execution is not None:
        for column in ("stdout_offset", "stderr_offset"):
            if job.execution[column] != row[column]:
                # Given up and claimed again by this very worker: what was seen is old.
                raise LostClaimError(f"output of run {run_id} was stored meanwhile")
    return job


def _write(tx: Tx, context: Context, job: Job, polled: Polled | None) -> Job | None:
    needs_claim = (
        polled is None
        or job.execution is None
        or polled.execution_id != job.execution["id"]
        or job.end_requested is not None
        or heartbeat.needs_proof(context, job, polled)
    )
    if needs_claim or polled is None:
        return looking.look_again(tx, context, job, step=Step(job.step), tries=0)
    if isinstance(polled.error, SandboxGoneError):
        return heartbeat.record(tx, context, job, heartbeat.Gone(str(polled.error)))
    if polled.error is not None:
        problem = Trouble(polled.error.code, str(polled.error))
        return heartbeat.record(tx, context, job, problem)
    return heartbeat.record(tx, context, job, heartbeat.Looked(polled))


def _to_renew(context: Context, rows: Sequence[Row]) -> list[tuple[Row, timedelta]]:
    """Return the rows whose sandboxes are to live on, and for how long; SQL knows it first."""
    due = [
        (row, heartbeat.time_to_live(context, row, least=context.timers.sandbox_ttl))
        for row in sorted(rows, key=lambda row: str(row["lease_id"]))
        if row["renew_at"] is not None
        and row["renew_at"] <= row["now_us"]
        and row["execution_status"] != ExecutionStatus.STARTING
    ]
    if not due:
        return []
    with context.database.write("beat.renewing") as tx:
        return [item for item in due if heartbeat.renewing(tx, item[0], ttl_us=us(item[1]))]


def _renew(context: Context, rows: Sequence[Row]) -> None:
    """Push on the time to live of sandboxes that have used a third of it."""
    for row, ttl in _to_renew(context, rows):
        fence = context.epoch << 40 | row["fence"]
        try:
            target = _target(context, row)
            with effect("provider.renew"):
                context.provider(row["provider"]).renew(
                    target, fence=fence, ttl=ttl, budget=Budget(POLL_BUDGET_S)
                )
            with context.database.write("beat.renewed") as tx:
                heartbeat.renewed(tx, row, ttl_us=us(ttl), fence=row["fence"])
        except (ProviderError, SecretUnavailableError) as error:
            log.warning("lease.renew_failed", lease=row["lease_id"], why=str(error))
        except StoreUnavailableError:
            raise
        except Exception:  # a plugin's fault is its item's alone
            log.exception("beat.fault", lease=row["lease_id"])
