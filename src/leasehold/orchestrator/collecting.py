"""
What a run leaves behind: its artifacts and what it changed in its tree.

The run is at step `heartbeat` with no execution open and its end in `ending` (`keeping`).
Authority is that row. The sandbox is only read, as one tar stream; each file that is kept goes
to the store under its content's name, and all lines are written in the transaction that ends
the run. Killed anywhere before it: the next holder reads the sandbox again, and stores the same
files under the same names. A store that does not answer is asked again a few times; then the
run ends as its command did, and says what is missing. Each try pushes the sandbox's own time to
live on, which is longer than any two of them (`Timers.transfer_budget`).
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final, cast

from leasehold.domain.lifecycle import Step
from leasehold.errors import (
    ConfigRejectedError,
    LeaseholdError,
    SandboxGoneError,
    StaleFenceError,
    UnsupportedError,
)
from leasehold.orchestrator import ending, heartbeat, looking, storing
from leasehold.orchestrator.jobs import Context, Job, Trouble, interruptions
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Provider, Target
from leasehold.seams import effect
from leasehold.store import artifacts, moves
from leasehold.store.database import Tx
from leasehold.store.sql import load
from leasehold.trees import comparing, gathering
from leasehold.trees.reading import Limits

TRIES: Final = 5
_LOOKED_AT: Final = 10
"""So many times what may go in and out is looked at in a sandbox, at most."""


@dataclass(frozen=True, slots=True)
class Collected:
    """All that could be kept is in the store."""

    gathered: gathering.Gathered
    copied: str | None = None
    """What `copy_out` is, if that was asked for and is there: `file` or `directory`."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The sandbox is gone, and what was in it."""

    message: str


def act(context: Context, job: Job) -> Any:
    """Do step `heartbeat`: look after the command, or collect once the last one is over."""
    assert job.run is not None
    if job.execution is not None or job.run["ending"] is None:
        return heartbeat.act(context, job)
    return _collect(context, job)


def _collect(context: Context, job: Job) -> Collected | Gone | Trouble:
    lease, run = job.lease, job.run
    assert lease is not None
    assert run is not None
    if job.end_requested:
        return Trouble("interrupted", f"given up: {job.end_requested}", permanent=True)
    provider = context.provider(lease["provider"])
    budget = Budget(context.timers.transfer_budget, cancelled=interruptions(context, job))
    target = job.target(context)
    tenant_id = run["tenant_id"]

    def keep(source: BinaryIO, digest: str, size: int) -> None:
        budget.check()
        storing.keep(context, tenant_id, source, digest=digest, size=size)

    try:
        row = {**lease, "now_us": job.now_us}
        ttl = heartbeat.time_to_live(context, row, least=context.timers.sandbox_ttl)
        with effect("provider.renew"):
            provider.renew(target, fence=job.sandbox_fence(context), ttl=ttl, budget=budget)
        gatherer = gathering.Gatherer(_plan(context, job), keep)
        if job.spec.copy_out is not None:
            copied = _copy(provider, job, context, gatherer, budget=budget)
            return Collected(gatherer.finish(), copied)
        whole = job.spec.sync_back
        for folder in [""] if whole else gathering.folders(job.spec.artifacts):
            with effect("provider.get"):
                _read(provider, job, context, gatherer, folder=folder, budget=budget)
        return Collected(gatherer.finish())
    except SandboxGoneError as error:
        return Gone(str(error))
    except StaleFenceError:
        raise
    except LeaseholdError as error:
        return Trouble(error.code, str(error), permanent=not error.retryable)


def _plan(context: Context, job: Job) -> gathering.Plan:
    limits, base = context.limits, None
    if job.spec.sync_back:
        assert job.run is not None
        assert job.spec.tree is not None
        assert job.spec.tree.digest is not None
        with tempfile.TemporaryFile() as file:
            spool = cast("BinaryIO", file)
            context.blobs.fetch(job.run["tenant_id"], job.spec.tree.digest, spool)
            spool.seek(0)
            base = comparing.base_of(spool, limits.workspace)
    return gathering.Plan(
        globs=job.spec.artifacts,
        whole=job.spec.copy_out is not None,
        base=base,
        kept=limits.artifacts,
        file_bytes=limits.artifact_bytes,
        stream=Limits(
            files=(limits.workspace.files + limits.artifacts.files) * _LOOKED_AT,
            bytes=(limits.workspace.bytes + limits.artifacts.bytes) * _LOOKED_AT,
        ),
    )


