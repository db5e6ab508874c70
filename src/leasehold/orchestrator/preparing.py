"""
Between a sandbox that is ready and the first command: its tree, where it reaches the API
(`choosing`), then its set-up command.

Authority is the lease's metadata. `tree` says which tree lies in the sandbox (by its digest),
`setup` which set-up command has gone through on it; each is written in the transaction after
the effect, and taken back in one before it, so that a half-made tree is never taken for a
whole one. The run is at step `execute` with no execution open.

Killed before the `put`, in it, or before its record: the next holder puts the same tree again,
which mends what was half done, since each member is replaced whole. Killed after the record:
nothing is put any more, so files that the command has changed since are never overwritten.
The set-up command is an execution like any other (`SETUP` is its index): started at most once
under its own id, its loss is an `execution_lost`.

A sandbox that is used again and has the tree already keeps what earlier runs did to it. If the
tree has changed, it is unpacked over what is there: files are replaced, what is no longer part
of the tree stays. If that does not work (a file where a directory was) the sandbox is given
up for a new one.
"""

import tempfile
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from leasehold.domain import fate as fates
from leasehold.domain.fingerprint import setup_mark
from leasehold.domain.lifecycle import EndKind, RunStatus, Step
from leasehold.domain.specs import SETUP
from leasehold.errors import (
    BlobMissingError,
    BlobsUnavailableError,
    CapacityError,
    ConfigRejectedError,
    HostileTreeError,
    InterruptedCallError,
    LeaseholdError,
    SandboxGoneError,
    StaleFenceError,
)
from leasehold.orchestrator import choosing, copying, ending, execute, looking
from leasehold.orchestrator.jobs import Context, Job, Trouble, interruptions
from leasehold.provider.budget import Budget
from leasehold.seams import effect
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.trees import reading

_TRIES_IN_A_USED_ONE: Final = 2
_NOT_THE_SANDBOX: Final = frozenset(
    {
        BlobMissingError.code,
        BlobsUnavailableError.code,
        HostileTreeError.code,
        InterruptedCallError.code,
    }
)
"""Troubles that another sandbox would have as well."""

ROOT: Final = "."
"""Where a tree goes: the directory in which commands start."""


