"""
Where a run's tree comes from, asked before any sandbox is made.

A packed tree must lie in the store, whole. A git URL is cloned here, once: what its ref came to
is stored like a packed directory and written on the run, so that every later try works on the
same commit. Repeating it is harmless: the store's names are contents.
"""

from leasehold.errors import BlobMissingError, LeaseholdError
from leasehold.orchestrator.jobs import Context, Job, Trouble
from leasehold.provider.contract import Info
from leasehold.store.database import Row


def find(context: Context, job: Job, info: Info) -> Row | Trouble | None:
    """Return the tree that a git URL came to, if it is new; or say why there is none."""
    spec, run = job.spec, job.run
    assert run is not None
    if spec.moves_files and not info.capabilities.files:
        message = f"provider {info.key} carries no files: no workspace and no artifacts"
        return Trouble("unsupported", message, permanent=True)
    if spec.tree is None or spec.tree.digest is None:
        return None
    try:
        size = context.blobs.size(run["tenant_id"], spec.tree.digest)
    except LeaseholdError as error:
        return Trouble(error.code, str(error), permanent=not error.retryable)
    if size is None or (spec.tree.bytes and size != spec.tree.bytes):
        message = (
            f"the workspace is not in the store {context.blobs.address} of this worker; every"
            " process needs the same store (LEASEHOLD_STORE_URL)"
        )
        return Trouble(BlobMissingError.code, message, permanent=True)
    return None
