"""
What `leasehold cp` brings into a sandbox: looked where it goes, then put there, once.

As `cp -r` has it, the place depends on what is there: into a directory the source goes under
its own name, else it becomes what was named. Only a worker sees that, and the put itself
changes it: the directory that the first try made is one that the second would go into. So the
place is chosen by a look alone and written down before anything is put. Authority is `copy` in
the lease's metadata: which run it is of, the place, and whether all of it lies there. The run
is at step `execute` with no execution open; its command, which does nothing, comes after.

Killed before the place is written: the next holder looks again, and nothing was put. Killed
after it, in the put, or before its record: the same is put at the same place again, which mends
what was half done, since each file is replaced whole. Killed after the record: nothing is put
any more. Neither `tree` nor `setup` of the lease's workspace is touched. A copy that is refused
costs the run, never the sandbox: a person has it for what is in it.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final, cast

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import EndKind, RunStatus, Step
from leasehold.domain.specs import CopySpec
from leasehold.errors import (
    CapacityError,
    ConfigRejectedError,
    HostileTreeError,
    InterruptedCallError,
    LeaseholdError,
    SandboxGoneError,
    StaleFenceError,
    UnsupportedError,
)
from leasehold.orchestrator import ending, execute, looking
from leasehold.orchestrator.jobs import Context, Job, Trouble, interruptions
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Provider, Target
from leasehold.seams import effect
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.trees import reading

MISSING: Final = "path_missing"
REFUSED: Final = "path_refused"
ROOT: Final = "."
_PLAIN: Final = 0o644
_EXECUTABLE: Final = 0o755


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where it goes; nothing was put yet."""

    at: str


@dataclass(frozen=True, slots=True)
class Copied:
    """All of it lies there."""


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such sandbox any more."""

    message: str


class _What(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    NEITHER = "neither"


class _RefusedError(LeaseholdError):
    """It cannot go there; `code` says why to programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = code


def is_due(job: Job) -> bool:
    """Return whether something is still to be put before the run's command."""
    return job.spec.copy_in is not None and not (_mark(job) or {}).get("done")


def _mark(job: Job) -> Row | None:
    """Return what is written of this run's copy; that of an earlier one says nothing."""
    assert job.run is not None
    assert job.lease is not None
    mark: Row | None = load(job.lease["facts"]).get("copy")
    return mark if mark is not None and mark["run_id"] == job.run["id"] else None


def begin(tx: Tx, job: Job) -> Job:
    """Claim the step; the caller holds lease and run."""
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    row = moves.move(tx, "runs", run["id"], None, held=run, step=Step.EXECUTE, beat=False)
    assert row is not None
    row["now_us"] = run["now_us"]
    return _next(job, row, lease, taken_over=job.taken_over)


def _next(job: Job, run: Row, lease: Row, *, taken_over: bool) -> Job:
    return Job(
        step=Step.EXECUTE,
        fence=lease["fence"],
        run=run,
        lease=lease,
        taken_over=taken_over,
        sticky=job.sticky,
        spec_cache=job.spec_cache,
    )


def act(context: Context, job: Job) -> Chosen | Copied | Gone | Trouble:
    """Look where it goes, or put it there."""
    lease, spec, mark = job.lease, job.spec.copy_in, _mark(job)
    assert lease is not None
    assert spec is not None
    if job.end_requested:
        return Copied()  # its record ends the run before it looks at this
    provider = context.provider(lease["provider"])
    info = provider.describe()
    if not info.capabilities.files:
        message = f"provider {info.key} carries no files: nothing can be copied"
        return Trouble(UnsupportedError.code, message, permanent=True)
    budget = Budget(context.timers.transfer_budget, cancelled=interruptions(context, job))
    try:
        if job.taken_over:
            with effect("provider.seize"):
                provider.seize(
                    job.target(context), fence=job.sandbox_fence(context), budget=budget
                )
        if mark is None:
            return Chosen(_choose(_Looker(provider, job.target(context), budget), spec))
        _put(context, job, spec, mark["at"], budget)
        return Copied()
    except StaleFenceError:
        raise
    except LeaseholdError as error:
        return _outcome_of(error)


def _outcome_of(error: LeaseholdError) -> Gone | Trouble:
    match error:
        case SandboxGoneError():
            return Gone(str(error))
        case _RefusedError():
            return Trouble(error.reason, str(error), permanent=True)
        case InterruptedCallError():
            return Trouble(error.code, str(error), counts=False)
        case CapacityError():
            return Trouble(error.code, str(error), retry_after_s=error.retry_after_s)
        case ConfigRejectedError():
            return Trouble(REFUSED, f"it cannot be put there: {error}", permanent=True)
        case _:
            return Trouble(error.code, str(error), permanent=not error.retryable)


