"""
Where a run's tree comes from, asked before any sandbox is made.

A packed tree must lie in the store, whole. A git URL is cloned here, once: what its ref came to
is stored like a packed directory and written on the run, so that every later try works on the
same commit. Repeating it is harmless: the store's names are contents. What opens the repository
is a secret's current value, asked for now; nothing of it is kept.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from leasehold.domain.redaction import NOTHING, Redactor
from leasehold.domain.specs import TreeSpec
from leasehold.errors import (
    BadInputError,
    BlobMissingError,
    BlobsUnavailableError,
    InterruptedCallError,
    LeaseholdError,
    SecretUnavailableError,
)
from leasehold.orchestrator import storing
from leasehold.orchestrator.jobs import Context, Job, Trouble, interruptions
from leasehold.provider.contract import Info
from leasehold.seams import effect
from leasehold.store.database import Row
from leasehold.store.sql import load
from leasehold.trees import cloning


def find(context: Context, job: Job, info: Info) -> Row | Trouble | None:
    """Return the tree that a git URL came to, if it is new; or say why there is none."""
    spec, run = job.spec, job.run
    assert run is not None
    if spec.moves_files and not info.capabilities.files:
        message = f"provider {info.key} carries no files: no workspace and no artifacts"
        return Trouble("unsupported", message, permanent=True)
    if spec.tree is None:
        return None
    try:
        if spec.tree.digest is not None:
            return _missing(context, job, spec.tree.digest, spec.tree.bytes)
        if run["tree"] is not None:
            tree = load(run["tree"])
            return _missing(context, job, tree["digest"], tree["bytes"])
        return _cloned(context, job)
    except InterruptedCallError as error:
        return Trouble(error.code, str(error), counts=False)
    except BadInputError as error:
        return Trouble(BlobMissingError.code, str(error), permanent=True)
    except LeaseholdError as error:
        return Trouble(error.code, str(error), permanent=not error.retryable)


def _missing(context: Context, job: Job, digest: str, size: int) -> Trouble | None:
    assert job.run is not None
    found = context.blobs.size(job.run["tenant_id"], digest)
    if found is not None and size in {0, found}:
        return None
    message = (
        f"the workspace is not in the store {context.blobs.address} of this worker; every"
        " process needs the same store (LEASEHOLD_STORE_URL)"
    )
    return Trouble(BlobMissingError.code, message, permanent=True)


def _cloned(context: Context, job: Job) -> Row:
    spec, run = job.spec.tree, job.run
    assert run is not None
    assert spec is not None
    assert spec.git is not None
    url = cloning.check_url(spec.git, schemes=context.git_schemes)
    access = _access(context, run["tenant_id"], spec)
    hider = Redactor.of([access.credential]) if access.credential else NOTHING
    with tempfile.TemporaryFile() as file:
        spool = cast("BinaryIO", file)
        with effect("git.clone"), _hidden(hider):
            packed, commit = cloning.clone(
                url,
                spec.ref,
                spool,
                context.limits.workspace,
                access=access,
                stopped=interruptions(context, job),
                timeout_s=context.timers.transfer.total_seconds(),
            )
        storing.keep(context, run["tenant_id"], spool, digest=packed.digest, size=packed.bytes)
    return {
        "digest": packed.digest,
        "bytes": packed.bytes,
        "files": packed.files,
        "git": spec.git,
        "ref": spec.ref,
        "commit": commit,
    }


def _access(context: Context, tenant_id: str, spec: TreeSpec) -> cloning.Access:
    """Return what opens the repository; raises `SecretUnavailableError` if it cannot be had."""
    value: str | None = None
    if spec.credential is not None:
        if context.vault is None:
            raise SecretUnavailableError("this process resolves no secrets")
        value = context.vault.look_up(tenant_id, spec.credential.secret).value
    return cloning.Access(value, spec.known_hosts, context.git_ca_file)


@contextmanager
def _hidden(hider: Redactor) -> Iterator[None]:
    """Hide a credential in what git and servers say."""
    try:
        yield
    except (BadInputError, BlobsUnavailableError) as error:
        raise type(error)(hider.hide_text(str(error))) from None
