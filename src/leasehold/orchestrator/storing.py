"""
How bytes come into the store of blobs: the row first, then the object (`store.blobs`).

Killed after the row: it is asked later whether anything names it, and both go. Killed after
the object: the same. A put that is repeated finds the row, and the object if it was whole.
"""

from typing import BinaryIO, Final

from leasehold.domain.retention import BLOB_GRACE_S
from leasehold.errors import BlobsUnavailableError
from leasehold.ids import new_id
from leasehold.orchestrator.jobs import SECOND_US, Context
from leasehold.store import blobs
from leasehold.store.database import Tx

_TRIES: Final = 5
GRACE_US: Final = int(BLOB_GRACE_S * SECOND_US)


def intend(tx: Tx, tenant_id: str, *, digest: str, size: int) -> str:
    """
    Say that an object will be there; return its name.

    Raises:
        BlobsUnavailableError: Others begin and end the same again and again.
    """
    for number in range(_TRIES):
        row = blobs.live(tx, tenant_id, digest)
        if row is not None:
            # Half of the grace is long enough; so most puts only read.
            late = row["look_at"] is not None and row["look_at"] < row["now_us"] + GRACE_US // 2
            if late:
                blobs.put_off(tx, tenant_id, row["name"], grace_us=GRACE_US)
            return str(row["name"])
        # The plain name may be going: then what is put now must not be what is deleted.
        name = f"{digest}.{new_id()}" if number else digest
        if blobs.insert(tx, tenant_id, digest, name=name, size=size, grace_us=GRACE_US):
            return name
    raise BlobsUnavailableError(f"object {digest} comes and goes; try again")


def keep(context: Context, tenant_id: str, source: BinaryIO, *, digest: str, size: int) -> None:
    """
    Put bytes into the store; who calls this names them in a row soon after.

    Raises:
        BlobsUnavailableError: The store does not answer, or is full.
    """
    with context.database.write("blob.intent") as tx:
        name = intend(tx, tenant_id, digest=digest, size=size)
    context.blobs.put(tenant_id, source, name=name, size=size)