class _Looker:
    """Looks what a path of the sandbox is, with nothing but what every provider can do."""

    def __init__(self, provider: Provider, target: Target, budget: Budget) -> None:
        self._provider, self._target, self._budget = provider, target, budget
        self.why = ""
        """What the provider said last of something that it did not give."""

    def look(self, path: str) -> _What:
        if path == ROOT:
            return _What.DIRECTORY
        if self._gives(path, tree=False):
            return _What.FILE
        # With the dot a link to a directory of the sandbox is that directory.
        return _What.DIRECTORY if self._gives(f"{path}/.", tree=True) else _What.NEITHER

    def _gives(self, path: str, *, tree: bool) -> bool:
        try:
            with effect("provider.get"):
                parts = self._provider.get(self._target, path, tree=tree, budget=self._budget)
                _first(parts)
        except ConfigRejectedError as error:
            self.why = str(error)
            return False
        return True


def _first(parts: Iterator[bytes]) -> None:
    """Ask for one part: a provider may refuse only then; let go of the rest at once."""
    try:
        next(parts, b"")
    finally:
        if (close := getattr(parts, "close", None)) is not None:
            close()


def _choose(looker: _Looker, spec: CopySpec) -> str:
    """
    Return where the file goes, or what is in the tree.

    Raises:
        _RefusedError: There is no such directory, or something else is in the way.
    """
    to = spec.to
    match looker.look(to):
        case _What.DIRECTORY if spec.name is not None:
            at = spec.name if to == ROOT else f"{to}/{spec.name}"
            if not spec.is_file and looker.look(at) is _What.FILE:
                raise _RefusedError(REFUSED, f"{at!r} is a file there, not a directory")
            return at
        case _What.DIRECTORY:
            if spec.is_file:
                raise _RefusedError(REFUSED, f"{to!r} is a directory: name a file in it")
            return to
        case _What.FILE:
            if spec.to_directory or not spec.is_file:
                raise _RefusedError(REFUSED, f"{to!r} is a file there, not a directory")
            return to
        case _What.NEITHER:
            wanted = to if spec.to_directory else _above(to)
            if spec.to_directory or looker.look(wanted) is not _What.DIRECTORY:
                message = f"there is no directory {wanted!r} in the sandbox ({looker.why})"
                raise _RefusedError(MISSING, message)
            return to


def _above(path: str) -> str:
    return path.rpartition("/")[0] or ROOT


def _put(context: Context, job: Job, spec: CopySpec, at: str, budget: Budget) -> None:
    run, lease, limits = job.run, job.lease, context.limits.workspace
    assert run is not None
    assert lease is not None
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        with effect("blob.fetch"):
            size = context.blobs.fetch(run["tenant_id"], spec.digest, spool)
        if not spec.is_file:
            reading.check(spool, limits)
        elif size > limits.bytes:
            raise HostileTreeError(f"a file of {size} bytes; at most {limits.bytes} go in")
        spool.seek(0)
        with effect("provider.put"):
            context.provider(lease["provider"]).put(
                job.target(context),
                at,
                spool,
                fence=job.sandbox_fence(context),
                tree=not spec.is_file,
                mode=_EXECUTABLE if spec.executable or not spec.is_file else _PLAIN,
                budget=budget,
            )


def record(tx: Tx, context: Context, job: Job, outcome: Any) -> Job | None:
    """Write down the place, or that all lies there, and go on; or end the run."""
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    if isinstance(outcome, Gone):
        return _gone(tx, context, job, outcome)
    if isinstance(outcome, Trouble):
        return _trouble(tx, context, job, outcome)
    if isinstance(outcome, Chosen):
        _set_mark(tx, job, {"run_id": run["id"], "at": outcome.at, "done": False})
        assert job.lease is not None
        return _next(job, run, job.lease, taken_over=False)
    mark = _mark(job)
    assert mark is not None
    _set_mark(tx, job, {**mark, "done": True})
    looking.say(tx, job, "files.copied", {"at": mark["at"]})
    return execute.begin(tx, job, command_index=run["command_index"])


def _set_mark(tx: Tx, job: Job, mark: Row) -> None:
    assert job.lease is not None
    facts = {**load(job.lease["facts"]), "copy": mark}
    job.lease = moves.move(tx, "leases", job.lease["id"], None, held=job.lease, facts=facts)


def _gone(tx: Tx, context: Context, job: Job, outcome: Gone) -> Job | None:
    data = {"code": SandboxGoneError.code, "message": outcome.message}
    looking.say(tx, job, "files.failed", data)
    return ending.lost_before_start(tx, context, job)


def _trouble(tx: Tx, context: Context, job: Job, outcome: Trouble) -> Job | None:
    """Try again at the same place; what cannot work ends the run and leaves the sandbox."""
    run = job.run
    assert run is not None
    looking.say(tx, job, "files.failed", {"code": outcome.code, "message": outcome.message})
    if outcome.permanent:
        end = fates.End(RunStatus.FAILED, outcome.code, outcome.message)
        return ending.follow(tx, context, job, end)
    tries = run["infra_attempts"] + (1 if outcome.counts else 0)
    return looking.look_again(
        tx,
        context,
        job,
        step=Step.EXECUTE,
        tries=max(tries, 1),
        infra_attempts=tries,
        end=EndKind.PARK if tries >= job.spec.max_infra_attempts else None,
    )
