"""
Try a config, saved or not, by SQL: checked by a worker, then one sandbox made and destroyed.

The probe needs nobody who waits: the worker that makes its sandbox has it destroyed.
"""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from leasehold.cli.door import Door
from leasehold.cli.ports import Shape
from leasehold.domain.specs import EnvironmentSpec
from leasehold.orchestrator import probing, vetting
from leasehold.store import environments, leases
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

if TYPE_CHECKING:
    from leasehold.orchestrator.probing import DraftSpec

_POLL_S: Final = 0.05


def probe(door: Door, name: str | None, draft: "DraftSpec | None", *, wait_s: float) -> Shape:
    """Return what came of it; of a draft nothing is saved."""
    until = time.monotonic() + wait_s
    saved, spec = None, draft or _spec(door, str(name))
    if name is not None:
        saved = door.read(lambda tx: environments.get(tx, name, tenant_id=door.tenant))["id"]

    def begin(tx: Tx) -> Row:
        if saved is None:
            place = probing.of_draft(tx, spec, tenant_id=door.tenant)
        else:
            place = environments.get(tx, saved, tenant_id=door.tenant)
        return probing.begin(tx, door.context, place, actor="cli", is_draft=saved is None)

    wait = timedelta(seconds=wait_s)
    vetted = vetting.vet(door.context, spec, tenant_id=door.tenant, wait=wait)
    lease_id = door.write("probe", begin, repeatable=False)["id"]
    while True:
        shape = door.read(
            lambda tx: probing.view(tx, leases.get(tx, lease_id, tenant_id=door.tenant))
        )
        if probing.is_over(shape) or time.monotonic() >= until:
            return shape | vetted.answer()
        time.sleep(_POLL_S)


def _spec(door: Door, name: str) -> EnvironmentSpec:
    row = door.read(lambda tx: environments.get(tx, name, tenant_id=door.tenant))
    return EnvironmentSpec.model_validate(load(row["spec"]))