def _read(
    provider: Provider,
    job: Job,
    context: Context,
    gatherer: gathering.Gatherer,
    *,
    folder: str,
    budget: Budget,
) -> None:
    """Read one directory of the sandbox; one that is not there has no artifacts."""

    parts = _parts(provider, job.target(context), folder or ".", tree=True, budget=budget)
    try:
        gatherer.read(cast("BinaryIO", gathering.Stream(parts)), below=folder)
    except ConfigRejectedError as error:
        gatherer.result.skip(folder or ".", str(error))


def _parts(
    provider: Provider, target: Target, path: str, *, tree: bool, budget: Budget
) -> Iterator[bytes]:
    for part in provider.get(target, path, tree=tree, budget=budget):
        budget.check()
        yield part


def _copy(
    provider: Provider,
    job: Job,
    context: Context,
    gatherer: gathering.Gatherer,
    *,
    budget: Budget,
) -> str | None:
    """Read one file, or all below a directory; return which it was, None if it is not there."""
    path, target, info = job.spec.copy_out, job.target(context), provider.describe()
    assert path is not None
    if not info.capabilities.files:
        raise UnsupportedError(f"provider {info.key} carries no files: nothing can be copied")
    plain = path.rstrip("/")
    if plain and not path.endswith(("/", "/.")) and path != ".":
        try:
            with effect("provider.get"):
                parts = _parts(provider, target, path, tree=False, budget=budget)
                gatherer.take(plain.rpartition("/")[2], parts)
        except ConfigRejectedError:
            pass  # no file: then it is a directory
        else:
            return "file"
    try:
        with effect("provider.get"):
            # With the dot a link to a directory of the sandbox is that directory.
            parts = _parts(provider, target, f"{path}/.", tree=True, budget=budget)
            gatherer.read(cast("BinaryIO", gathering.Stream(parts)))
    except ConfigRejectedError as error:
        gatherer.result.skip(path, f"no such file or directory ({error})")
        return None
    return "directory"


def record(tx: Tx, context: Context, job: Job, outcome: Any) -> Job | None:
    """End the run with what was kept, or look again."""
    run = job.run
    assert run is not None
    if job.execution is not None or run["ending"] is None:
        return heartbeat.record(tx, context, job, outcome)
    tries = load(run["ending"])["tries"] + 1
    if isinstance(outcome, Trouble):
        last = outcome.permanent or job.end_requested is not None or tries >= TRIES
        _failed(tx, job, outcome.code, outcome.message, tries=tries)
        if not last:
            return looking.look_again(tx, context, job, step=Step.HEARTBEAT, tries=tries)
        return _end(tx, context, job)
    if isinstance(outcome, Gone):
        _failed(tx, job, "sandbox_lost", outcome.message, tries=tries)
        return _end(tx, context, job, sound=False)
    gathered: gathering.Gathered = outcome.gathered
    lines = list(gathered.lines.values())
    artifacts.replace(tx, run, [asdict(line) for line in lines])
    _note(tx, job, artifacts_error=gathered.error)
    counts = {
        "kept": sum(line.kind == "artifact" for line in lines),
        "changed": sum(line.kind in {"changed", "deleted"} for line in lines),
        "bytes": gathered.bytes,
        "skipped": gathered.skipped,
        "error": gathered.error,
        "copied": outcome.copied,
    }
    looking.say(tx, job, "artifacts.collected", {name: n for name, n in counts.items() if n})
    return _end(tx, context, job)


def _failed(tx: Tx, job: Job, code: str, message: str, *, tries: int) -> None:
    assert job.run is not None
    looking.say(tx, job, "artifacts.failed", {"code": code, "message": message})
    kept = {**load(job.run["ending"]), "tries": tries}
    _note(tx, job, artifacts_error=f"{code}: {message}"[:2000], ending=kept)


def _note(tx: Tx, job: Job, **values: Any) -> None:
    assert job.run is not None
    job.run = moves.move(tx, "runs", job.run["id"], None, held=job.run, **values)


def _end(tx: Tx, context: Context, job: Job, *, sound: bool = True) -> Job | None:
    assert job.run is not None
    end = ending.kept(job.run)
    assert end is not None
    return ending.end_run(tx, context, job, end, sound=sound)