@dataclass(frozen=True, slots=True)
class Realized:
    """The tree lies in the sandbox, as a whole."""

    files: int


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such sandbox any more."""

    message: str


def tree_of(job: Job) -> Row | None:
    """Return the tree that the run works on: packed by a person, or cloned by `validate`."""
    assert job.run is not None
    spec = job.spec.tree
    if spec is None:
        return None
    if spec.digest is not None:
        return {"digest": spec.digest, "bytes": spec.bytes}
    found: Row | None = load(job.run["tree"])
    return found


def enter(tx: Tx, context: Context, job: Job, *, asked: bool = False) -> Job | None:
    """
    Go on in a sandbox that is ready, with whatever it lacks; the caller holds the rows.

    Args:
        asked: It was asked just now where it reaches the API.
    """
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    if copying.is_due(job):
        return copying.begin(tx, job)
    spec, facts = job.spec, dict(load(lease["facts"]))
    tree = tree_of(job)
    if tree is not None and not _lies_there(tree, facts):
        return _begin_realizing(tx, job, facts, tree)
    if not asked and (asking := choosing.enter(tx, context, job)) is not None:
        return asking
    assert job.lease is not None
    facts = dict(load(job.lease["facts"]))
    if spec.setup is not None and facts.get("setup") != _mark(job, facts):
        if facts.get("setup") is not None:
            _set_facts(tx, job, {**facts, "setup": None})
        return execute.begin(tx, job, command_index=SETUP)
    return execute.begin(tx, job, command_index=run["command_index"])


def _lies_there(tree: Row, facts: Row) -> bool:
    return bool((facts.get("tree") or {}).get("digest") == tree["digest"])


def _mark(job: Job, facts: Row) -> str:
    assert job.spec.setup is not None
    digest = (facts.get("tree") or {}).get("digest")
    return setup_mark(job.spec.setup.model_dump(mode="json"), tree=digest)


def _set_facts(tx: Tx, job: Job, facts: Row) -> None:
    assert job.lease is not None
    job.lease = moves.move(tx, "leases", job.lease["id"], None, held=job.lease, facts=facts)


def _begin_realizing(tx: Tx, job: Job, facts: Row, tree: Row) -> Job:
    run = job.run
    assert run is not None
    assert job.lease is not None
    before = (facts.get("tree") or {}).get("digest")
    if before is not None:
        # From now on the sandbox has neither: who dies in between leaves a mixture.
        _set_facts(tx, job, {**facts, "tree": {"replaces": before}, "setup": None})
    row = moves.move(tx, "runs", run["id"], None, held=run, step=Step.EXECUTE, beat=False)
    assert row is not None
    row["now_us"] = run["now_us"]
    moves.record(
        tx,
        ("workspace.realizing", {"digest": tree["digest"], "replaces": before}),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=job.lease["id"],
    )
    return Job(
        step=Step.EXECUTE,
        fence=job.lease["fence"],
        run=row,
        lease=job.lease,
        taken_over=job.taken_over,
        sticky=job.sticky,
        spec_cache=job.spec_cache,
    )


def act(context: Context, job: Job) -> Any:
    """Do step `execute`: put the tree if that is what comes next, else start the command."""
    if job.execution is not None:
        return execute.act(context, job)
    if copying.is_due(job):
        return copying.act(context, job)
    assert job.lease is not None
    tree = tree_of(job)
    if tree is None or _lies_there(tree, load(job.lease["facts"])):
        return choosing.act(context, job)
    return _realize(context, job)


def _realize(context: Context, job: Job) -> Realized | Gone | Trouble:
    lease, run, tree = job.lease, job.run, tree_of(job)
    assert lease is not None
    assert run is not None
    assert tree is not None
    if job.end_requested:
        return Realized(0)
    provider = context.provider(lease["provider"])
    budget = Budget(context.timers.transfer_budget, cancelled=interruptions(context, job))
    target, fence = job.target(context), job.sandbox_fence(context)
    try:
        if job.taken_over:
            with effect("provider.seize"):
                provider.seize(target, fence=fence, budget=budget)
        with tempfile.TemporaryFile() as file:
            spool = cast("BinaryIO", file)
            with effect("blob.fetch"):
                context.blobs.fetch(run["tenant_id"], tree["digest"], spool)
            files = reading.check(spool, context.limits.workspace)
            with effect("provider.put"):
                provider.put(
                    target, ROOT, spool, fence=fence, tree=True, mode=0o755, budget=budget
                )
        return Realized(files)
    except SandboxGoneError as error:
        return Gone(str(error))
    except StaleFenceError:
        raise
    except InterruptedCallError as error:
        return Trouble(error.code, str(error), counts=False)
    except CapacityError as error:
        return Trouble(error.code, str(error), retry_after_s=error.retry_after_s)
    except HostileTreeError as error:
        return Trouble(error.code, f"the workspace was refused: {error}", permanent=True)
    except LeaseholdError as error:
        return Trouble(error.code, str(error), permanent=not error.retryable)


def record(tx: Tx, context: Context, job: Job, outcome: Any) -> Job | None:
    """Write down what the sandbox holds now, and go on to what it still lacks."""
    if job.execution is not None:
        return execute.record(tx, context, job, outcome)
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    if job.end_requested:
        return ending.follow(tx, context, job, fates.ended_by(job.end_requested))
    if copying.is_due(job):
        return copying.record(tx, context, job, outcome)
    if isinstance(outcome, choosing.Asked):
        choosing.note(tx, context, job, outcome)
        return enter(tx, context, job, asked=True)
    tree = tree_of(job)
    if tree is None or _lies_there(tree, load(lease["facts"])):
        return choosing.failed(tx, context, job, outcome)
    if isinstance(outcome, Gone):
        return _gone(tx, context, job, outcome)
    if isinstance(outcome, Trouble):
        return _trouble(tx, context, job, outcome)
    facts = {**load(lease["facts"]), "setup": None}
    facts["tree"] = {
        **tree,
        "files": outcome.files,
        "name": job.spec.workspace,
        "run_id": run["id"],
        "realized_at": run["now_us"],
    }
    _set_facts(tx, job, facts)
    names = ("digest", "commit", "files", "bytes")
    looking.say(
        tx,
        job,
        "workspace.realized",
        {n: facts["tree"][n] for n in names if n in facts["tree"]},
    )
    return enter(tx, context, job)


def _gone(tx: Tx, context: Context, job: Job, outcome: Gone) -> Job | None:
    data = {"code": SandboxGoneError.code, "message": outcome.message}
    looking.say(tx, job, "workspace.failed", data)
    return ending.lost_before_start(tx, context, job)


def _trouble(tx: Tx, context: Context, job: Job, outcome: Trouble) -> Job | None:
    """Try again in the same sandbox; give one up that was used before and takes no tree."""
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    looking.say(tx, job, "workspace.failed", {"code": outcome.code, "message": outcome.message})
    tries = run["infra_attempts"] + (1 if outcome.counts else 0)
    used = "replaces" in (load(lease["facts"]).get("tree") or {})
    refused = outcome.code == ConfigRejectedError.code or tries >= _TRIES_IN_A_USED_ONE
    if used and refused and outcome.code not in _NOT_THE_SANDBOX:
        fate = fates.after_trouble(
            job.spec, infra_attempts=tries, code=outcome.code, message=outcome.message
        )
        return ending.follow(tx, context, job, fate, sound=False)
    if outcome.permanent:
        is_tree = outcome.code == ConfigRejectedError.code
        code = HostileTreeError.code if is_tree else outcome.code
        end = fates.End(RunStatus.FAILED, code, outcome.message)
        return ending.follow(tx, context, job, end, sound=False)
    spent = tries >= job.spec.max_infra_attempts
    return looking.look_again(
        tx,
        context,
        job,
        step=Step.EXECUTE,
        tries=max(tries, 1),
        infra_attempts=tries,
        end=EndKind.PARK if spent else None,
    )


def after_setup(
    tx: Tx, context: Context, job: Job, fate: fates.Fate, *, sound: bool
) -> Job | None:
    """Go on after the set-up command is over: to the run's command, or to its end."""
    if not isinstance(fate, fates.NextCommand):
        return ending.follow(tx, context, job, fate, sound=sound)
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    facts = dict(load(lease["facts"]))
    _set_facts(tx, job, {**facts, "setup": _mark(job, facts)})
    return execute.begin(tx, job, command_index=run["command_index"])
